"""The Dockerfiles of `examples/`: built from Debian's packages, run until healthy, asked, stopped, and started again on the same data.

The base is made as `quickstart` makes it, with the package mirror of this machine. Most of the time is debootstrap and dpkg.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tare.testing.daemon import Daemon
from tare.testing.mirror import NoMirror, debian_mirror
from tare.testing.stockclient import docker, out

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples"
BASE = "debian:bookworm"
pytestmark = [pytest.mark.root, pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def engine(scratch: Path) -> Iterator[Daemon]:
    """An engine of its own with the image debian:bookworm."""
    for program in ("debootstrap", "docker"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    try:
        mirror = debian_mirror("bookworm")
    except NoMirror as error:
        pytest.skip(f"no mirror with Debian 12 is reachable: {error}")
    root = scratch / "debian"
    for _ in range(3):  # a mirror may stumble
        done = subprocess.run(
            ["debootstrap", "--variant=minbase", "bookworm", root, mirror], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            break
        shutil.rmtree(root, ignore_errors=True)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr
    (root / "etc/apt/apt.conf.d/80retries").write_text('Acquire::Retries "5";\n')
    for package in (root / "var/cache/apt/archives").glob("*.deb"):
        package.unlink()
    own = Daemon(scratch / "examples", bridge=f"tx{os.getpid() % 10**6}e", source=REPOSITORY / "src")
    own.start()
    try:
        with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as tar:
            subprocess.run(
                ["docker", "-H", own.host, "import", "-", BASE], stdin=tar.stdout, check=True, stdout=subprocess.DEVNULL
            )
        assert tar.returncode == 0
        shutil.rmtree(root)
        yield own
    finally:
        own.destroy()


@pytest.fixture(autouse=True)
def no_container_stays(engine: Daemon) -> Iterator[None]:
    yield
    engine.clear()


def tare_build(engine: Daemon, name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tare.cli", "-H", engine.host, "build", "-t", name, str(EXAMPLES / name)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def wait_until_healthy(engine: Daemon, container: str) -> None:
    """By the engine's event for the container of that id; its log is the message if the container ends before."""
    filters = quote(json.dumps({"container": [container], "event": ["health_status", "die"]}))
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(120)
    connection.sock.connect(str(engine.socket))
    connection.request("GET", f"/events?since=1&filters={filters}")
    answer = connection.getresponse()
    while (action := json.loads(answer.readline())["Action"]) != "health_status: healthy":
        logs = docker(engine.host, "logs", container)
        assert action != "die", logs.stdout[-2000:] + logs.stderr[-2000:]
    connection.close()


def run(engine: Daemon, name: str, *words: str) -> None:
    wait_until_healthy(engine, out(engine.host, "run", "-d", "--name", name, *words))


def stop(engine: Daemon, name: str) -> int:
    """Stop it as a user does; its exit code. It must not need to be killed."""
    out(engine.host, "stop", "-t", "60", name)
    return int(out(engine.host, "inspect", "-f", "{{.State.ExitCode}}", name))


def address(engine: Daemon, name: str, port: int = 8080) -> str:
    return out(engine.host, "port", name, str(port)).splitlines()[0]


def fetch(where: str, path: str = "/") -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{where}{path}", timeout=60) as answer:
        return str(answer.read().decode())


def test_apache_serves_the_site_of_its_volume(engine: Daemon) -> None:
    out_of_build = docker(engine.host, "build", "-t", "apache", str(EXAMPLES / "apache"), timeout=300)
    assert out_of_build.returncode == 0, out_of_build.stdout[-2000:] + out_of_build.stderr[-2000:]
    words = ("-p", "127.0.0.1::8080", "-v", "site:/var/www/html", "-e", "SERVER_NAME=www.example.com", "apache")
    run(engine, "web", *words)
    assert "<title>www.example.com</title>" in fetch(address(engine, "web"))
    out(engine.host, "exec", "web", "sh", "-c", "echo second >second.txt")
    assert out(engine.host, "exec", "web", "id", "-un") == "www-data"
    assert '"GET / HTTP/1.1" 200' in out(engine.host, "logs", "web")
    assert stop(engine, "web") == 0
    out(engine.host, "rm", "web")
    run(engine, "web", *words)
    assert fetch(address(engine, "web"), "/second.txt") == "second\n"
    assert "a first page is made" not in out(engine.host, "logs", "web")


def test_tomcat_compiles_a_page_and_keeps_its_applications(engine: Daemon) -> None:
    tare_build(engine, "tomcat")
    words = ("-p", "127.0.0.1::8080", "-v", "apps:/srv/tomcat/webapps", "tomcat")
    run(engine, "app", *words)
    assert "Apache Tomcat/10" in fetch(address(engine, "app"))
    logs = docker(engine.host, "logs", "app")
    assert "SEVERE" not in logs.stdout + logs.stderr
    out(engine.host, "exec", "app", "sh", "-c", "mkdir webapps/own && echo '<%= 6 * 7 %>' >webapps/own/index.jsp")
    assert stop(engine, "app") == 143
    out(engine.host, "rm", "app")
    run(engine, "app", *words)
    assert fetch(address(engine, "app"), "/own/").strip() == "42"


