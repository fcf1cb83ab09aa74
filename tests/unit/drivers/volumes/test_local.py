"""The local driver without mounts: options, naming of flags, users, staging. Mounts are in tests/e2e/test_volumes.py."""

from __future__ import annotations

import errno
import importlib.util
import os
from pathlib import Path

import pytest

from tare.base.errors import InvalidArgument, Unavailable
from tare.drivers import linux
from tare.drivers.volumes import local
from tare.drivers.volumes.local import LocalVolumes, parse_mount_words, with_address

_spec = importlib.util.spec_from_file_location(
    "suites_volumedriver", Path(__file__).parents[3] / "suites" / "volumedriver.py"
)
assert _spec is not None
assert _spec.loader is not None
_suite = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_suite)

BIND, RDONLY = linux.MS_BIND, linux.MS_RDONLY


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalVolumes:
    """A driver that need not be root: nothing is mounted anywhere."""

    def nothing_there(_target: str, _flags: int = 0) -> None:
        raise OSError(errno.EINVAL, "not a mount point")

    monkeypatch.setattr(linux, "umount", nothing_there)
    return LocalVolumes(tmp_path)


@pytest.mark.parametrize(
    ("text", "flags", "propagation", "data"),
    [
        ("", 0, 0, ""),
        ("bind,ro", BIND | RDONLY, 0, ""),
        ("rbind,rslave", BIND | linux.MS_REC, linux.MS_SLAVE | linux.MS_REC, ""),
        ("ro,rw,nodev,size=1m,uid=7", linux.MS_NODEV, 0, "size=1m,uid=7"),
        ("addr=10.0.0.1,nolock,soft", 0, 0, "addr=10.0.0.1,nolock,soft"),
    ],
)
def test_words_of_mount(text: str, flags: int, propagation: int, data: str) -> None:
    assert parse_mount_words(text) == (flags, propagation, data)


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        (
            {"type": "nfs", "o": "addr=192.0.2.7,nfsvers=4,soft,ro", "device": ":/export"},
            [(":/export", "/t", "nfs", RDONLY, "addr=192.0.2.7,nfsvers=4,soft")],
        ),
        ({"type": "tmpfs", "device": "tmpfs"}, [("tmpfs", "/t", "tmpfs", 0, None)]),
        (
            {"type": "none", "o": "rbind,ro,rslave", "device": "/srv"},
            [
                ("/srv", "/t", "none", BIND | linux.MS_REC | RDONLY, None),
                ("", "/t", None, linux.MS_SLAVE | linux.MS_REC, None),
                ("", "/t", None, BIND | linux.MS_REC | RDONLY | linux.MS_REMOUNT, None),
            ],
        ),
    ],
)
def test_calls_of_mount(options: dict[str, str], calls: list[local.MountCall]) -> None:
    assert local.mount_calls(options, "/t") == calls


def test_an_nfs_volume_is_mounted_at_its_servers_number(driver: LocalVolumes, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[object, ...]] = []
    monkeypatch.setattr(linux, "mount", lambda *call: called.append(call))
    options = {"type": "nfs", "o": "addr=127.0.0.1,vers=3,nolock", "device": ":/export"}
    driver.create("far", options)
    driver.mount("far", options, "a")
    assert called == [(":/export", str(driver.path("far")), "nfs", 0, "addr=127.0.0.1,vers=3,nolock")]


def test_addresses_are_numbers_for_the_kernel() -> None:
    assert with_address("addr=127.0.0.1,vers=4") == "addr=127.0.0.1,vers=4"
    assert with_address("") == ""
    assert with_address("addr=localhost") in ("addr=127.0.0.1", "addr=::1")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"foo": "x"}, 'invalid option: "foo"'),
        ({"type": "nfs"}, 'missing required option: "device"'),
        ({"o": "bind"}, 'missing required option: "device"'),
        ({"device": "/x"}, 'missing required option: "type"'),
        ({"size": "1g"}, "quota size requested but no quota support"),
    ],
)
def test_options_that_cannot_be(driver: LocalVolumes, options: dict[str, str], text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        driver.create("vol", options)
    assert not driver.path("vol").exists()


class TestLocalVolumes(_suite.VolumeDriverSuite):  # type: ignore[name-defined,misc]
    """The suite of every driver."""


def test_a_volume_that_a_power_cut_took_while_it_was_empty_is_made_again(driver: LocalVolumes) -> None:
    assert driver.mount("vol", {}, "a").is_dir()


def test_a_volume_that_has_to_be_mounted_is_not_staged(driver: LocalVolumes) -> None:
    driver.create("vol", {})
    assert driver.stage("vol", {"device": "x"}) is None


def test_what_does_not_belong_there_is_left_alone(driver: LocalVolumes, tmp_path: Path) -> None:
    (tmp_path / "volumes/stray").touch()
    (tmp_path / "volumes/half").mkdir()
    assert driver.lost(()) == {}
    assert (tmp_path / "volumes/stray").exists()


def test_passwords_are_not_repeated_and_servers_that_do_not_answer_are_told_apart() -> None:
    def text(code: int, data: str) -> tuple[type[Exception], str]:
        options = {"device": "//s/x", "type": "cifs"}
        error = local._mount_error(OSError(code, os.strerror(code)), options=options, target="/t", flags=1, data=data)
        assert (error.hint == "this kernel has no file system of type cifs") is (code == errno.ENODEV)
        return type(error), error.message

    kind, message = text(errno.ETIMEDOUT, "user=u,password=secret")
    assert kind is Unavailable
    assert "secret" not in message
    kind, _ = text(errno.ENODEV, "vers=4")
    assert kind is InvalidArgument
    kind, message = text(errno.ENOENT, "vers=4")
    assert kind is InvalidArgument
    assert message == (
        "error while mounting volume '/t': failed to mount local volume: mount //s/x:/t, flags: 0x1, data: vers=4: "
        "no such file or directory"
    )
