"""Adding and dropping capabilities."""

import pytest

from tare.base.errors import InvalidArgument
from tare.containers import capabilities

EVERY = frozenset(capabilities.ALL)


def resolve(add=(), drop=(), *, privileged=False, available=EVERY):
    return capabilities.resolve(add=add, drop=drop, privileged=privileged, available=available)


def test_default_mask_is_the_documented_one():
    assert f"{capabilities.to_mask(resolve()):016x}" == "00000000a80425fb"
    assert capabilities.from_mask(0xA80425FB) == capabilities.DEFAULT


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        (["net_admin"], [], capabilities.DEFAULT | {"CAP_NET_ADMIN"}),
        (["CAP_NET_ADMIN"], ["ALL"], {"CAP_NET_ADMIN"}),
        ([], ["all"], set()),
        (["ALL"], ["sys_admin"], EVERY - {"CAP_SYS_ADMIN"}),
        ([], ["MKNOD", "cap_chown"], capabilities.DEFAULT - {"CAP_MKNOD", "CAP_CHOWN"}),
        (["ALL"], ["ALL"], EVERY),
    ],
)
def test_add_and_drop(add, drop, expected):
    assert set(resolve(add, drop)) == expected


def test_privileged_has_what_the_engine_holds():
    held = EVERY - {"CAP_SYS_RESOURCE"}
    assert set(resolve(drop=["ALL"], privileged=True, available=held)) == held


def test_unknown_names_are_refused():
    with pytest.raises(InvalidArgument, match='invalid CapAdd: unknown capability: "CAP_FOO"'):
        resolve(["foo"])
    with pytest.raises(InvalidArgument, match='invalid CapDrop: unknown capability: "CAP_X"'):
        resolve([], ["cap_x"])


def test_a_wish_beyond_the_host_is_refused():
    with pytest.raises(InvalidArgument, match='not available in the current environment: "CAP_SYS_RESOURCE"'):
        resolve(["SYS_RESOURCE"], available=EVERY - {"CAP_SYS_RESOURCE"})
