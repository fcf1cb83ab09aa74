"""Users, directories and programs in a root file system that may be hostile. Needs no root: only a directory."""

import os

import pytest

from tare.base.errors import InvalidArgument
from tare.drivers import rootfs

ROOT = (
    "root:x:0:0:root:/root:/bin/sh\n# web:x:1:1::/:\nweb:x:33:34:web:/var/www:/bin/sh\nbad:x:x:0:::\n12:x:99:99::/:\n"
)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(ROOT)
    (tmp_path / "etc/group").write_text("root:x:0:\nwheel:x:10:root,web\nweb:x:34:\naudio:x:29:web\n")
    fd = rootfs.open_root(tmp_path)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    ("user", "groups", "expected"),
    [
        ("", (), (0, 0, (0, 10), "/root")),
        ("web", (), (33, 34, (34, 10, 29), "/var/www")),
        ("33", (), (33, 34, (34, 10, 29), "/var/www")),
        ("web:audio", (), (33, 29, (29,), "/var/www")),
        ("web:5", (), (33, 5, (5,), "/var/www")),
        ("1000", (), (1000, 0, (0,), "/")),
        ("1000:1001", ("audio", "7"), (1000, 1001, (1001, 29, 7), "/")),
        (":audio", (), (0, 29, (29,), "/root")),
        ("12", (), (12, 0, (0,), "/")),  # digits are a number, never a name
    ],
)
def test_users(root, user, groups, expected):
    found = rootfs.resolve_user(root, user, groups)
    assert (found.uid, found.gid, found.additional_gids, found.home) == expected


@pytest.mark.parametrize(
    ("user", "groups", "message"),
    [
        ("nobodyx", (), "unable to find user nobodyx: no matching entries in passwd file"),
        ("0:nogrp", (), "unable to find group nogrp: no matching entries in group file"),
        ("", ("foo",), "Unable to find group foo: no matching entries in group file"),
        ("99999999999", (), "uids and gids must be in range 0-2147483647"),
        ("root:99999999999", (), "uids and gids must be in range 0-2147483647"),
        ("9" * 5000, (), "uids and gids must be in range 0-2147483647"),
        ("²", (), "unable to find user"),
        ("-1", (), "unable to find user -1"),
    ],
)
def test_users_that_are_not_there(root, user, groups, message):
    with pytest.raises(InvalidArgument, match=message):
        rootfs.resolve_user(root, user, groups)


def test_without_files_only_numbers_work(tmp_path):
    fd = rootfs.open_root(tmp_path)
    try:
        assert rootfs.resolve_user(fd, "").uid == 0
        assert rootfs.resolve_user(fd, "5:6").gid == 6
        with pytest.raises(InvalidArgument):
            rootfs.resolve_user(fd, "root")
    finally:
        os.close(fd)


def test_a_link_does_not_lead_to_the_hosts_passwd(root, tmp_path):
    (tmp_path / "etc/passwd").unlink()
    (tmp_path / "etc/passwd").symlink_to("../../../../../../etc/passwd")
    with pytest.raises(InvalidArgument):  # the link leads to itself inside the root
        rootfs.resolve_user(root, "daemon")


def test_only_small_regular_files_are_read(root, tmp_path):
    (tmp_path / "etc/passwd").unlink()
    os.mkfifo(tmp_path / "etc/passwd")
    with pytest.raises(InvalidArgument, match="not a regular file"):
        rootfs.resolve_user(root, "web")
    (tmp_path / "etc/passwd").unlink()
    with open(tmp_path / "etc/passwd", "wb") as file:
        file.truncate(rootfs.MAX_FILE_BYTES + 1)
    with pytest.raises(InvalidArgument, match="larger than"):
        rootfs.resolve_user(root, "web")


@pytest.mark.skipif(os.geteuid() != 0, reason="gives directories to root")
def test_a_working_directory_is_made(root, tmp_path):
    rootfs.ensure_directory(root, "/srv//app/./x")
    assert (tmp_path / "srv/app/x").is_dir()
    assert oct((tmp_path / "srv").stat().st_mode) == "0o40755"
    (tmp_path / "srv/link").symlink_to("/srv/app")
    rootfs.ensure_directory(root, "/srv/link/y")
    assert (tmp_path / "srv/app/y").is_dir()
    rootfs.ensure_directory(root, "/srv/link/y")


@pytest.mark.skipif(os.geteuid() != 0, reason="gives directories to root")
def test_a_working_directory_never_leaves_the_root(root, tmp_path):
    (tmp_path / "out").symlink_to("../../../../tmp")
    with pytest.raises(InvalidArgument, match="Cannot mkdir"):
        rootfs.ensure_directory(root, "/out/x")  # /tmp is not in the root: a link to nowhere
    assert not (tmp_path / "tmp").exists()
    with pytest.raises(InvalidArgument, match="Cannot mkdir: /etc/passwd is not a directory"):
        rootfs.ensure_directory(root, "/etc/passwd")
    with pytest.raises(InvalidArgument, match="below /proc"):
        rootfs.ensure_directory(root, "/a/../proc/self/fd")
    with pytest.raises(InvalidArgument, match="absolute"):
        rootfs.ensure_directory(root, "a")


@pytest.fixture
def programs(root, tmp_path):
    (tmp_path / "bin").mkdir()
    for name, mode in (("good", 0o755), ("plain", 0o644)):
        (tmp_path / "bin" / name).write_text("x")
        (tmp_path / "bin" / name).chmod(mode)
    (tmp_path / "bin/folder").mkdir()
    (tmp_path / "bin/link").symlink_to("/bin/good")
    (tmp_path / "bin/lost").symlink_to("/data/good")
    return root


@pytest.mark.parametrize("program", ["good", "/bin/good", "bin/good", "./bin/../bin/good", "link"])
def test_programs_that_are_there(programs, program):
    rootfs.check_executable(programs, program)


@pytest.mark.parametrize(
    ("program", "code", "message"),
    [
        ("nope", 127, r'exec: "nope": executable file not found in \$PATH'),
        ("folder", 127, "executable file not found"),
        ("plain", 126, 'exec: "plain": permission denied'),
        ("/bin/plain", 126, "permission denied"),
        ("/bin/folder", 126, 'exec: "/bin/folder": is a directory'),
        ("/bin/nope", 127, 'exec: "/bin/nope": stat /bin/nope: no such file or directory'),
        ("/bin/good/x", 127, "no such file or directory"),
        ("lost", 127, "executable file not found"),
        ("", 127, "executable file not found"),
    ],
)
def test_programs_that_cannot_be(programs, program, code, message):
    with pytest.raises(rootfs.CannotExecute, match=message) as caught:
        rootfs.check_executable(programs, program)
    assert caught.value.exit_code == code


@pytest.mark.parametrize("program", ["/data/tool", "lost", "/data"])
def test_what_may_come_from_a_mount_is_left_to_the_runtime(programs, program):
    rootfs.check_executable(programs, program, mounts=["/data"])


def test_a_mount_elsewhere_changes_nothing(programs):
    with pytest.raises(rootfs.CannotExecute):
        rootfs.check_executable(programs, "nope", mounts=["/data"])
