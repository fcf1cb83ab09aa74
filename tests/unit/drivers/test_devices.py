"""Host device nodes; /dev/null is on every machine."""

import pytest

from tare.base.errors import InvalidArgument
from tare.drivers import devices


def test_one_node_under_another_name():
    [(target, node)] = devices.expand("/dev/null", "/dev/nothing")
    assert (target, node.kind, node.major, node.minor) == ("/dev/nothing", "c", 1, 3)
    assert devices.expand("/dev/null", "")[0][0] == "/dev/null"


def test_a_link_is_followed_and_a_directory_expanded(tmp_path):
    (tmp_path / "alias").symlink_to("/dev/zero")
    [(target, node)] = devices.expand(str(tmp_path / "alias"), "")
    assert (target, node.path) == (str(tmp_path / "alias"), "/dev/zero")
    with pytest.raises(InvalidArgument, match="not a device node"):
        devices.expand(str(tmp_path), "/dev/x")


def test_refusals():
    with pytest.raises(InvalidArgument, match='custom device "/dev/nonexist": no such file or directory'):
        devices.expand("/dev/nonexist", "")
    with pytest.raises(InvalidArgument, match="procHooks process: /dev/null is not a block device: no such device"):
        devices.block_number("/dev/null")
    with pytest.raises(InvalidArgument, match="no such block device: /dev/nonexist"):
        devices.block_number("/dev/nonexist")


def test_privileged_containers_do_not_get_what_they_have_of_their_own():
    paths = {device.path for device in devices.everything()}
    assert not paths & {"/dev/null", "/dev/console", "/dev/ptmx", "/dev/tty"}
    assert not any(path.startswith("/dev/pts/") for path in paths)