def query(engine: Daemon, container: str, statement: str, *words: str) -> str:
    return out(engine.host, "exec", container, "mariadb", "--batch", "--skip-column-names", *words, "-e", statement)


def test_mariadb_answers_and_keeps_its_rows(engine: Daemon) -> None:
    tare_build(engine, "mariadb")
    password = 'it\'s \\ "hard" $HOME'
    run(
        engine, "db", "-v", "rows:/var/lib/mysql", "-e", "MARIADB_DATABASE=shop", "-e", "MARIADB_USER=keeper",
        "-e", f"MARIADB_PASSWORD={password}", "mariadb",
    )  # fmt: skip
    over_tcp = ("-h", "127.0.0.1", "-u", "keeper", f"--password={password}", "shop")
    query(engine, "db", "CREATE TABLE t (word TEXT) CHARSET utf8mb4; INSERT INTO t VALUES ('kept')", *over_tcp)
    refused = docker(engine.host, "exec", "db", "mariadb", "-h", "127.0.0.1", "-u", "keeper", "--password=x", "shop")
    assert "Access denied" in refused.stderr
    assert password not in docker(engine.host, "exec", "db", "sh", "-c", "tr '\\0' '\\n' </proc/1/environ").stdout
    assert stop(engine, "db") == 0
    out(engine.host, "rm", "db")
    run(engine, "db", "-v", "rows:/var/lib/mysql", "mariadb")
    assert query(engine, "db", "SELECT word FROM t", *over_tcp) == "kept"


def test_mariadb_begins_again_where_its_first_start_was_killed(engine: Daemon) -> None:
    tare_build(engine, "mariadb")
    broken = "mkdir /var/lib/mysql/mysql && touch /var/lib/mysql/.being-made /var/lib/mysql/ibdata1"
    out(engine.host, "run", "--rm", "-v", "broken:/var/lib/mysql", "mariadb", "sh", "-c", broken)
    run(engine, "db", "-v", "broken:/var/lib/mysql", "-e", "MARIADB_DATABASE=shop", "mariadb")
    assert "shop" in query(engine, "db", "SHOW DATABASES").split()


def test_mariadb_says_what_is_missing(engine: Daemon) -> None:
    tare_build(engine, "mariadb")
    done = docker(engine.host, "run", "--rm", "-e", "MARIADB_USER=keeper", "mariadb")
    assert (done.returncode, "MARIADB_USER needs MARIADB_PASSWORD" in done.stderr) == (1, True)


Compose = Callable[..., str]


@pytest.fixture
def compose(engine: Daemon, tmp_path: Path) -> Iterator[Compose]:
    """docker-compose with a copy of the examples, in which the passwords are."""
    if shutil.which("docker-compose") is None:
        pytest.skip("docker-compose is not installed")
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    for name in ("db-password", "admin-password"):
        (tmp_path / "examples/wordpress" / name).write_text(f"secret of {name}")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ, "DOCKER_HOST": engine.host, "COMPOSE_PROJECT_NAME": "ttblog", "PYTHONWARNINGS": "ignore",
        "PORT": str(port),
    }  # fmt: skip

    def run_compose(*argv: str) -> str:
        done = subprocess.run(
            ["docker-compose", *argv], cwd=tmp_path / "examples/wordpress", env=environment, capture_output=True,
            text=True, timeout=300, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout.strip()

    yield run_compose
    run_compose("down", "-v", "--remove-orphans")


def test_wordpress_and_its_database_keep_a_site(engine: Daemon, compose: Compose) -> None:
    compose("up", "-d")
    [database], [site] = compose("ps", "-q", "db").split(), compose("ps", "-q", "site").split()
    wait_until_healthy(engine, site)
    where = compose("port", "site", "8080")
    assert "<title>A new site</title>" in fetch(where)
    assert 'name="log"' in fetch(where, "/wp-login.php")
    query(engine, database, "UPDATE wp_options SET option_value='Kept' WHERE option_name='blogname'", "wordpress")
    out(engine.host, "exec", site, "sh", "-c", "echo picture >/var/lib/wordpress/wp-content/uploads/picture.txt")
    assert (stop(engine, site), stop(engine, database)) == (0, 0)
    compose("down")
    compose("up", "-d")
    [again] = compose("ps", "-q", "site").split()
    wait_until_healthy(engine, again)
    where = compose("port", "site", "8080")
    assert "<title>Kept</title>" in fetch(where)
    assert fetch(where, "/wp-content/uploads/picture.txt") == "picture\n"
    assert "the site was installed" not in out(engine.host, "logs", again)
