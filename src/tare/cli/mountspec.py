"""`--mount`, `--device`, `--gpus`, `--network` and `-p` as Docker's users write them, to what the wire takes.

Pure, but for the working directory in relative paths. Every function raises ValueError with the sentence docker prints.
Source: docker run manual; the bodies the stock docker 28.2 sends for the same words (tests/compat).
"""

from __future__ import annotations

import os

from tare.base.sizes import parse_bytes
from tare.cli.csvline import fields
from tare.cli.flags import _FALSE, _TRUE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    Object: TypeAlias = "dict[str, Any]"

_PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_NO_VALUE = ("readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-create-src")


def _truth(key: str, value: str) -> bool:
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise ValueError(f"invalid value for {key}: {value}")


def absolute(path: str) -> str:
    """A source path as the engine takes it: `.` and `..` are relative to where the user stands."""
    if path in (".", "..") or path.startswith(("./", "../")):
        return os.path.abspath(path)
    return path


def mount(text: str) -> Object:
    """One --mount."""
    found: Object = {"Type": "volume"}
    for field in fields(text):
        key, equals, value = field.partition("=")
        key = key.lower()
        if not equals:
            if key not in _NO_VALUE:
                raise ValueError(f"invalid field '{field}' must be a key=value pair")
            value = "true"
        _mount_field(found, key, value)
    return _checked_mount(found)


def _mount_field(found: Object, key: str, value: str) -> None:
    bind = found.setdefault("BindOptions", {}) if key.startswith("bind-") else {}
    volume = found.setdefault("VolumeOptions", {"DriverConfig": {}}) if key.startswith("volume-") else {}
    tmpfs = found.setdefault("TmpfsOptions", {}) if key.startswith("tmpfs-") else {}
    if key == "type":
        found["Type"] = value.lower()
    elif key in ("source", "src"):
        found["Source"] = absolute(value)
    elif key in ("target", "dst", "destination"):
        found["Target"] = value
    elif key in ("readonly", "ro"):
        found["ReadOnly"] = _truth(key, value)
    elif key == "consistency":
        found["Consistency"] = value.lower()
    elif key == "bind-propagation":
        bind["Propagation"] = value.lower()
    elif key == "bind-nonrecursive":
        bind["NonRecursive"] = _truth(key, value)
    elif key == "bind-create-src":
        bind["CreateMountpoint"] = _truth(key, value)
    elif key == "bind-recursive":
        _bind_recursive(bind, value)
    elif key == "volume-subpath":
        volume["Subpath"] = value
    elif key == "volume-nocopy":
        volume["NoCopy"] = _truth("volume-nocopy", value)
    elif key == "volume-label":
        name, _, label = value.partition("=")
        volume.setdefault("Labels", {})[name] = label
    elif key == "volume-driver":
        volume.setdefault("DriverConfig", {})["Name"] = value
    elif key == "volume-opt":
        name, _, option = value.partition("=")
        volume.setdefault("DriverConfig", {}).setdefault("Options", {})[name] = option
    elif key == "tmpfs-size":
        try:
            tmpfs["SizeBytes"] = parse_bytes(value)
        except ValueError:
            raise ValueError(f"invalid value for {key}: {value}") from None
    elif key == "tmpfs-mode":
        try:
            tmpfs["Mode"] = int(value, 8)
        except ValueError:
            raise ValueError(f"invalid value for {key}: {value}") from None
    elif key == "image-subpath":
        found.setdefault("ImageOptions", {})["Subpath"] = value
    else:
        raise ValueError(f"unexpected key '{key}' in '{key}={value}'")


def _bind_recursive(bind: Object, value: str) -> None:
    if value == "enabled":
        return
    if value == "disabled":
        bind["NonRecursive"] = True
    elif value == "writable":
        bind["ReadOnlyNonRecursive"] = True
    elif value == "readonly":
        bind["ReadOnlyForceRecursive"] = True
    else:
        raise ValueError(
            f'invalid value for bind-recursive: {value} (must be "enabled", "disabled", "writable", or "readonly")'
        )


