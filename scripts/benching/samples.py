"""Images made for measuring: a root file system cut into layers, in as many variants as there are rounds.

Every layer of a variant begins with a gzip member of its own that holds one file, so that no engine has seen the layer
before; what follows is compressed once for all of them. Nothing need be removed between rounds then (ext4 makes
whoever unpacks after a removal pay for it, docs/adr/0015-spread-directories.md).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

OCI = "application/vnd.oci.image"


@dataclass(frozen=True)
class Sample:
    """One image: the layers as they are stored, base first, and the config that names them."""

    config: bytes
    layers: list[bytes]


class Samples:
    """The variants of one root file system."""

    def __init__(self, tar: Path, layers: int) -> None:
        """Cut the tar into layers of about the same size, each with all directories."""
        outs = [io.BytesIO() for _ in range(layers)]
        writers = [tarfile.open(fileobj=out, mode="w") for out in outs]
        place: dict[str, int] = {}
        number, each = 0, tar.stat().st_size // layers
        with tarfile.open(tar) as source:
            for member in source:
                if member.isdir():
                    for writer in writers:
                        writer.addfile(member)
                    continue
                if member.islnk():
                    place[member.name] = place[member.linkname]
                else:
                    if outs[number].tell() > each and number + 1 < layers:
                        number += 1
                    place[member.name] = number
                writers[place[member.name]].addfile(member, source.extractfile(member) if member.isreg() else None)
        for writer in writers:
            writer.close()
        self._plain = [out.getbuffer() for out in outs]
        self._packed = [gzip.compress(plain, 6, mtime=0) for plain in self._plain]

    def variant(self, number: int) -> Sample:
        """The image with this number: the same files and one more in each layer."""
        layers, diff_ids = [], []
        for at, (plain, packed) in enumerate(zip(self._plain, self._packed, strict=True)):
            mark = member(f"mark-{at}", f"variant {number}\n".encode())
            digest = hashlib.sha256(mark)
            digest.update(plain)
            diff_ids.append(f"sha256:{digest.hexdigest()}")
            layers.append(gzip.compress(mark, 6, mtime=0) + packed)
        return Sample(config_of(diff_ids), layers)


def config_of(diff_ids: list[str], **labels: str) -> bytes:
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    config = {
        "architecture": architecture, "os": "linux", "config": {"Cmd": ["true"], "Labels": labels},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }  # fmt: skip
    return json.dumps(config).encode()


def member(name: str, data: bytes) -> bytes:
    """One file as a tar has it, without the end of an archive."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def upload(address: str, sample: Sample, *, tag: str) -> None:
    """Put the image into the registry as bench/image:TAG."""

    def put(path: str, data: bytes, kind: str) -> None:
        url = path if "://" in path else f"http://{address}{path}"
        request = urllib.request.Request(url, data, {"Content-Type": kind}, method="PUT")
        urllib.request.urlopen(request, timeout=60).close()

    def descriptor(data: bytes, kind: str) -> dict[str, object]:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        begin = urllib.request.Request(f"http://{address}/v2/bench/image/blobs/uploads/", b"", method="POST")
        with urllib.request.urlopen(begin, timeout=60) as answer:
            location = answer.headers["Location"]
        put(f"{location}&digest={digest}", data, "application/octet-stream")
        return {"mediaType": f"{OCI}.{kind}", "digest": digest, "size": len(data)}

    manifest = {
        "schemaVersion": 2, "mediaType": f"{OCI}.manifest.v1+json",
        "config": descriptor(sample.config, "config.v1+json"),
        "layers": [descriptor(layer, "layer.v1.tar+gzip") for layer in sample.layers],
    }  # fmt: skip
    put(f"/v2/bench/image/manifests/{tag}", json.dumps(manifest).encode(), str(manifest["mediaType"]))


def write_archive(path: Path, images: dict[str, Sample]) -> None:
    """An archive for `load`, in Docker's own form, of images by their names."""
    entries, files = list[dict[str, object]](), dict[str, bytes]()
    for name, sample in images.items():
        config = f"{hashlib.sha256(sample.config).hexdigest()}.json"
        layers = [f"{hashlib.sha256(layer).hexdigest()}/layer.tar" for layer in sample.layers]
        files |= {config: sample.config, **dict(zip(layers, sample.layers, strict=True))}
        entries.append({"Config": config, "RepoTags": [name], "Layers": layers})
    with path.open("wb") as out:
        for file, data in {**files, "manifest.json": json.dumps(entries).encode()}.items():
            out.write(member(file, data))
        out.write(bytes(2 * tarfile.BLOCKSIZE))
