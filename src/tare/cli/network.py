"""`tare network ls|create|rm|connect|disconnect`."""

from __future__ import annotations

from tare.cli import exit as exits
from tare.cli import flags, human, listing, mountspec
from tare.cli.ps import FILTER, FORMAT, labels
from tare.cli.volume import natural
from tare.client.errors import ApiError
from tare.client.http import percent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tare.cli.context import Context
    from tare.cli.listing import Item


def _created(network: Item) -> str:
    at = human.parse_time(str(network.get("Created") or ""))
    if at is None:
        return ""
    seconds, nanos = at
    fraction = f".{nanos:09d}".rstrip("0") if nanos else ""
    return f"{human.civil(seconds).replace('T', ' ')}{fraction} +0000 UTC"


def _truth(value: object) -> str:
    return "true" if value else "false"


def kind(*, full: bool) -> listing.Kind:
    """The fields of a network in a listing."""
    return listing.Kind(
        "*network.networkContext",
        {
            "ID": ("NETWORK ID", lambda n: n["Id"] if full else listing.short_id(n["Id"])),
            "Name": ("NAME", lambda n: n.get("Name", "")),
            "Driver": ("DRIVER", lambda n: n.get("Driver", "")),
            "Scope": ("SCOPE", lambda n: n.get("Scope", "")),
            "IPv4": ("IPV4", lambda n: _truth(n.get("EnableIPv4"))),
            "IPv6": ("IPV6", lambda n: _truth(n.get("EnableIPv6"))),
            "Internal": ("INTERNAL", lambda n: _truth(n.get("Internal"))),
            "Labels": ("LABELS", labels),
            "CreatedAt": ("CREATED AT", _created),
        },
        methods={"Label": lambda item, name: (item.get("Labels") or {}).get(name, "")},
    )


def _ls(context: Context, options: flags.Options, _: list[str]) -> int:
    answer = context.client.get("/networks", query={"filters": listing.filters(options.many("filter"))})
    networks = [network for network in answer if isinstance(network, dict)] if isinstance(answer, list) else []
    networks.sort(key=lambda network: natural(str(network.get("Name"))))
    full, layout = options.on("no-trunc"), options.text("format")
    if options.on("quiet") and not layout:
        ids = [str(network["Id"]) for network in networks]
        listing.lines(context, ids if full else [listing.short_id(identifier) for identifier in ids])
        return exits.OK
    listing.show(context, kind(full=full), networks, columns=("ID", "Name", "Driver", "Scope"), layout=layout)
    return exits.OK


def _ipam(options: flags.Options) -> list[dict[str, Any]]:
    """--subnet, --gateway, --ip-range and --aux-address joined by subnet. Raises ValueError."""
    import ipaddress

    subnets = {ipaddress.ip_network(text, strict=False): {"Subnet": text} for text in options.many("subnet")}
    pools: dict[Any, dict[str, Any]] = dict(subnets)
    if not pools and (options.many("ip-range") or options.many("gateway")):
        raise ValueError("every ip-range or gateway must have a corresponding subnet")

    def pool(text: str, what: str) -> dict[str, Any]:
        address = ipaddress.ip_network(text, strict=False)
        for subnet, found in pools.items():
            if subnet.version == address.version and address.subnet_of(subnet):
                return found
        raise ValueError(f"no matching subnet for {what} {text}")

    for text in options.many("ip-range"):
        pool(text, "range")["IPRange"] = text
    for text in options.many("gateway"):
        pool(text, "gateway")["Gateway"] = text
    for text in options.many("aux-address"):
        name, _, address = text.partition("=")
        pool(address, "aux-address").setdefault("AuxiliaryAddresses", {})[name] = address
    return list(pools.values())


def _pairs(values: list[str]) -> dict[str, str]:
    return {key: value for key, _, value in (text.partition("=") for text in values)}


def _create(context: Context, options: flags.Options, operands: list[str]) -> int:
    from tare.cli.createspec import labels as read_labels

    try:
        pools = _ipam(options)
    except ValueError as error:
        raise exits.Exit(exits.FAILED, str(error)) from None
    ipam: dict[str, Any] = {"Driver": options.text("ipam-driver"), "Options": _pairs(options.many("ipam-opt"))}
    body: dict[str, Any] = {
        "Name": operands[0],
        "Driver": options.text("driver"),
        "Scope": options.text("scope"),
        "IPAM": {**ipam, "Config": pools},
        "Internal": options.on("internal"),
        "Attachable": options.on("attachable"),
        "Ingress": options.on("ingress"),
        "ConfigOnly": options.on("config-only"),
        "Options": _pairs(options.many("opt")),
        "Labels": read_labels([], options.many("label")),
    }
    if options.text("config-from"):
        body["ConfigFrom"] = {"Network": options.text("config-from")}
    for flag, key in (("ipv4", "EnableIPv4"), ("ipv6", "EnableIPv6")):
        if options.changed(flag):
            body[key] = options.on(flag)
    answer = context.client.post("/networks/create", body=body)
    assert isinstance(answer, dict)
    if answer.get("Warning"):
        context.error(f"WARNING: {answer['Warning']}")
    context.line(str(answer["Id"]))
    return exits.OK


