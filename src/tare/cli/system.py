"""`tare version`, `tare info`, `tare system dial-stdio`."""

from __future__ import annotations

import sys

from tare.cli import exit as exits
from tare.cli import flags, human
from tare.client.errors import ApiError, ConnectionFailed
from tare.client.http import VERSION as API_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tare.cli.context import Context

_FORMAT = flags.Flag("format", "f", flags.STRING, "Print 'json' or a TEMPLATE in the syntax of Go instead")


def _templated(context: Context, layout: str, document: dict[str, Any], *, name: str, go_type: str) -> None:
    """Print `document` through --format; Docker's error goes to stderr after an empty line."""
    from tare.cli.template import Missing, Template, TemplateError

    def missing(parent: str, field: str) -> object:
        section = document.get(parent)
        # Go's name of the field differs from the one in the JSON.
        if field == "APIVersion" and isinstance(section, dict):
            return section.get("ApiVersion")
        if parent:
            return None
        raise Missing(f"can't evaluate field {field} in type {go_type}")

    try:
        template = Template("{{json .}}" if layout == "json" else layout, name=name)
    except TemplateError as error:
        raise exits.Exit(exits.BAD_TEMPLATE, f"template parsing error: {error}") from None
    try:
        context.line(template.execute(document, missing=missing))
    except TemplateError as error:
        context.line("")
        raise exits.Exit(exits.FAILED, str(error)) from None


def own_version(api: str) -> dict[str, Any]:
    """What this program says about itself; keys as Docker's client section has them."""
    import os

    from tare import __version__

    machine = os.uname().machine
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
    python = sys.version.partition(" ")[0]
    return {
        "Version": __version__,
        "ApiVersion": api,
        "DefaultAPIVersion": API_VERSION,
        "GitCommit": "",
        "GoVersion": "",
        "PythonVersion": python,
        "Os": "linux",
        "Arch": architecture,
        "BuildTime": "",
        "Context": "default",
    }


def _version(context: Context, options: flags.Options, _: list[str]) -> int:
    server: dict[str, Any] | None = None
    failure: Exception | None = None
    try:
        api = context.client.negotiate()
        answer = context.client.get("/version")
        server = answer if isinstance(answer, dict) else None
    except (ApiError, ConnectionFailed) as error:
        failure, api = error, API_VERSION
    client = own_version(api)
    if layout := options.text("format"):
        if server is not None:
            server = _with_components(server)
        document = {"Client": client, "Server": server}
        _templated(context, layout, document, name="version", go_type="system.versionInfo")
    else:
        _print_version(context, client, server)
    if failure is not None:
        raise failure
    return exits.OK


def _with_components(server: dict[str, Any]) -> dict[str, Any]:
    """The engine's answer with the parts Docker's client guarantees, Platform and Components first."""
    if not server.get("Components"):
        names = ("ApiVersion", "MinAPIVersion", "GitCommit", "GoVersion", "Os", "Arch", "BuildTime", "Experimental")
        details = {name: str(server[name]) for name in names if name in server}
        server["Components"] = [{"Name": "Engine", "Version": server.get("Version", ""), "Details": details}]
    first = {name: server[name] for name in ("Platform", "Components") if name in server}
    return first | server


def _print_version(context: Context, client: dict[str, Any], server: dict[str, Any] | None) -> None:
    api = client["ApiVersion"]
    if api != client["DefaultAPIVersion"]:
        api = f"{api} (downgraded from {client['DefaultAPIVersion']})"
    rows = [
        ("Version", client["Version"]),
        ("API version", api),
        ("Python version", client["PythonVersion"]),
        ("OS/Arch", f"{client['Os']}/{client['Arch']}"),
        ("Context", client["Context"]),
    ]
    lines = ["Client:", *(f" {name + ':':<18} {value}" for name, value in rows)]
    if server is not None:
        lines += ["", *_server_lines(_with_components(server))]
    context.line("\n".join(lines))


def _server_lines(server: dict[str, Any]) -> list[str]:
    platform = (server.get("Platform") or {}).get("Name", "")
    lines = [f"Server:{f' {platform}' if platform else ''}"]
    for component in server["Components"]:
        details = dict(component.get("Details") or {})
        lines += [f" {component['Name']}:", f"  {'Version:':<17} {component.get('Version', '')}"]
        if component["Name"] == "Engine":
            built = _reformatted(str(details.get("BuildTime", "")))
            known = [
                (
                    "API version",
                    f"{details.get('ApiVersion', '')} (minimum version {details.get('MinAPIVersion', '')})",
                ),
                ("Go version", details.get("GoVersion", "")),
                ("Git commit", details.get("GitCommit", "")),
                ("Built", built),
                ("OS/Arch", f"{details.get('Os', '')}/{details.get('Arch', '')}"),
                ("Experimental", details.get("Experimental", "false")),
            ]
        else:
            known = [(name, details[name]) for name in sorted(details)]
        lines += [f"  {name + ':':<17} {value}" for name, value in known]
    return lines


def _reformatted(built: str) -> str:
    """A build time in RFC 3339 as C's ctime; anything else as it is."""
    at = human.parse_time(built)
    if at is None:
        return built
    import time

    return time.strftime("%a %b %e %H:%M:%S %Y", time.gmtime(at[0]))


VERSION = flags.Command(_version, "Show the versions of this program and of the engine", flags=(_FORMAT,))