def _checked_mount(found: Object) -> Object:
    kind = found["Type"]
    if not kind:
        raise ValueError("type is required")
    if kind == "volume" and not found.get("Source") and not found.get("Target"):
        raise ValueError("target is required")
    if not found.get("Target"):
        raise ValueError("target is required")
    for options, wanted in (
        ("VolumeOptions", "volume"),
        ("ImageOptions", "image"),
        ("BindOptions", "bind"),
        ("TmpfsOptions", "tmpfs"),
    ):
        if options in found and kind != wanted:
            raise ValueError(f"cannot mix '{wanted}-*' options with mount type '{kind}'")
    bind = found.get("BindOptions", {})
    if (bind.get("ReadOnlyNonRecursive") or bind.get("ReadOnlyForceRecursive")) and not found.get("ReadOnly"):
        mode = "writable" if bind.get("ReadOnlyNonRecursive") else "readonly"
        raise ValueError(f"option 'bind-recursive={mode}' requires 'readonly' to be specified in conjunction")
    if bind.get("ReadOnlyForceRecursive") and bind.get("Propagation") != "rprivate":
        raise ValueError(
            "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction"
        )
    return found


def network(text: str) -> Object:
    """One --network: a name, or `name=…,alias=…,ip=…,driver-opt=key=value`."""
    found: Object = {
        "Target": "",
        "Aliases": [],
        "DriverOpts": {},
        "IPv4": "",
        "IPv6": "",
        "LinkLocal": [],
        "Mac": "",
        "Priority": 0,
    }
    if "=" not in text:
        found["Target"] = text
        return found
    for field in fields(text):
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        value = value.strip()
        if not equals or not key:
            raise ValueError(f"invalid field {field}")
        if key == "name":
            found["Target"] = value
        elif key == "alias":
            found["Aliases"].append(value)
        elif key == "ip":
            found["IPv4"] = value
        elif key == "ip6":
            found["IPv6"] = value
        elif key == "mac-address":
            found["Mac"] = value
        elif key == "link-local-ip":
            found["LinkLocal"].append(value)
        elif key == "driver-opt":
            name, separator, option = value.partition("=")
            if not separator:
                raise ValueError("invalid key value pair format in driver options")
            found["DriverOpts"][name.strip().lower()] = option.strip().lower()
        elif key == "gw-priority":
            try:
                found["Priority"] = int(value)
            except ValueError:
                raise ValueError(f"invalid gw-priority ({value}): invalid syntax") from None
        else:
            raise ValueError(f"invalid field key {key}")
    if not found["Target"]:
        raise ValueError("network name/id is not specified")
    return found


def gpus(text: str) -> Object:
    """One --gpus: `all`, a count, or `device=0,capabilities=…`."""
    found: Object = {"Driver": "", "Count": 0, "DeviceIDs": None, "Capabilities": None, "Options": {}}
    seen: set[str] = set()
    for field in fields(text):
        key, equals, value = field.partition("=")
        if key in seen:
            raise ValueError(f"gpu request key '{key}' can be specified only once")
        seen.add(key)
        if not equals:
            seen.add("count")
            found["Count"] = _gpu_count(key)
        elif key == "driver":
            found["Driver"] = value
        elif key == "count":
            found["Count"] = _gpu_count(value)
        elif key == "device":
            found["DeviceIDs"] = value.split(",")
        elif key == "capabilities":
            found["Capabilities"] = [[*value.split(","), "gpu"]]
        elif key == "options":
            pairs = (option.partition("=") for option in fields(value))
            found["Options"] = {name: option for name, _, option in pairs}
        else:
            raise ValueError(f"unexpected key '{key}' in '{field}'")
    if "count" not in seen and found["DeviceIDs"] is None:
        found["Count"] = 1
    if found["Capabilities"] is None:
        found["Capabilities"] = [["gpu"]]
    return found


def _gpu_count(text: str) -> int:
    if text == "all":
        return -1
    try:
        return int(text)
    except ValueError:
        raise ValueError(f'invalid count ({text}): value must be either "all" or an integer: invalid syntax') from None