def _rm(context: Context, options: flags.Options, operands: list[str]) -> int:
    failed = False
    for name in operands:
        try:
            context.client.call("DELETE", f"/networks/{percent(name)}")
        except ApiError as error:
            if options.on("force") and error.status == 404:
                continue
            context.error(str(error))
            failed = True
            continue
        context.line(name)
    if failed:
        raise exits.Exit(exits.FAILED, "exit status 1")
    return exits.OK


def _connect(context: Context, options: flags.Options, operands: list[str]) -> int:
    from tare.cli.createspec import endpoint

    wanted = mountspec.network(operands[0] if "=" not in operands[0] else "x")
    wanted["Aliases"] = options.many("alias")
    wanted["DriverOpts"] = _pairs(options.many("driver-opt"))
    wanted["IPv4"], wanted["IPv6"] = options.text("ip"), options.text("ip6")
    wanted["LinkLocal"] = options.many("link-local-ip")
    wanted["Links"] = options.many("link")
    wanted["Priority"] = options.number("gw-priority")
    body = {"Container": operands[1], "EndpointConfig": endpoint(wanted)}
    context.client.post(f"/networks/{percent(operands[0])}/connect", body=body)
    return exits.OK


def _disconnect(context: Context, options: flags.Options, operands: list[str]) -> int:
    body = {"Container": operands[1], "Force": options.on("force")}
    context.client.post(f"/networks/{percent(operands[0])}/disconnect", body=body)
    return exits.OK


LS = flags.Command(
    _ls,
    "List networks",
    flags=(
        FILTER,
        FORMAT,
        flags.Flag("no-trunc", "", flags.BOOL, "Do not shorten ids"),
        flags.Flag("quiet", "q", flags.BOOL, "Print ids and nothing else"),
    ),
)
CREATE = flags.Command(
    _create,
    "Make a network",
    operands="NETWORK",
    least=1,
    most=1,
    flags=(
        flags.Flag("attachable", "", flags.BOOL, "Let containers be plugged in by hand"),
        flags.Flag("aux-address", "", flags.MAP, "Keep an address free, name=address"),
        flags.Flag("config-from", "", flags.STRING, "Take the settings of this network"),
        flags.Flag("config-only", "", flags.BOOL, "Only keep settings for others"),
        flags.Flag("driver", "d", flags.STRING, "Network driver", default="bridge"),
        flags.Flag("gateway", "", flags.STRINGS, "Address of the gateway of a subnet"),
        flags.Flag("ingress", "", flags.BOOL, "Swarm's routing mesh", hidden=True),
        flags.Flag("internal", "", flags.BOOL, "No way to the outside"),
        flags.Flag("ip-range", "", flags.STRINGS, "Give addresses from this part of a subnet"),
        flags.Flag("ipam-driver", "", flags.STRING, "Who gives addresses", default="default"),
        flags.Flag("ipam-opt", "", flags.MAP, "An option for that driver, key=value"),
        flags.Flag("ipv4", "", flags.BOOL, "Give IPv4 addresses", default=True),
        flags.Flag("ipv6", "", flags.BOOL, "Give IPv6 addresses"),
        flags.Flag("label", "", flags.LIST, "A label, name=value"),
        flags.Flag("opt", "o", flags.MAP, "An option of the driver, key=value"),
        flags.Flag("scope", "", flags.STRING, "Scope of the network"),
        flags.Flag("subnet", "", flags.STRINGS, "Subnet, as 10.5.0.0/16"),
    ),
)
RM = flags.Command(
    _rm,
    "Remove networks",
    operands="NETWORK [NETWORK...]",
    least=1,
    most=None,
    flags=(flags.Flag("force", "f", flags.BOOL, "Do not mind networks that are not there"),),
)
CONNECT = flags.Command(
    _connect,
    "Plug a container into a network",
    operands="NETWORK CONTAINER",
    least=2,
    most=2,
    flags=(
        flags.Flag("alias", "", flags.STRINGS, "A further name on the network"),
        flags.Flag("driver-opt", "", flags.STRINGS, "An option of the driver, key=value"),
        flags.Flag("gw-priority", "", flags.INT, "The network with the highest one has the default gateway"),
        flags.Flag("ip", "", flags.STRING, "IPv4 address"),
        flags.Flag("ip6", "", flags.STRING, "IPv6 address"),
        flags.Flag("link", "", flags.LIST, "Make another container known, NAME[:ALIAS]"),
        flags.Flag("link-local-ip", "", flags.STRINGS, "A link-local address"),
    ),
)
DISCONNECT = flags.Command(
    _disconnect,
    "Unplug a container from a network",
    operands="NETWORK CONTAINER",
    least=2,
    most=2,
    flags=(flags.Flag("force", "f", flags.BOOL, "Even when the container does not answer"),),
)