def _info(context: Context, options: flags.Options, _: list[str]) -> int:
    from tare import __version__

    client = {"Debug": False, "Version": __version__, "Context": "default", "Plugins": [], "Warnings": None}
    failure: Exception | None = None
    info: dict[str, Any] = {}
    try:
        answer = context.client.get("/info")
        info = answer if isinstance(answer, dict) else {}
    except (ApiError, ConnectionFailed) as error:
        failure = error
    if layout := options.text("format"):
        document: dict[str, Any] = {**info, "ClientInfo": client}
        if failure is not None:
            document["ServerErrors"] = [str(failure)]
        _templated(context, layout, document, name="", go_type="system.dockerInfo")
        if failure is not None:
            raise exits.Exit(exits.FAILED, f"errors pretty printing info\n{failure}")
        return exits.OK
    context.line(f"Client:\n Version:    {__version__}\n Context:    default\n Debug Mode: false\n\nServer:")
    if failure is not None:
        context.error(f"{failure}\nerrors pretty printing info")
        return exits.FAILED
    context.line("\n".join(info_lines(info)))
    context.line("")
    for warning in info.get("Warnings") or []:
        context.error(str(warning))
    return exits.OK


def info_lines(info: dict[str, Any]) -> list[str]:
    """The engine's description as Docker lays it out, one string a line."""
    lines: list[str] = []

    def add(label: str, value: object, depth: int = 1) -> None:
        lines.append(f"{' ' * depth}{label}: {value}")

    def present(label: str, key: str) -> None:
        if info.get(key):
            add(label, info[key])

    def truth(value: object) -> str:
        return "true" if value else "false"

    add("Containers", info.get("Containers", 0))
    for key in ("Running", "Paused", "Stopped"):
        add(key, info.get(f"Containers{key}", 0), 2)
    add("Images", info.get("Images", 0))
    present("Server Version", "ServerVersion")
    present("Storage Driver", "Driver")
    for name, value in info.get("DriverStatus") or []:
        add(name, value, 2)
    present("Logging Driver", "LoggingDriver")
    present("Cgroup Driver", "CgroupDriver")
    present("Cgroup Version", "CgroupVersion")
    lines.append(" Plugins:")
    plugins = info.get("Plugins") or {}
    for label, key in (
        ("Volume", "Volume"),
        ("Network", "Network"),
        ("Authorization", "Authorization"),
        ("Log", "Log"),
    ):
        if plugins.get(key) or key in ("Volume", "Network"):
            add(label, " ".join(plugins.get(key) or []), 2)
    add("Swarm", (info.get("Swarm") or {}).get("LocalNodeState", "inactive"))
    if info.get("Runtimes"):
        add("Runtimes", " ".join(sorted(info["Runtimes"])))
        add("Default Runtime", info.get("DefaultRuntime", ""))
    if info.get("OSType") == "linux":
        add("Init Binary", info.get("InitBinary", ""))
        for label, key in (("containerd", "ContainerdCommit"), ("runc", "RuncCommit"), ("init", "InitCommit")):
            add(f"{label} version", (info.get(key) or {}).get("ID", ""))
        lines.extend(_security(info.get("SecurityOptions") or []))
    for label, key in (("Kernel Version", "KernelVersion"), ("Operating System", "OperatingSystem")):
        present(label, key)
    present("OSType", "OSType")
    present("Architecture", "Architecture")
    add("CPUs", info.get("NCPU", 0))
    add("Total Memory", human.binary_size(info.get("MemTotal", 0)))
    for label, key in (("Name", "Name"), ("ID", "ID"), ("Docker Root Dir", "DockerRootDir")):
        present(label, key)
    add("Debug Mode", truth(info.get("Debug")))
    for label, key in (("HTTP Proxy", "HttpProxy"), ("HTTPS Proxy", "HttpsProxy"), ("No Proxy", "NoProxy")):
        present(label, key)
    if info.get("Labels"):
        lines.append(" Labels:")
        lines.extend(f"  {label}" for label in info["Labels"])
    add("Experimental", truth(info.get("ExperimentalBuild")))
    lines.extend(_registries(info.get("RegistryConfig") or {}))
    add("Live Restore Enabled", truth(info.get("LiveRestoreEnabled")))
    present("Product License", "ProductLicense")
    if pools := info.get("DefaultAddressPools"):
        lines.append(" Default Address Pools:")
        lines.extend(f"   Base: {pool['Base']}, Size: {pool['Size']}" for pool in pools)
    if firewall := info.get("FirewallBackend"):
        add("Firewall Backend", firewall.get("Driver", ""))
        for name, value in firewall.get("Info") or []:
            add(name, value, 2)
    return lines


def _security(options: list[str]) -> list[str]:
    if not options:
        return []
    lines = [" Security Options:"]
    for option in options:
        pairs = [pair.partition("=") for pair in option.split(",")]
        for key, _, value in pairs:
            if key == "name":
                lines.append(f"  {value}")
            else:
                lines.append(f"   {key.capitalize()}: {value}")
    return lines


def _registries(config: dict[str, Any]) -> list[str]:
    lines = []
    indexes = config.get("IndexConfigs") or {}
    insecure = [name for name in sorted(indexes) if not indexes[name].get("Secure")]
    insecure += config.get("InsecureRegistryCIDRs") or []
    if insecure:
        lines += [" Insecure Registries:", *(f"  {name}" for name in insecure)]
    if config.get("Mirrors"):
        lines += [" Registry Mirrors:", *(f"  {name}" for name in config["Mirrors"])]
    return lines


INFO = flags.Command(_info, "Describe the engine and the machine it runs on", flags=(_FORMAT,))


def _dial(context: Context, _: flags.Options, __: list[str]) -> int:
    from tare.cli.streams import relay_stdio
    from tare.client.http import connect

    connection = connect(context.client.host)
    try:
        relay_stdio(connection)
    finally:
        connection.close()
    return exits.OK


DIAL_STDIO = flags.Command(_dial, "Pass standard input and output on to the engine's socket")