def device(text: str) -> Object:
    """One --device: `/dev/a[:/dev/b][:rwm]`."""
    parts = text.split(":")
    source, target, permissions = parts[0], "", "rwm"
    if len(parts) > 3 or not parts[0]:
        raise ValueError(f"invalid device specification: {text}")
    if len(parts) == 3:
        permissions = parts[2]
    if len(parts) >= 2:
        if _is_mode(parts[1]):
            permissions = parts[1]
        else:
            target = parts[1]
    return {"PathOnHost": source, "PathInContainer": target or source, "CgroupPermissions": permissions}


def _is_mode(text: str) -> bool:
    return bool(text) and len(set(text)) == len(text) and set(text) <= set("rwm")


def is_cdi(text: str) -> bool:
    """Whether a --device names a device of the Container Device Interface: `vendor.com/class=name`."""
    kind, equals, name = text.partition("=")
    return bool(equals and name and "/" in kind and not text.startswith("/"))


def port_range(text: str) -> tuple[int, int]:
    """`80` or `80-90`."""
    if not text:
        raise ValueError("empty string specified for ports")
    first, dash, last = text.partition("-")
    start = _port(first)
    end = _port(last) if dash else start
    if end < start:
        raise ValueError(f"invalid range specified for port: {text}")
    return start, end


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    if int(text) > 65535:
        raise ValueError(f'strconv.ParseUint: parsing "{text}": value out of range')
    return int(text)


def publish(text: str) -> list[tuple[str, Object]]:
    """One -p: pairs of `port/protocol` and its binding. `[ip:][host[-end]]:port[-end][/protocol]`."""
    if "=" in text:
        return _publish_long(text)
    spec, _, protocol = text.partition("/")
    protocol = (protocol or "tcp").lower()
    address, host, container = _split_publish(spec)
    if address.startswith("["):
        address = address[1:-1]
    if address and not is_address(address):
        raise ValueError(f"invalid IP address: {address}")
    if not container:
        raise ValueError(f"no port specified: {text}<empty>")
    try:
        start, end = port_range(container)
    except ValueError:
        raise ValueError(f"invalid containerPort: {container}") from None
    host_start, host_end = 0, 0
    if host:
        try:
            host_start, host_end = port_range(host)
        except ValueError:
            raise ValueError(f"invalid hostPort: {host}") from None
    if host and end - start != host_end - host_start and end != start:
        raise ValueError(f"invalid ranges specified for container and host Ports: {container} and {host}")
    if protocol not in ("tcp", "udp", "sctp"):
        raise ValueError(f"invalid proto: {protocol}")
    found = []
    for number in range(start, end + 1):
        shown = str(host_start + number - start) if host else ""
        if host and start == end and host_start != host_end:
            shown = f"{shown}-{host_end}"
        found.append((f"{number}/{protocol}", {"HostIp": address, "HostPort": shown}))
    return found


def _split_publish(spec: str) -> tuple[str, str, str]:
    if spec.startswith("["):
        address, _, rest = spec.partition("]")
        rest = rest.removeprefix(":")
        host, _, container = rest.rpartition(":")
        return f"{address}]", host, container
    parts = spec.split(":")
    if len(parts) == 1:
        return "", "", parts[0]
    if len(parts) == 2:
        return "", parts[0], parts[1]
    if len(parts) == 3:
        return parts[0], parts[1], parts[2]
    return ":".join(parts[:-2]), parts[-2], parts[-1]


def is_address(text: str) -> bool:
    import socket

    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    try:
        socket.inet_pton(family, text.partition("%")[0])
    except OSError:
        return False
    return True


