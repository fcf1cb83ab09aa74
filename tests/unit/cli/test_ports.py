"""From `tare port add|rm` to the request."""

import pytest

from tare.cli.ports import bindings


def test_bindings_of_add():
    assert bindings(["8080:80", "[::1]:81:80", "53/udp"], empties=False) == {
        "80/tcp": [{"HostIp": "", "HostPort": "8080"}, {"HostIp": "::1", "HostPort": "81"}],
        "53/udp": [{"HostIp": "", "HostPort": ""}],
    }


def test_without_a_port_of_the_host_rm_means_all():
    assert bindings(["80", "8443:443"], empties=True) == {
        "80/tcp": [],
        "443/tcp": [{"HostIp": "", "HostPort": "8443"}],
    }


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="invalid"):
        bindings(["80:x"], empties=False)
