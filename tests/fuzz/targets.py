"""Everything of ours that reads what others wrote, as functions of bytes, with words that such texts are made of.

A target returns or raises one of its own errors; anything else, and anything slower than `SLOW_S`, is a finding.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tare.base.clock import Nanos
from tare.base.durations import exact_duration
from tare.base.errors import TareError
from tare.base.reference import parse_reference
from tare.base.sizes import parse_bytes
from tare.build import cachedoc, gitref, ignore, instructions, lexer, schedule
from tare.cli import csvline, mountspec, template
from tare.client import gojson
from tare.containers import cdi, logtag, seccomp_profile
from tare.containers.logs import Wanted, translate
from tare.drivers import cgroups, userns
from tare.drivers.archive import tar
from tare.drivers.archive.pipeline import plain_blocks
from tare.networks import dns, ports
from tare.oci.image import Descriptor, Manifest, parse_config, parse_manifest
from tare.registry import challenge, hosts
from tare.web.guard import Guard
from tare.web.heads import parse_head
from tare.wire import expand
from tare.wire.config import CreateBody
from tare.wire.decode import decode
from tare.wire.detach import parse_keys
from tare.wire.filters import parse_filters

SLOW_S = 1.0
_A_TIME = Nanos(1_800_000_000_000_000_000)
_CACHE = Manifest(2, Descriptor(cachedoc.DOCUMENT, "sha256:" + "0" * 64, 1), [])
Own = tuple[type[Exception], ...]


@dataclass(frozen=True)
class Target:
    """call: what is tried. words: what inputs are mixed of. own: errors that are answers."""

    call: Callable[[bytes], object]
    words: tuple[bytes, ...]
    own: Own = (TareError, ValueError)
    seeds: tuple[bytes, ...] = field(default=())


def text(parse: Callable[[str], object]) -> Callable[[bytes], object]:
    """A reader of text, given bytes."""
    return lambda data: parse(data.decode("utf-8", "surrogateescape"))


def words(line: str) -> tuple[bytes, ...]:
    return tuple(word.encode() for word in line.split(" "))


def _entries(data: bytes) -> object:
    pieces = [data]
    return [entry.name for entry in tar.read_entries(tar.Source(lambda: pieces.pop() if pieces else b""))]


def _inflated(data: bytes) -> object:
    import os

    read, write = os.pipe()
    try:
        os.write(write, data[:60_000])
        os.close(write)
        block, close = plain_blocks(read)
        try:
            size = 0
            while piece := block():
                size += len(piece)
            return size
        finally:
            close()
    finally:
        os.close(read)


def _tar_seed() -> bytes:
    import tarfile

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x"}) as made:
        for name in ("a", "b" * 120, "c/d"):
            info = tarfile.TarInfo(name)
            info.size = 3
            info.pax_headers = {"SCHILY.xattr.user.x": "y", "mtime": "1.5"}
            made.addfile(info, io.BytesIO(b"abc"))
    return out.getvalue()


def _gzip_seed() -> bytes:
    import gzip

    return gzip.compress(_tar_seed())


def _render(template_text: str) -> object:
    return template.Template(template_text).execute({"ID": "x", "Names": ["a"], "Labels": {"k": "v"}, "Size": 3})


_DOCKERFILE = words(
    "FROM RUN COPY ADD ARG ENV LABEL USER WORKDIR VOLUME EXPOSE CMD ENTRYPOINT ONBUILD SHELL HEALTHCHECK STOPSIGNAL AS"
    ' scratch busybox a b /a . --from= --chown= --mount=type= bind cache secret,id=x <<EOF EOF <<-\'X\' X ["a","b"] $a'
    " ${a} ${a:-b} ${a#*} ${a//x/y} \\\n \n \n\n # #syntax= #escape=` ` \" ' = NONE --interval=1s 80/tcp \t \r\n"
)
_JSON = (*words('{ } [ ] : , "a" "Image" "Cmd" "HostConfig" "Labels" null true 1 -1 1e9 "\\u0000" "\\ud800" \n'), b" ")
_OCI = words(
    '{ } [ ] : , "schemaVersion" 2 "mediaType" "application/vnd.oci.image.manifest.v1+json" "config" "layers" "manifests"'
    ' "digest" "sha256:' + "0" * 64 + '" "size" 1 -1 "rootfs" "diff_ids" "type" "layers" "history" null "platform"'
    ' "application/vnd.docker.distribution.manifest.list.v2+json" "urls"'
)
OURS = Guard(frozenset({"engine"}), "https")

TARGETS: Mapping[str, Target] = {
    "dockerfile": Target(instructions.parse_program, _DOCKERFILE),
    "dockerfile-lines": Target(lexer.read_dockerfile, _DOCKERFILE),
    "expansion": Target(
        text(lambda t: expand.expand(t, {"a": "x*y", "b": ""})),
        words("$ { } a b : - + ? # ## % %% / // * [x] \\ ' \" ab \n"),
    ),
    "dockerignore": Target(
        text(lambda t: ignore.read_ignore(t).leaves_out("a/b/c.txt")),
        words("* ** / ! a b ? [a-z] [^x] \\ \n # . .. *****a"),
    ),
    "git-address": Target(
        text(gitref.parse_git),
        words("https:// git:// ssh:// git@ github.com / : # .git branch sub/dir .. - --upload-pack= \0"),
    ),
    "schedule": Target(
        lambda data: schedule.parse_schedule(data.decode("utf-8", "surrogateescape")).next_after(_A_TIME),
        (*words("* 0 59 23 31 2 12 7 mon feb , - / @ nightly @hourly L # ? 99"), b" "),
    ),
    "cache-document": Target(
        lambda data: cachedoc.read_document(data, _CACHE),
        _JSON + words('"version" 1 "steps" "mounts" "key" "below" "layer" "diff_id" "name" "id" -1') + (b"a" * 64,),
    ),
    "cache-source": Target(text(cachedoc.parse_source), words('type= registry tar local , ref= a/b:1 src= .x " = \n')),
    "reference": Target(text(parse_reference), words("a A / : @ sha256: localhost 5000 . _ - __ " + "f" * 64)),
    "sizes": Target(text(parse_bytes), words("1 0 . k m g t p b ib -1 e 9999999999999999999999")),
    "filters": Target(
        text(lambda t: parse_filters(t, {"label", "name", "status"})), _JSON + words('"label" "name" "status" "a=b"')
    ),
    "create-body": Target(
        lambda data: decode(data, CreateBody),
        _JSON + words('"Env" "PortBindings" "80/tcp" "HostPort" "Mounts" "NetworkingConfig" "Healthcheck" "Test"'),
    ),
    "head": Target(
        parse_head,
        words(
            "GET POST / /a?b=c HTTP/1.1 HTTP/1.0 \r\n \r\n\r\n Host: Content-Length: 5 Transfer-Encoding: chunked : \0 \n é"
        ),
        seeds=(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n",),
    ),
    "host-and-origin": Target(
        text(lambda t: OURS.refusal("POST", {"host": t[: len(t) // 2], "origin": t[len(t) // 2 :]})),
        words("engine : [ ] ::1 https:// 443 @ . / \0 é 1.2.3.4"),
    ),
    "manifest": Target(parse_manifest, _OCI),
    "image-config": Target(parse_config, _OCI),
    "tar": Target(_entries, (b"\0" * 512, b"ustar\x0000", b"0000644\0"), own=(tar.ArchiveError,), seeds=(_tar_seed(),)),
    "compressed": Target(
        _inflated,
        (b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"),
        own=(tar.ArchiveError,),
        seeds=(_gzip_seed(),),
    ),
    "log-lines": Target(
        lambda data: translate(data, Wanted(timestamps=True)),
        (*words("2026-11-24T04:12:36.347000000Z stdout stderr F P x \n \n\n -01:00 \x00"), b" "),
    ),
    "name-query": Target(
        dns.parse,
        (b"\x12\x34\x01\0\0\1\0\0\0\0\0\0", b"\x03web\0", b"\0\1\0\1", b"\xc0\x0c", b"\xff" * 8, b"\0\0\x29"),
        seeds=(b"\x12\x34\x01\0\0\1\0\0\0\0\0\0\x03web\0\0\1\0\1",),
    ),
    "challenge": Target(
        text(lambda t: challenge.parse_challenges([t])),
        words('Bearer Basic realm= "https://r/token" service= scope= "repository:a:pull" , = \\" " error= ; \t'),
    ),
    "token": Target(challenge.parse_token, _JSON + words('"token" "access_token" "expires_in" "issued_at"')),
    "mirror": Target(text(hosts.parse_mirror), words("https:// http:// a.b = : 5000 / ? # @ [::1] \0")),
    "insecure-registry": Target(text(hosts.parse_insecure), words("10.0.0.0/8 a.b : 5000 / https:// ::/0 é 999")),
    "seccomp-profile": Target(
        seccomp_profile.parse,
        _JSON
        + words('"defaultAction" "SCMP_ACT_ALLOW" "syscalls" "names" "args" "index" "op" "SCMP_CMP_EQ" "archMap"'),
    ),
    "cdi": Target(
        lambda data: cdi.parse(json.loads(data), path="/x.json", priority=0),
        _JSON
        + words('"cdiVersion" "0.6.0" "kind" "vendor.com/gpu" "devices" "name" "containerEdits" "deviceNodes" "path"'),
    ),
    "log-tag": Target(
        text(lambda t: logtag.check({"tag": t})), words("{{ }} . .ID .Name | index json lower \" ' ( ) a 1 {{.")
    ),
    "detach-keys": Target(text(parse_keys), words("ctrl- a @ [ , \\ ^ _ ctrl-p,ctrl-q é")),
    "port": Target(text(ports.parse_port), words("80 / tcp udp sctp - : 0 65536 99999999999")),
    "publish": Target(text(mountspec.publish), words("80 : - / tcp udp 127.0.0.1 [::1] 0 70000 ::")),
    "mount": Target(
        text(mountspec.mount), words('type= bind volume tmpfs source= target= , /a readonly " \n tmpfs-size= 1g =')
    ),
    "csv": Target(text(csvline.fields), words('a " "" , \n \r =')),
    "template": Target(
        text(_render),
        words('{{ }} {{. .ID .Names .Labels range end if else with index json printf len | ( ) " ` $x := 1 -}}'),
        own=(template.TemplateError,),
    ),
    "json": Target(gojson.loads, _JSON),
    "cpu-stat": Target(text(cgroups.parse_cpu_v2), (*words("usage_usec user_usec 1 -1 \n x"), b" ")),
    "io-stat": Target(
        text(lambda t: cgroups.parse_io_stat(t, ("rbytes", "wbytes"))),
        (*words("8:0 rbytes=1 wbytes= = : \n 8 x"), b" "),
    ),
    "blkio": Target(text(cgroups.parse_blkio_v1), (*words("8:0 Read Write Total 1 -1 \n x :"), b" ")),
    "mountinfo": Target(
        text(cgroups.detect), (*words("1 2 0:1 / /sys/fs/cgroup/cpu rw - cgroup cgroup2 name=x cpu \n"), b" ")
    ),
    "subordinate-ids": Target(
        text(lambda t: userns.parse_ranges(t, ["root", "0"])), words("root 0 : 1 65536 -1 \n # é")
    ),
    "duration": Target(lambda data: exact_duration(int.from_bytes(data[:16], "little", signed=True)), (b"\0", b"\xff")),
}
