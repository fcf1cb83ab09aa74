"""`RUN --mount`: keys, defaults, what is refused."""

from __future__ import annotations

import pytest

from tare.build.instructions import Run, parse_program
from tare.build.lexer import DockerfileError
from tare.build.mounts import Mount, parse_mount


def parsed(text: str) -> Mount:
    run = parse_program("FROM x\nRUN a").stages[0].body[0]
    assert isinstance(run, Run)
    return parse_mount(run, text, workdir="/w")


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("target=/a", Mount(kind="bind", target="/a")),
        ("type=bind,dst=a/../b", Mount(kind="bind", target="/w/b")),
        (
            "TYPE=Bind,Destination=/a,SRC=s,From=st,RW",
            Mount(kind="bind", target="/a", source="s", origin="st", writable=True),
        ),
        ("target=/a,readwrite=true", Mount(kind="bind", target="/a", writable=True)),
        ("target=/a,ro", Mount(kind="bind", target="/a")),
        ("target=/a,ro=false", Mount(kind="bind", target="/a", writable=True)),
        ("target=/a,rw=0", Mount(kind="bind", target="/a")),
        ("type=cache,target=/c", Mount(kind="cache", target="/c", id="/c", writable=True)),
        (
            "type=cache,target=/c,id=i,sharing=locked,mode=0700,uid=1,gid=2,from=f,source=/s,readonly",
            Mount(
                kind="cache", target="/c", id="i", sharing="locked", mode=0o700, uid=1, gid=2, origin="f", source="/s"
            ),
        ),
        ("type=tmpfs,target=/t", Mount(kind="tmpfs", target="/t")),
        ("type=tmpfs,target=/t,size=2m", Mount(kind="tmpfs", target="/t", size=2 << 20)),
        ("type=tmpfs,target=/t,size=1gb", Mount(kind="tmpfs", target="/t", size=1 << 30)),
        ("type=secret,id=s", Mount(kind="secret", id="s", target="/run/secrets/s", mode=0o400)),
        ("type=secret,target=/x/y", Mount(kind="secret", id="y", target="/x/y", mode=0o400)),
        ("type=secret,id=s,env=E,required", Mount(kind="secret", id="s", env="E", required=True, mode=0o400)),
        (
            "type=secret,id=s,env=E,target=t,mode=440,uid=3",
            Mount(kind="secret", id="s", env="E", target="/w/t", mode=0o440, uid=3),
        ),
        ("type=ssh", Mount(kind="ssh", id="default", target="/run/buildkit/ssh_agent.0", mode=0o600)),
        ("type=ssh,id=a,target=/s,required=true", Mount(kind="ssh", id="a", target="/s", required=True, mode=0o600)),
        ('target="/a",source="b"', None),
        ('type=bind,"target=/a,b"', Mount(kind="bind", target="/a,b")),
    ],
)
def test_a_mount(text: str, mount: Mount | None) -> None:
    if mount is None:  # a quote in the middle of a field is one of its characters
        assert parsed(text).target == '/w/"/a"'
    else:
        assert parsed(text) == mount


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type=volume,target=/a", "unsupported mount type 'volume': use one of bind, cache"),
        ("type=bind", "invalid mount target for type=bind"),
        ("type=cache", "invalid mount target for type=cache"),
        ("target=/", "invalid mount target '/'"),
        ("target=/a/..", "invalid mount target '/'"),
        ("target=/a,foo=1", "unexpected key 'foo' in 'foo=1'"),
        ("target=/a,foo", "invalid field 'foo' must be a key=value pair"),
        ("target=/a,mode=0755", "unexpected key 'mode' for mount type 'bind'"),
        ("type=tmpfs,target=/a,uid=1", "unexpected key 'uid' for mount type 'tmpfs'"),
        ("target=/a,rw,ro", "either read-only or writable"),
        ("target=/a,rw=maybe", "invalid value for rw: maybe"),
        ("target=/a,from=$X", "'from' doesn't support variable expansion, define alias stage instead"),
        ("type=cache,target=/a,sharing=none", "unsupported sharing value 'none'"),
        ("type=cache,target=/a,mode=8", "invalid value 8 for mode"),
        ("type=cache,target=/a,mode=0o755", "invalid value 0o755 for mode"),
        ("type=cache,target=/a,mode=10000", "invalid value 10000 for mode"),
        ("type=cache,target=/a,uid=-1", "invalid value -1 for uid"),
        ("type=cache,target=/a,uid=4294967295", "for uid"),
        ("type=cache,target=/a,uid=" + "9" * 5000, "for uid"),
        ("type=tmpfs,target=/a,size=x", "invalid value x for size"),
        ("type=tmpfs,target=/a,size=1kk", "invalid value 1kk for size"),
        ("type=secret", "a secret needs an id or a target"),
        ('"target=/a', "cannot read mount"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(DockerfileError, match=message.replace("$", r"\$")):
        parsed(text)
