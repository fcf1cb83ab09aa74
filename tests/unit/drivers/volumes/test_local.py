"""The local driver without mounts: options, naming of flags, users, staging. Mounts are in tests/e2e/test_volumes.py."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tare.base.errors import InvalidArgument, Unavailable
from tare.drivers import linux
from tare.drivers.volumes import VolumeDriver, local
from tare.drivers.volumes.local import LocalVolumes, parse_mount_words, with_address

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


def test_users_are_counted_once_each(driver: VolumeDriver) -> None:
    driver.create("vol", {})
    driver.mount("vol", {}, "a")
    driver.mount("vol", {}, "a")
    assert driver.mount("vol", {}, "b") == driver.path("vol")
    assert driver.users("vol") == {"a", "b"}
    assert driver.unmount("vol", "a")
    assert not driver.unmount("vol", "a")
    assert driver.users("vol") == {"b"}
    driver.adopt("vol", {"c"})
    assert driver.users("vol") == {"c"}


def test_a_volume_that_a_power_cut_took_while_it_was_empty_is_made_again(driver: VolumeDriver) -> None:
    assert driver.mount("vol", {}, "a").is_dir()


def test_staged_content_appears_in_one_step_and_never_replaces_any(driver: LocalVolumes) -> None:
    driver.create("vol", {})
    stage = driver.stage("vol", {})
    assert stage is not None
    (stage / "f").write_text("new")
    assert driver.commit("vol")
    assert (driver.path("vol") / "f").read_text() == "new"
    stage = driver.stage("vol", {})
    assert stage is not None
    (stage / "f").write_text("late")
    assert not driver.commit("vol")
    assert (driver.path("vol") / "f").read_text() == "new"
    assert not stage.exists()
    driver.create("busy", {})
    stage = driver.stage("busy", {})
    assert stage is not None
    driver.mount("busy", {}, "a")
    assert not driver.commit("busy")
    assert not stage.exists()
    assert driver.stage("busy", {}) is None
    assert driver.stage("other", {"device": "x"}) is None


def test_names_are_those_with_content(driver: LocalVolumes) -> None:
    driver.create("empty", {})
    driver.create("full", {})
    (driver.path("full") / "f").touch()
    (driver.path("full").parent.parent / "stray").touch()
    assert list(driver.names()) == ["full"]
    driver.remove("full")
    driver.remove("full")
    assert driver.names() == {}


def test_passwords_are_not_repeated_and_servers_that_do_not_answer_are_told_apart() -> None:
    def text(code: int, data: str) -> tuple[type[Exception], str]:
        error = local._mount_error(OSError(code, os.strerror(code)), device="//s/x", target="/t", flags=1, data=data)
        return type(error), error.message

    kind, message = text(errno.ETIMEDOUT, "user=u,password=secret")
    assert kind is Unavailable
    assert "secret" not in message
    kind, message = text(errno.ENOENT, "vers=4")
    assert kind is InvalidArgument
    assert message == (
        "error while mounting volume '/t': failed to mount local volume: mount //s/x:/t, flags: 0x1, data: vers=4: "
        "no such file or directory"
    )
