"""The daemon's options: dockerd's names, one source for each, nothing ignored in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tare.base.errors import InvalidArgument
from tare.daemon.options import Options, load, parser, resolve
from tare.wire.config import Ulimit


@pytest.fixture
def configured(tmp_path: Path) -> Any:
    """`configured({...})`: the arguments that name a configuration file with this content."""

    def write(content: object) -> list[str]:
        path = tmp_path / "daemon.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return ["--config-file", str(path)]

    return write


def test_without_options_it_is_as_documented() -> None:
    found = resolve({})
    assert found == Options(pidfile=Path("/run/tare/tare.pid"))
    assert found.hosts == ("unix:///run/tare/tare.sock",)
    assert found.live_restore


def test_the_command_line(configured: Any) -> None:
    found = load(
        [
            *configured({}), "-H", "unix:///a", "--host", "unix:///b", "--data-root", "/d", "--exec-root", "/e", "-b", "br9",
            "--bip", "10.9.0.1/24", "--default-runtime", "runc", "--add-runtime", "mine=/opt/mine --flag", "--dns", "9.9.9.9",
            "--dns-search", "x.example", "--dns-opt", "ndots:1", "--label", "a=1", "-l", "warn", "-G", "staff", "--mtu", "9000",
            "--iptables=false", "--icc", "0", "--init", "--no-new-privileges=true", "--live-restore", "False",
            "--default-ulimit", "nofile=1:2", "--shutdown-timeout", "3",
        ]
    )  # fmt: skip
    assert found == Options(
        hosts=("unix:///a", "unix:///b"),
        data_root=Path("/d"),
        exec_root=Path("/e"),
        pidfile=Path("/e/tare.pid"),
        bridge="br9",
        bip="10.9.0.1/24",
        default_runtime="runc",
        runtimes={"mine": ("/opt/mine", "--flag")},
        dns=("9.9.9.9",),
        dns_search=("x.example",),
        dns_options=("ndots:1",),
        labels=("a=1",),
        log_level="warn",
        group="staff",
        iptables=False,
        icc=False,
        mtu=9000,
        default_ulimits=(Ulimit(Name="nofile", Soft=1, Hard=2),),
        init=True,
        live_restore=False,
        no_new_privileges=True,
        shutdown_timeout=3,
    )


def test_paths_become_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve({"data-root": "d", "pidfile": "p"}).data_root == tmp_path / "d"


def test_debug_is_a_log_level(configured: Any) -> None:
    assert load([*configured({}), "-D"]).log_level == "debug"
    assert load([*configured({"log-level": "debug"})]).debug


def test_the_file_takes_the_same_names_and_dockers_plurals(configured: Any) -> None:
    found = load(
        configured(
            {
                "hosts": ["unix:///f"],
                "labels": ["a=1"],
                "dns-opts": ["ndots:1"],
                "default-ulimits": {"nofile": {"Name": "nofile", "Hard": 9, "Soft": 8}},
                "data-root": "/f",
                "icc": False,
                "mtu": 1400,
                "runtimes": {"mine": {"path": "/opt/mine", "runtimeArgs": ["--a", "--b"]}},
            }
        )
    )
    assert (found.hosts, found.labels, found.dns_options) == (("unix:///f",), ("a=1",), ("ndots:1",))
    assert (found.data_root, found.icc, found.mtu) == (Path("/f"), False, 1400)
    assert found.runtimes == {"mine": ("/opt/mine", "--a", "--b")}
    assert found.default_ulimits == (Ulimit(Name="nofile", Soft=8, Hard=9),)


def test_an_empty_file_says_nothing(configured: Any) -> None:
    assert load(configured("")) == resolve({})


def test_an_option_in_both_places_is_refused(configured: Any) -> None:
    with pytest.raises(InvalidArgument, match="both as a flag and in the configuration file: host, label"):
        load([*configured({"hosts": ["unix:///f"], "labels": ["x=y"]}), "-H", "unix:///a", "--label", "a=b"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "unable to read the configuration file"),
        ("[]", "expected an object"),
        ({"no-such-thing": 1}, "don't match any configuration option: no-such-thing"),
        ({"storage-driver": "overlay2"}, "don't match any configuration option: storage-driver"),
    ],
)
def test_a_file_that_cannot_be_used(configured: Any, content: object, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        load(configured(content))


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="no such file"):
        load(["--config-file", str(tmp_path / "nothing")])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"host": ["tcp://0.0.0.0:2375"]}, "everybody who reaches this port would be root"),
        ({"host": ["npipe://x"]}, "invalid bind address"),
        ({"host": ["unix://relative"]}, "invalid bind address"),
        ({"host": ["/run/x"]}, "invalid bind address"),
        ({"log-level": "loud"}, "invalid logging level: loud"),
        ({"bip": "10.0.0.300/24"}, "invalid value for --bip"),
        ({"add-runtime": ["mine"]}, "invalid value .* for --add-runtime"),
        ({"add-runtime": ["=x"]}, "invalid value .* for --add-runtime"),
        ({"add-runtime": ["mine= "]}, "invalid value .* for --add-runtime"),
        ({"dns": ["name.example"]}, "is not an ip address"),
        ({"iptables": "perhaps"}, "expected true or false"),
        ({"registry-mirror": ["mirror.example"]}, "invalid mirror"),
        ({"insecure-registry": ["http://reg.example"]}, "should not contain '://'"),
        ({"publish-by": "magic"}, "invalid value for --publish-by: magic"),
        ({"default-address-pool": ["10.0.0.0/8"]}, "invalid default address pool: 10.0.0.0/8"),
        ({"default-address-pool": ["base=10.0.0.0/8,size=31"]}, "the size is a prefix length from 8 to 30"),
        ({"max-concurrent-downloads": 0}, "invalid max concurrent downloads: 0"),
    ],
)
def test_values_that_cannot_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        resolve(values)


def test_every_option_of_the_command_line_reaches_a_field_or_a_refusal() -> None:
    """None is silently ignored: each is a field of Options under its own or a longer name, or is refused."""
    renamed = {
        "host": "hosts", "dns-opt": "dns_options", "label": "labels",
        "default-ulimit": "default_ulimits", "add-runtime": "runtimes", "registry-mirror": "registry_mirrors",
        "insecure-registry": "insecure_registries", "trusted-realm": "trusted_realms", "certs-dir": "certificates",
        "log-opt": "log_options", "cdi-spec-dir": "cdi_directories",
        "default-address-pool": "address_pools",
            "default-network-opt": "default_network_options", "tls": "exposure", "tlsverify": "exposure", "tlscacert": "exposure",
        "tlscert": "exposure", "tlskey": "exposure", "insecure-tcp": "exposure", "allowed-host": "exposure",
    }  # fmt: skip
    fields = set(Options.__struct_fields__)
    for action in parser()._actions:
        name = action.option_strings[-1].removeprefix("--")
        if name in ("help", "config-file"):
            continue
        assert renamed.get(name, name.replace("-", "_")) in fields, name


def test_registries(configured: Any) -> None:
    found = load(
        [
            *configured(
                {
                    "registry-mirrors": ["https://m.example", "quay.example=https://q.example"],
                    "max-download-attempts": 2,
                }
            ),
            *("--insecure-registry", "10.0.0.0/8", "--insecure-registry", "Old.example:5000"),
        ]
    )
    assert found.registry_mirrors == (("docker.io", "https://m.example"), ("quay.example", "https://q.example"))
    assert found.insecure_registries == ("10.0.0.0/8", "old.example:5000")
    assert (found.max_concurrent_downloads, found.max_concurrent_uploads, found.max_download_attempts) == (3, 5, 2)


def test_abbreviations_are_not_guessed(configured: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load([*configured({}), "--data", "/x"])
    assert "unrecognized arguments" in capsys.readouterr().err


def test_options_of_ipv6() -> None:
    found = load(["--ipv6", "--fixed-cidr-v6", "fd00:1::/64", "--forward-accept=false"])
    assert (found.ipv6, found.fixed_cidr_v6, found.forward_accept) == (True, "fd00:1::/64", False)
    with pytest.raises(InvalidArgument, match="invalid value for --fixed-cidr-v6"):
        load(["--fixed-cidr-v6", "10.0.0.0/8"])


def test_log_options(configured: Any) -> None:
    found = load([*configured({"log-driver": "syslog", "log-opts": {"tag": "{{.Name}}"}}), "--journal-socket", "/j"])
    assert (found.log_driver, found.log_options, found.journal_socket) == ("syslog", {"tag": "{{.Name}}"}, Path("/j"))
    with pytest.raises(InvalidArgument, match="unknown log opt 'x' for log driver local"):
        load([*configured({}), "--log-driver", "local", "--log-opt", "x=1"])


def test_automated_builds_run_one_by_one_unless_more_are_allowed() -> None:
    assert load([]).max_concurrent_autobuilds == 1
    assert load(["--max-concurrent-autobuilds", "3"]).max_concurrent_autobuilds == 3
    with pytest.raises(InvalidArgument, match="max concurrent autobuilds"):
        load(["--max-concurrent-autobuilds", "0"])


def test_the_build_cache_can_have_a_bound() -> None:
    assert load([]).builder_cache_size == 0
    assert load(["--builder-cache-size", "2k"]).builder_cache_size == 2048
    for wrong in ("0", "much"):
        with pytest.raises(InvalidArgument, match="builder-cache-size"):
            load(["--builder-cache-size", wrong])


def test_proxies_by_flag_and_by_file(configured: Any) -> None:
    found = load(configured({"proxies": {"http-proxy": "http://p:3128", "no-proxy": "a.example,.b.example"}}))
    assert (found.http_proxy, found.https_proxy, found.no_proxy) == ("http://p:3128", "", "a.example,.b.example")
    assert load(["--https-proxy", "http://me:secret@p.example:8080"]).https_proxy == "http://me:secret@p.example:8080"
    with pytest.raises(InvalidArgument, match=r"configuration option: proxies\.ftp-proxy"):
        load(configured({"proxies": {"ftp-proxy": "http://p"}}))
    with pytest.raises(InvalidArgument, match="both as a flag and in the configuration file: http-proxy"):
        load([*configured({"proxies": {"http-proxy": "http://p"}}), "--http-proxy", "http://q"])
    for wrong in ("socks5://me:secret@p", "http://me:secret@", "http://me:secret@p:x"):
        with pytest.raises(InvalidArgument, match="invalid value for --http-proxy") as caught:
            load(["--http-proxy", wrong])
        assert "secret" not in f"{caught.value}{caught.value.hint}"


def test_patience_with_registries() -> None:
    assert (load([]).registry_timeout, load(["--registry-timeout", "5"]).registry_timeout) == (60, 5)
    with pytest.raises(InvalidArgument, match="invalid registry timeout: 0"):
        load(["--registry-timeout", "0"])


def test_options_of_networks_by_driver(configured: Any) -> None:
    mode = "com.docker.network.bridge.gateway_mode_ipv4"
    given = ["--default-network-opt", f"bridge={mode}=routed", "--default-network-opt", "bridge=a=b=c"]
    wanted = {"bridge": {mode: "routed", "a": "b=c"}}
    assert load([*configured({}), *given, "--allow-direct-routing"]).default_network_options == wanted
    found = load(configured({"default-network-opts": {**wanted, "macvlan": {}}, "allow-direct-routing": True}))
    assert (found.default_network_options, found.allow_direct_routing) == (wanted, True)
    with pytest.raises(InvalidArgument, match='"bridge=a" for map option, should be root-key=key=value'):
        resolve({"default-network-opt": ["bridge=a"]})
    with pytest.raises(InvalidArgument, match="both as a flag and in the configuration file: default-network-opt"):
        load([*configured({"default-network-opts": wanted}), *given])
    for wrong in ({"bridge": "a"}, {"bridge": {"a": 1}}):
        with pytest.raises(InvalidArgument, match="invalid default-network-opts for bridge: expected an object of str"):
            load(configured({"default-network-opts": wrong}))


def test_the_hosts_forward_policy_is_nobodys_but_the_hosts(configured: Any) -> None:
    assert load([*configured({}), "--ip-forward-no-drop"]) == load(configured({"ip-forward-no-drop": True}))
    with pytest.raises(InvalidArgument, match="--ip-forward-no-drop=false cannot be"):
        load(configured({"ip-forward-no-drop": False}))
