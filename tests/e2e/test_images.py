"""Images end to end, on the real kernel: import, list, inspect, commit, save, load, remove, restart, and bad input."""

from __future__ import annotations

import asyncio
import gzip
import http.server
import io
import json
import os
import shutil
import tarfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tare.api import images as api
from tare.base.errors import Conflict, DataCorrupt, Forbidden, InvalidArgument, NotFound, TareError
from tare.base.ids import random_id
from tare.base.news import News
from tare.base.reference import parse_reference
from tare.drivers.archive.client import Archiver
from tare.drivers.snapshots import Change
from tare.drivers.snapshots.overlay import OverlaySnapshotter
from tare.engine.engine import Engine
from tare.images import artifacts, manifests
from tare.images.artifacts import Artifacts
from tare.images.records import SCHEMA, ImageUse
from tare.images.service import ImageOptions, Images
from tare.store.blobs import Blobs
from tare.store.db import Database
from tare.web.message import Query, Request, Response, Stream
from tare.wire.config import ContainerConfig

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


class Bench:
    """A whole image store on a data root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.news: list[News] = []

    async def open(self, *, active: set[str] | None = None, allow_private: bool = False) -> Engine:
        self.database = Database(self.root / "state.db", [SCHEMA, manifests.SCHEMA, artifacts.SCHEMA])
        snapshots = OverlaySnapshotter(self.root)
        self.archiver = Archiver()
        images = Images(
            database=self.database,
            blobs=Blobs(self.root),
            snapshots=snapshots,
            archiver=self.archiver,
            publish=self.news.append,
            options=ImageOptions(allow_private_sources=allow_private),
        )
        await images.restore(active or set())
        # The image handlers use these parts of an engine and no other.
        parts = SimpleNamespace(
            images=images,
            manifests=manifests.Manifests(self.database, Artifacts(self.database, self.root)),
            snapshots=snapshots,
            archiver=self.archiver,
            containers=[],
            image_mounts={},
        )
        return cast(Engine, parts)

    def close(self) -> None:
        self.archiver.close()
        self.database.close()

    def leftovers(self) -> dict[str, list[str]]:
        """What is on disk beside the records."""
        return {
            "ingest": os.listdir(self.root / "ingest"),
            "blobs": os.listdir(self.root / "blobs" / "sha256"),
            "snapshots": [name for name in os.listdir(self.root / "snapshots") if name != "init"],
        }


NOTHING: dict[str, list[str]] = {"ingest": [], "blobs": [], "snapshots": []}


def run(root: Path, story: Callable[[Bench, Engine], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        bench = Bench(root)
        engine = await bench.open(**options)
        try:
            await asyncio.wait_for(story(bench, engine), 60)
        finally:
            bench.close()

    asyncio.run(main())


def make_tar(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


async def chunks(data: bytes, size: int = 4096) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


class Bytes:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def __aiter__(self) -> AsyncIterator[bytes]:
        return chunks(self._data)

    async def read(self, limit: int) -> bytes:
        return self._data[:limit]


def request(method: str, path: str, query: str = "", body: bytes = b"", **params: str) -> Request:
    return Request(method, path, Query(query), {}, Bytes(body), params=params)


async def body_of(answer: object) -> bytes:
    if isinstance(answer, Response):
        return answer.body
    assert isinstance(answer, Stream)
    return b"".join([chunk async for chunk in answer.chunks])


def messages(raw: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in raw.split(b"\r\n") if line]


def test_import_then_look_then_restart(tmp_path: Path) -> None:
    async def first(bench: Bench, engine: Engine) -> None:
        answer = await api.create_image(
            engine,
            request(
                "POST",
                "/images/create",
                "fromSrc=-&repo=base&tag=1&message=hi&changes=ENV%20A=b&changes=CMD%20ls",
                make_tar(a=b"hello", etc__b=b"x" * 100_000),
            ),
        )
        image_id = messages(await body_of(answer))[0]["status"]
        found = json.loads(
            await body_of(await api.inspect_image(engine, request("GET", "/", name="docker.io/library/base:1")))
        )
        assert found["Id"] == image_id
        assert found["RepoTags"] == ["base:1"]
        assert found["Config"] == {"Cmd": ["/bin/sh", "-c", "ls"], "Env": ["A=b"]}
        assert found["Size"] == 100_005
        assert found["Comment"] == "hi"
        listed = json.loads(await body_of(await api.list_images(engine, request("GET", "/"))))
        assert [(i["Id"], i["RepoTags"], i["SharedSize"]) for i in listed] == [(image_id, ["base:1"], -1)]
        history = json.loads(await body_of(await api.image_history(engine, request("GET", "/", name="base:1"))))
        assert [(h["Comment"], h["Size"]) for h in history] == [("hi", 100_005)]
        assert [n.action for n in bench.news] == ["tag", "import"]
        assert bench.leftovers()["ingest"] == []

    async def second(bench: Bench, engine: Engine) -> None:
        image = engine.images.resolve("base:1")
        assert engine.images.resolve(image.id[7:19]) == image
        assert engine.snapshots.exists(str(image.chain_id)[7:])
        assert len(bench.leftovers()["blobs"]) == 1
        assert await engine.images.remove("base:1", uses=[]) == [
            ("Untagged", "base:1"),
            ("Deleted", image.id),
            ("Deleted", image.chain_id),
        ]
        assert bench.leftovers() == NOTHING

    run(tmp_path, first)
    # what a crash leaves, the next start removes
    (tmp_path / "ingest" / "junk").mkdir()
    (tmp_path / "blobs" / "sha256" / ("0" * 64)).write_bytes(b"x")
    (tmp_path / "snapshots" / ("1" * 64)).mkdir()
    run(tmp_path, second)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (make_tar(a=b"x" * 5000)[:3000], "unexpected EOF"),
        (gzip.compress(make_tar(a=os.urandom(5000)))[:3000], "unexpected EOF"),
        (b"this is no tar" * 100, "invalid tar header"),
        (b"\x1f\x8b" + b"\0" * 600, "gzip"),
        (make_tar(**{"..__..__evil": b"x"}), "outside of the root"),
    ],
)
def test_wrong_archives_leave_nothing(tmp_path: Path, data: bytes, text: str) -> None:
    async def story(bench: Bench, engine: Engine) -> None:
        with pytest.raises(InvalidArgument, match=text):
            await engine.images.import_(chunks(data), reference=parse_reference("x"))
        assert bench.leftovers() == NOTHING
        with pytest.raises(NotFound, match="No such image: x:latest"):
            engine.images.resolve("x")

    run(tmp_path, story)


def test_nothing_at_all_is_an_empty_image(tmp_path: Path) -> None:
    async def story(bench: Bench, engine: Engine) -> None:
        image = await engine.images.import_(chunks(b""), reference=parse_reference("x"), platform="sparc64")
        assert image.size_bytes == 0
        assert (image.document.os, image.document.architecture) == ("linux", "sparc64")

    run(tmp_path, story)


def test_a_client_that_leaves_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    async def story(bench: Bench, engine: Engine) -> None:
        started = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield make_tar(a=b"x" * 500_000)[:300_000]
            started.set()
            await asyncio.Event().wait()

        work = asyncio.create_task(engine.images.import_(slow()))
        await started.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert bench.leftovers() == NOTHING

        async def broken() -> AsyncIterator[bytes]:
            yield make_tar(a=b"x" * 500_000)[:300_000]
            raise ConnectionResetError("gone")

        with pytest.raises(ConnectionResetError):
            await engine.images.import_(broken())
        assert bench.leftovers() == NOTHING

    run(tmp_path, story)


def test_concurrent_imports_of_the_same_bytes_share_the_layer(tmp_path: Path) -> None:
    async def story(bench: Bench, engine: Engine) -> None:
        data = make_tar(a=b"x" * 200_000)
        done = await asyncio.gather(
            *(engine.images.import_(chunks(data), reference=parse_reference(f"i:{n}")) for n in range(4))
        )
        assert len({image.chain_id for image in done}) == 1
        assert len(bench.leftovers()["blobs"]) == len(bench.leftovers()["snapshots"]) == 1
        for n in range(4):
            await engine.images.remove(f"i:{n}", uses=[])
        assert bench.leftovers() == NOTHING

    run(tmp_path, story)


@contextmanager
def mounted(engine: Engine, key: str, target: Path) -> Iterator[Path]:
    target.mkdir(exist_ok=True)
    engine.snapshots.mount(key, target)
    try:
        yield target
    finally:
        engine.snapshots.unmount(target)


def test_commit_diff_save_load_on_a_second_engine(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    archive = tmp_path / "saved.tar"

    async def story(bench: Bench, engine: Engine) -> None:
        images, snapshots = engine.images, engine.snapshots
        base = await images.import_(
            chunks(make_tar(keep=b"1", drop=b"2", d__x=b"3", d__y=b"4", etc__passwd=b"root")),
            reference=parse_reference("base"),
        )
        key = random_id()
        snapshots.prepare(key, str(base.chain_id)[7:])
        with mounted(engine, key, tmp_path / "m") as root:
            assert (root / "etc/hosts").is_file()
            assert snapshots.changes(key) == []
            (root / "drop").unlink()
            (root / "new").write_text("n")
            shutil.rmtree(root / "d")
            (root / "d").mkdir()
            (root / "d" / "z").write_text("z")
            (root / "etc" / "conf").write_text("c")
        assert snapshots.changes(key) == [
            Change("/d", 0),
            Change("/d/x", 2),
            Change("/d/y", 2),
            Change("/d/z", 1),
            Change("/drop", 2),
            Change("/etc", 0),
            Change("/etc/conf", 1),
            Change("/new", 1),
        ]
        child = await images.commit(
            key,
            base,
            ContainerConfig(Cmd=["sh"]),
            author="me",
            comment="why",
            changes=["LABEL a=b"],
            reference=parse_reference("child:2"),
        )
        assert child.layers[0] == base.layers[0]
        assert not images.layers.is_unpacked(child.layers[1])  # nothing stands on it yet
        assert next((s.comment, s.created_by) for s in images.history(child)) == ("why", "sh")
        assert child.config.Labels == {"a": "b"}
        assert images.shared_bytes(child) == base.size_bytes
        other = random_id()
        async with images.standing(child):
            snapshots.prepare(other, str(child.chain_id)[7:])
        with mounted(engine, other, tmp_path / "m") as root:
            assert sorted(os.listdir(root / "d")) == ["z"]
            assert sorted(set(os.listdir(root)) - {"dev", "proc", "sys", "etc", ".dockerenv"}) == ["d", "keep", "new"]
            assert snapshots.changes(other) == []
        for known in (key, other):
            snapshots.remove(known)
        empty = random_id()
        snapshots.prepare(empty, str(child.chain_id)[7:])
        again = await images.commit(empty, child, ContainerConfig())
        assert again.chain_id == child.chain_id
        assert again.document.history is not None
        assert again.document.history[-1].empty_layer
        with pytest.raises(Conflict, match="has dependent child images"):
            await images.remove(base.id, uses=[], force=True)
        await images.remove(again.id, uses=[])
        snapshots.remove(empty)
        answer = await api.save_images(engine, request("GET", "/", "names=child&names=base:latest"))
        archive.write_bytes(await body_of(answer))
        assert archive.read_bytes() == await body_of(
            await api.save_images(engine, request("GET", "/", "names=child:2&names=base"))
        )

    async def load(bench: Bench, engine: Engine) -> None:
        for round_ in range(2):
            answer = await api.load_images(engine, request("POST", "/", "quiet=0", gzip.compress(archive.read_bytes())))
            told = messages(await body_of(answer))
            lines = [m["stream"] for m in told if "stream" in m]
            assert lines == ["Loaded image: child:2\n", "Loaded image: base:latest\n"]
            assert any("progressDetail" in m for m in told) == (round_ == 0)
        assert len(bench.leftovers()["snapshots"]) == 2
        child = engine.images.resolve("child:2")
        key = random_id()
        engine.snapshots.prepare(key, str(child.chain_id)[7:])
        with mounted(engine, key, tmp_path / "m") as root:
            assert sorted(os.listdir(root / "d")) == ["z"]
        engine.snapshots.remove(key)
        await engine.images.remove("child:2", uses=[])
        await engine.images.remove("base", uses=[])
        assert bench.leftovers() == NOTHING

    run(one, story)
    run(two, load)
    with tarfile.open(archive) as tar:
        names = tar.getnames()
    assert {"manifest.json", "index.json", "oci-layout"} <= set(names)


def test_a_digest_that_lies_in_an_archive(tmp_path: Path) -> None:
    async def story(bench: Bench, engine: Engine) -> None:
        layer = make_tar(a=b"1")
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "0" * 64]},
            }
        ).encode()
        manifest = json.dumps([{"Config": "c.json", "RepoTags": ["x:1"], "Layers": ["l/layer.tar"]}]).encode()
        data = make_tar(**{"c.json": config, "l__layer.tar": layer, "manifest.json": manifest})
        raw = await body_of(await api.load_images(engine, request("POST", "/", "quiet=0", data)))
        assert "instead of sha256:000" in messages(raw)[-1]["error"]
        raw = await body_of(await api.load_images(engine, request("POST", "/", "", layer)))
        assert "does not contain a manifest" in messages(raw)[-1]["error"]
        assert bench.leftovers() == NOTHING

    run(tmp_path, story)


def test_legacy_archive(tmp_path: Path) -> None:
    async def story(bench: Bench, engine: Engine) -> None:
        low, top = "a" * 64, "b" * 64
        data = make_tar(
            **{
                f"{low}__VERSION": b"1.0",
                f"{low}__json": json.dumps({"id": low, "created": "2015-01-01T00:00:00Z"}).encode(),
                f"{low}__layer.tar": make_tar(a=b"1"),
                f"{top}__VERSION": b"1.0",
                f"{top}__json": json.dumps(
                    {"id": top, "parent": low, "os": "linux", "architecture": "amd64", "config": {"Cmd": ["x"]}}
                ).encode(),
                f"{top}__layer.tar": make_tar(b=b"2"),
                "repositories": json.dumps({"old": {"v1": top}}).encode(),
            }
        )
        raw = await body_of(await api.load_images(engine, request("POST", "/", "", data)))
        assert messages(raw) == [{"stream": "Loaded image: old:v1\n"}]
        image = engine.images.resolve("old:v1")
        assert image.config.Cmd == ["x"]
        assert len(image.layers) == 2

    run(tmp_path, story)


def test_tags_move_and_removal_follows_dockers_rules(tmp_path: Path) -> None:
    async def story(bench: Bench, engine: Engine) -> None:
        images = engine.images
        first = await images.import_(chunks(make_tar(a=b"1")), reference=parse_reference("x:1"))
        second = await images.import_(chunks(make_tar(a=b"2")), reference=parse_reference("x:1"))
        assert images.references(first.id) == []
        assert [i.id for i in images.list_images({"dangling": ["true"]})] == [first.id]
        answer = await api.tag_image(engine, request("POST", "/", "repo=y&tag=2", name="x:1"))
        assert isinstance(answer, Response)
        assert answer.status == 201
        stopped = ImageUse("c" * 64, second.id, "x:1", running=False)
        running = ImageUse("c" * 64, second.id, "x:1", running=True)
        assert await images.remove("y:2", uses=[running]) == [("Untagged", "y:2")]
        with pytest.raises(Conflict, match=r'unable to remove repository reference "x:1" \(must force\) - container c'):
            await images.remove("x:1", uses=[stopped])
        with pytest.raises(Conflict, match=r"\(cannot be forced\) - image is being used by running container cccc"):
            await images.remove(second.id, uses=[running], force=True)
        with pytest.raises(Conflict, match=r"\(must be forced\) - image is being used by stopped container cccc"):
            await images.remove(second.id, uses=[stopped])
        await images.remove(second.id, uses=[stopped], force=True)
        assert engine.snapshots.exists(str(second.chain_id)[7:])  # the container still stands on it
        await images.release("c" * 64)
        assert not engine.snapshots.exists(str(second.chain_id)[7:])
        report = json.loads(await body_of(await api.prune_images(engine, request("POST", "/"))))
        assert report["SpaceReclaimed"] == 1
        assert report["ImagesDeleted"][0] == {"Deleted": first.id}
        assert bench.leftovers() == NOTHING

    run(tmp_path, story)


def test_import_from_a_url(tmp_path: Path) -> None:
    data = make_tar(a=b"from afar")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", "/a.tar")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data if self.path == "/a.tar" else data[:2000])

        def log_message(self, *args: object) -> None:
            return

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    base = f"http://127.0.0.1:{server.server_port}"

    async def allowed(bench: Bench, engine: Engine) -> None:
        raw = await body_of(await api.create_image(engine, request("POST", "/", f"fromSrc={base}/moved&repo=u")))
        assert messages(raw)[-1]["status"] == engine.images.resolve("u").id
        raw = await body_of(await api.create_image(engine, request("POST", "/", f"fromSrc={base}/short&repo=v")))
        assert "download failed" in messages(raw)[-1]["error"] or "EOF" in messages(raw)[-1]["error"]
        with pytest.raises(NotFound):
            engine.images.resolve("v")

    async def refused(bench: Bench, engine: Engine) -> None:
        raw = await body_of(await api.create_image(engine, request("POST", "/", f"fromSrc={base}/a.tar")))
        assert "not a public address" in messages(raw)[-1]["error"]

    try:
        run(tmp_path, refused)
        run(tmp_path, allowed, allow_private=True)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("fromImage=Busybox", InvalidArgument),
        ("fromImage=scratch", Forbidden),
        ("", InvalidArgument),
        ("fromSrc=-&repo=A", InvalidArgument),
    ],
)
def test_create_refusals(tmp_path: Path, query: str, kind: type[TareError]) -> None:
    async def story(bench: Bench, engine: Engine) -> None:
        with pytest.raises(kind):
            await api.create_image(engine, request("POST", "/", query, make_tar(a=b"1")))
        assert bench.leftovers() == NOTHING

    run(tmp_path, story)


def test_cancelled_at_any_moment_leaves_all_or_nothing(tmp_path: Path) -> None:
    data = make_tar(a=b"x" * 50_000, b=b"y")

    async def story(bench: Bench, engine: Engine) -> None:
        images = engine.images
        for turns in range(0, 120, 3):
            work = asyncio.create_task(images.import_(chunks(data, 20_000), reference=parse_reference("x")))
            for _ in range(turns):
                await asyncio.sleep(0)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            assert not images.layers.leases
            if images.list_images({}):
                await images.remove("x", uses=[])
            assert bench.leftovers() == NOTHING

    run(tmp_path, story)


def test_a_committed_layer_is_unpacked_once_when_something_stands_on_it(tmp_path: Path) -> None:
    async def story(bench: Bench, engine: Engine) -> None:
        images, snapshots = engine.images, engine.snapshots
        base = await images.import_(chunks(make_tar(keep=b"1")), reference=parse_reference("base"))
        key = random_id()
        snapshots.prepare(key, str(base.chain_id)[7:])
        (snapshots.upper(key) / "new").write_bytes(b"x" * 5000)
        child = await images.commit(key, base, ContainerConfig(), reference=parse_reference("child"))
        snapshots.remove(key)
        assert child.size_bytes == 5001
        assert len(bench.leftovers()["snapshots"]) == 1
        bench.close()

        engine = await bench.open()  # as after a crash: only the blob is there, and it is enough
        images, snapshots = engine.images, engine.snapshots
        child = images.resolve("child")
        assert not images.layers.is_unpacked(child.layers[1])

        async def stand() -> None:
            async with images.standing(child):
                assert (snapshots.upper(str(child.chain_id)[7:]) / "new").read_bytes() == b"x" * 5000

        await asyncio.gather(*(stand() for _ in range(8)))
        assert bench.leftovers()["ingest"] == []

        async with images.standing(child):
            await images.remove("child", uses=[])
            assert snapshots.exists(str(child.chain_id)[7:])
        assert not snapshots.exists(str(child.chain_id)[7:])
        assert len(bench.leftovers()["blobs"]) == 1

    run(tmp_path, story)


def test_a_committed_layer_whose_blob_was_changed_is_refused(tmp_path: Path) -> None:
    async def story(bench: Bench, engine: Engine) -> None:
        images, snapshots = engine.images, engine.snapshots
        base = await images.import_(chunks(make_tar(keep=b"1")))
        key = random_id()
        snapshots.prepare(key, str(base.chain_id)[7:])
        (snapshots.upper(key) / "new").write_bytes(b"x")
        child = await images.commit(key, base, ContainerConfig())
        blobs = bench.root / "blobs" / "sha256"
        (blobs / str(child.layers[1].blob)[7:]).write_bytes((blobs / str(base.layers[0].blob)[7:]).read_bytes())
        with pytest.raises(DataCorrupt):
            async with images.standing(child):
                pass
        assert not images.layers.is_unpacked(child.layers[1])
        assert bench.leftovers()["ingest"] == []

    run(tmp_path, story)
