"""What can be said without making a namespace; the rest is in tests/e2e/test_network.py."""

import os

import pytest

from tare.base.errors import NotFound
from tare.drivers.network.netlink import Netlink
from tare.drivers.network.netns import Namespaces, NetNamespace


def test_the_path_can_be_opened_while_we_hold_it():
    namespace = NetNamespace(os.open("/proc/self/ns/net", os.O_RDONLY), Netlink())
    assert os.stat(namespace.path).st_ino == os.stat("/proc/self/ns/net").st_ino
    namespace.close()


def test_a_namespace_that_is_not_there():
    namespaces = Namespaces()
    with pytest.raises(NotFound):
        namespaces.open("/proc/0/ns/net")
    namespaces.close()