def _publish_long(text: str) -> list[tuple[str, Object]]:
    target, published, protocol = "", "", "tcp"
    for field in fields(text):
        key, equals, value = field.partition("=")
        if not equals:
            raise ValueError(f"invalid field: {field}")
        if key == "protocol":
            if value not in ("tcp", "udp", "sctp"):
                raise ValueError(f"invalid protocol value '{value}'")
            protocol = value
        elif key == "mode":
            if value not in ("host", "ingress"):
                raise ValueError(f"invalid publish mode value ({value}): must be either 'ingress' or 'host'")
        elif key in ("target", "published"):
            try:
                _port(value)
            except ValueError as error:
                name = "target port" if key == "target" else "published port"
                raise ValueError(f"invalid {name} ({value}): value must be an integer: {error}") from None
            target, published = (value, published) if key == "target" else (target, value)
        else:
            raise ValueError(f"invalid field key: {key}")
    if not target:
        raise ValueError("missing mandatory field 'target'")
    return publish(f"{published or '0'}:{target}/{protocol}" if published else f"{target}/{protocol}")


def expose(text: str) -> list[str]:
    """One --expose: `port[-end][/protocol]` as a list of `port/protocol`."""
    if ":" in text:
        raise ValueError(f"invalid port format for --expose: {text}")
    ports, _, protocol = text.partition("/")
    protocol = protocol or "tcp"
    try:
        start, end = port_range(ports)
    except ValueError as error:
        raise ValueError(f"invalid range format for --expose: {text}, error: {error}") from None
    return [f"{number}/{protocol.lower()}" for number in range(start, end + 1)]


def ulimit(text: str) -> Object:
    """One --ulimit: `name=soft[:hard]`."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"invalid ulimit argument: {text}")
    if name not in _ULIMITS:
        raise ValueError(f"invalid ulimit type: {name}")
    soft_text, colon, hard_text = value.partition(":")
    if ":" in hard_text:
        raise ValueError(f"too many limit value arguments - {value}, can only have up to two, `soft[:hard]`")
    soft = _limit(soft_text)
    hard = _limit(hard_text) if colon else soft
    if soft > hard != -1 or (soft == -1 and hard != -1):
        raise ValueError(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
    return {"Name": name, "Hard": hard, "Soft": soft}


_ULIMITS = frozenset(
    [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ]
)


def _limit(text: str) -> int:
    try:
        if not text.lstrip("-").isdigit():
            raise ValueError
        return int(text)
    except ValueError:
        raise ValueError(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def device_weight(text: str) -> Object:
    """One --blkio-weight-device: `/dev/x:weight`."""
    path, _, weight = text.partition(":")
    if not weight:
        raise ValueError(f"bad format: {text}")
    if not path.startswith("/dev/"):
        raise ValueError(f"bad format for device path: {text}")
    if not weight.isdigit() or (int(weight) > 0 and not 10 <= int(weight) <= 1000):
        raise ValueError(f"invalid weight for device: {text}")
    return {"Path": path, "Weight": int(weight)}


def device_rate(text: str, *, in_bytes: bool) -> Object:
    """One --device-read-bps and its kin: `/dev/x:rate`, the rate with a unit when `in_bytes`."""
    path, _, rate = text.partition(":")
    if not rate:
        raise ValueError(f"bad format: {text}")
    if not path.startswith("/dev/"):
        raise ValueError(f"bad format for device path: {text}")
    unit = "<number>[<unit>]" if in_bytes else "<number>"
    why = f"invalid rate for device: {text}. The correct format is <device-path>:{unit}."
    tail = " Number must be a positive integer" + (". Unit is optional and can be kb, mb, or gb" if in_bytes else "")
    try:
        number = parse_bytes(rate) if in_bytes else int(rate)
    except ValueError:
        raise ValueError(why + tail) from None
    if number < 0:
        raise ValueError(why + tail)
    return {"Path": path, "Rate": number}


def restart_policy(text: str) -> Object:
    """--restart: `no`, `always`, `unless-stopped`, `on-failure[:count]`."""
    if not text:
        return {"Name": "", "MaximumRetryCount": 0}
    name, colon, count = text.partition(":")
    if colon and not name:
        raise ValueError("invalid restart policy format: no policy provided before colon")
    if not colon:
        return {"Name": name, "MaximumRetryCount": 0}
    if not count.lstrip("-").isdigit():
        raise ValueError("invalid restart policy format: maximum retry count must be an integer")
    return {"Name": name, "MaximumRetryCount": int(count)}
