# SPDX-License-Identifier: Apache-2.0
"""The settings of an agent: defaults, then the TOML file, the environment, the command line.

Each field of `Config` carries its own documentation and bounds; `settings` lists them for help
texts and manuals. Only `load` reads a file; everything else here is pure.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, inspect

from ebpfmesh.primes import MAX_SIZE, MIN_SIZE, check_size

DEFAULT_FILE = Path("/etc/ebpfmesh/ebpfmesh.toml")
PREFIX = "EBPFMESH_"
FILE_VARIABLE = "EBPFMESH_CONFIG"
EXEMPT_PREFIX = "EBPFMESH_LAB_"

_MIN_MTU = 576  # what every IPv4 host must take, RFC 791
_OCTET = r"(25[0-5]|2[0-4]\d|1?\d?\d)"
_SHOWN = 80  # characters of a refused value


class ConfigError(Exception):
    """A setting is not usable. One line: where it was set, its name, its value, what is allowed."""


AbsolutePath = Annotated[
    str, Meta(pattern=r"^/[^\x00-\x1f]*\Z", extra={"allowed": "an absolute path"})
]
PathOrAuto = Annotated[
    str,
    Meta(pattern=r"^(/[^\x00-\x1f]*)?\Z", extra={"allowed": "an absolute path, or empty for auto"}),
]
NameOrAuto = Annotated[
    str,
    Meta(pattern=r"^[^\s/]{0,15}\Z", extra={"allowed": "the name of a link, or empty for auto"}),
]
NamesOrAuto = Annotated[
    str,
    Meta(
        pattern=r"^([^\s/,]{1,15}(,[^\s/,]{1,15})*)?\Z",
        extra={"allowed": "names of links or globs with commas between them, or empty for auto"},
    ),
]
AddressOrAuto = Annotated[
    str,
    Meta(
        pattern=rf"^({_OCTET}(\.{_OCTET}){{3}})?\Z",
        extra={"allowed": "an IPv4 address, or empty for auto"},
    ),
]
PortNumber = Annotated[int, Meta(ge=1, le=65535)]
Entries = Annotated[int, Meta(ge=16, le=1 << 20)]


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of an agent. An empty address, device or path is found out by the agent."""

    docker_socket: Annotated[AbsolutePath, Meta(description="The socket of dockerd.")] = (
        "/var/run/docker.sock"
    )
    socket: Annotated[
        AbsolutePath, Meta(description="The agent's own socket, which the other commands ask.")
    ] = "/run/ebpfmesh/agent.sock"
    state_dir: Annotated[
        AbsolutePath, Meta(description="Where the last state of the Swarm is kept.")
    ] = "/var/lib/ebpfmesh"
    object_dir: Annotated[
        PathOrAuto,
        Meta(description="Where the compiled programs are kept; auto: objects in state_dir."),
    ] = ""
    pin_dir: Annotated[
        AbsolutePath, Meta(description="Where maps and programs are pinned, in a BPF file system.")
    ] = "/sys/fs/bpf/ebpfmesh"
    netns_dir: Annotated[
        AbsolutePath, Meta(description="Where dockerd keeps the network namespaces.")
    ] = "/var/run/docker/netns"
    cgroup: Annotated[
        PathOrAuto,
        Meta(description="The cgroup whose processes are balanced at the socket; auto: all."),
    ] = ""
    device: Annotated[
        NameOrAuto,
        Meta(description="The link to the other nodes; auto: the one with the data-path address."),
    ] = ""
    interfaces: Annotated[
        NamesOrAuto,
        Meta(
            description="The links where clients come in: names or globs, with commas between "
            "them; auto: every NIC that has an IPv4 address. The link to the other nodes always is "
            "among them."
        ),
    ] = ""
    xdp: Annotated[
        Literal["auto", "native", "generic", "off"],
        Meta(description="How XDP is attached; auto: native, or generic where the link lacks it."),
    ] = "auto"
    return_mode: Annotated[
        Literal["tunnel", "dsr"],
        Meta(description="How answers reach a client: through the entry node, or straight (dsr)."),
    ] = "tunnel"
    vip_mode: Annotated[
        Literal["tc", "socket"],
        Meta(
            description="Where VIPs are balanced: at the links of containers (tc), or already at "
            "their sockets, where that will do: such a connection is not watched any more."
        ),
    ] = "tc"
    maglev_size: Annotated[
        Annotated[int, Meta(ge=MIN_SIZE, le=MAX_SIZE)],
        Meta(
            description="Slots of a service's lookup table: a prime, the same on every node, "
            "about 100 times the backends of the largest service.",
            extra={"allowed": f"a prime from {MIN_SIZE} to {MAX_SIZE}"},
        ),
    ] = 16381
    max_flows: Annotated[
        Annotated[int, Meta(ge=1024, le=1 << 26)],
        Meta(
            description="Established flows that are remembered, the longest unused one makes room; "
            "and half as many that are half-open, unanswered or closed."
        ),
    ] = 262144
    takeover_grace_s: Annotated[
        Annotated[float, Meta(ge=0, le=86_400)],
        Meta(
            description="Seconds, from the first start on, in which open TCP connections that are "
            "not known are left to the path that balanced before; 0: balance them at once."
        ),
    ] = 600.0
    syn_timeout_s: Annotated[
        Annotated[float, Meta(ge=1, le=3600)],
        Meta(description="Seconds after which a connection that was never answered is over."),
    ] = 60.0
    tcp_timeout_s: Annotated[
        Annotated[float, Meta(ge=60, le=31_536_000)],
        Meta(description="Seconds without a packet after which an open connection is over."),
    ] = 432_000.0
    udp_timeout_s: Annotated[
        Annotated[float, Meta(ge=1, le=86_400)],
        Meta(
            description="Seconds without a packet after which a flow of UDP, or an association of "
            "SCTP, is over: what comes then is balanced anew."
        ),
    ] = 180.0
    spoof_check: Annotated[
        bool,
        Meta(
            description="Whether tasks are held to the addresses and MACs that Docker gave them. "
            "A task that routes for others, or that gives itself addresses, needs false."
        ),
    ] = True
    max_services: Annotated[
        Entries, Meta(description="Lookup tables: one for each service on each of its networks.")
    ] = 4096
    max_frontends: Annotated[
        Entries,
        Meta(description="VIPs, published ports, and addresses of backends on attached networks."),
    ] = 8192
    max_backends: Annotated[
        Entries, Meta(description="Tasks on each of their networks, those just gone included.")
    ] = 16384
    mesh_vni: Annotated[
        Annotated[int, Meta(ge=1, le=(1 << 24) - 1)],
        Meta(
            description="VXLAN network identifier between the nodes: the same on every node, "
            "used by no overlay network."
        ),
    ] = 15461121
    vxlan_port: Annotated[
        PortNumber, Meta(description="UDP port of VXLAN: the Swarm's data-path port.")
    ] = 4789
    underlay_mtu: Annotated[
        Annotated[int, Meta(ge=0, le=65535)],
        Meta(
            description="Largest packet between the nodes, in bytes; 0: as the link says.",
            extra={"allowed": f"0, or an integer from {_MIN_MTU} to 65535"},
        ),
    ] = 0
    hub_port: Annotated[
        PortNumber, Meta(description="TCP port where managers serve the state of the Swarm.")
    ] = 7380
    hub_address: Annotated[
        AddressOrAuto, Meta(description="Where a manager's hub listens; auto: the node's address.")
    ] = ""
    swarm_dir: Annotated[
        PathOrAuto,
        Meta(description="The Swarm's certificates; auto: swarm/certificates in Docker's root."),
    ] = ""
    metrics_address: Annotated[
        AddressOrAuto, Meta(description="Where metrics are served; auto: the node's address.")
    ] = ""
    metrics_port: Annotated[PortNumber, Meta(description="TCP port of the metrics.")] = 9477
    metrics_backends: Annotated[
        Annotated[int, Meta(ge=0, le=1 << 20)],
        Meta(
            description="Backends that metrics tell of one by one, at most: each is 5 series. Of "
            "more, those that this node has used come first."
        ),
    ] = 5000
    status_page: Annotated[
        bool, Meta(description="Whether a page for people is served at `/` beside the metrics.")
    ] = True
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="The least that is logged.")
    ] = "info"
    log_format: Annotated[
        Literal["auto", "console", "json"],
        Meta(description="How it is logged; auto: console on a terminal, json elsewhere."),
    ] = "auto"
    resync_interval_s: Annotated[
        Annotated[float, Meta(ge=1, le=3600)],
        Meta(description="Seconds between full looks at dockerd, maps and links."),
    ] = 30.0
    ready_timeout_s: Annotated[
        Annotated[float, Meta(ge=0, le=3600)],
        Meta(
            description="Seconds after its start from which a task without a health check counts "
            "as ready though nothing listens in it; 0: as soon as it is started."
        ),
    ] = 10.0
    niceness: Annotated[
        Annotated[int, Meta(ge=-20, le=19)],
        Meta(
            description="The agent's place among the processes of its cgroup, as in nice(1): what "
            "it hears of tasks should not wait for what keeps the node busy."
        ),
    ] = -10
    task_poll_interval_s: Annotated[
        Annotated[float, Meta(ge=0.1, le=60)],
        Meta(description="Seconds between a manager's looks at the tasks."),
    ] = 1.0


class Setting(msgspec.Struct, frozen=True):
    """The documentation of one field of `Config`."""

    name: str
    variable: str
    kind: type[str | int | float | bool]
    default: str | int | float | bool
    allowed: str
    description: str

    @property
    def default_text(self) -> str:
        """The default as it is written in the file, but for quotes."""
        return str(self.default).lower() if self.kind is bool else str(self.default)


@cache
def settings() -> Mapping[str, Setting]:
    """Describe every setting, by name, in the order of `Config`."""
    kind = inspect.type_info(Config)
    assert isinstance(kind, inspect.StructType)
    return {field.name: _setting(field) for field in kind.fields}


def load(
    file: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
    options: Mapping[str, object] | None = None,
) -> Config:
    """Read the settings: `file` (or `EBPFMESH_CONFIG`, or the default one), environment, options.

    Only the default file may be missing. An option that is None was not given.
    Raises ConfigError.
    """
    environ = environ or {}
    chosen = file or environ.get(FILE_VARIABLE)
    path = Path(chosen or DEFAULT_FILE)
    return parse(_read(path, needed=bool(chosen)), str(path), environ, options or {})


def parse(
    text: str, source: str, environ: Mapping[str, str], options: Mapping[str, object]
) -> Config:
    """Merge the text of a TOML file (named `source` in errors), environment and options."""
    values = {
        **_from_file(text, source),
        **_from_environ(environ),
        **_from_options(options),
    }
    return Config(**values)


def _read(path: Path, *, needed: bool) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        if needed:
            raise ConfigError(f"{path}: no such file") from error
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


def _from_file(text: str, source: str) -> dict[str, Any]:
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: not valid TOML: {error}") from error
    _refuse_unknown(source, values, list(settings()))
    return {key: _value(source, key, key, value, typed=True) for key, value in values.items()}


def _from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    ours = {
        name: value
        for name, value in environ.items()
        if name.startswith(PREFIX) and name != FILE_VARIABLE and not name.startswith(EXEMPT_PREFIX)
    }
    names = {setting.variable: setting.name for setting in settings().values()}
    _refuse_unknown("environment", ours, list(names))
    return {
        names[variable]: _value("environment", variable, names[variable], value)
        for variable, value in ours.items()
    }


def _from_options(options: Mapping[str, object]) -> dict[str, Any]:
    given = {name: value for name, value in options.items() if value is not None}
    flags = {option(name): name for name in settings()}
    _refuse_unknown("command line", map(option, given), list(flags))
    return {
        name: _value("command line", option(name), name, value) for name, value in given.items()
    }


def option(name: str) -> str:
    """Return the command-line option of a setting."""
    return "--" + name.replace("_", "-")


def _refuse_unknown(source: str, keys: Iterable[str], known: list[str]) -> None:
    for key in keys:
        if key not in known:
            close = get_close_matches(key, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"
            raise ConfigError(f"{source}: unknown setting {key}{hint}")


def _value(source: str, key: str, name: str, value: object, *, typed: bool = False) -> Any:
    """Convert and check one value; unless it is `typed`, text may stand for a number."""
    wanted = next(f.type for f in msgspec.structs.fields(Config) if f.name == name)
    try:
        converted = msgspec.convert(value, wanted, strict=typed)
        _CHECKS.get(name, _anything)(converted)
    except msgspec.ValidationError as error:
        allowed = settings()[name].allowed
        raise ConfigError(f"{source}: {key} is {_shown(value)}; allowed: {allowed}") from error
    except ValueError as error:
        raise ConfigError(f"{source}: {key} is {_shown(value)}; {error}") from error
    return converted


def _anything(_value: Any) -> None:
    """Accept what the type accepts."""


def _check_mtu(mtu: int) -> None:
    if 0 < mtu < _MIN_MTU:
        raise ValueError(f"allowed: {settings()['underlay_mtu'].allowed}")


# What a type cannot say. Each raises ValueError.
_CHECKS: Mapping[str, Callable[[Any], None]] = {
    "maglev_size": check_size,
    "underlay_mtu": _check_mtu,
}


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "..."


def _setting(field: inspect.Field) -> Setting:
    meta = field.type
    assert isinstance(meta, inspect.Metadata)
    return Setting(
        name=field.name,
        variable=PREFIX + field.name.upper(),
        kind=type(field.default),
        default=field.default,
        allowed=(meta.extra or {}).get("allowed") or _bounds(meta.type),
        description=(meta.extra_json_schema or {})["description"],
    )


def _bounds(kind: inspect.Type) -> str:
    match kind:
        case inspect.LiteralType(values=values):
            return "one of " + ", ".join(map(str, values))
        case inspect.IntType(ge=low, le=high):
            return f"an integer from {low} to {high}"
        case inspect.BoolType():
            return "true or false"
        case inspect.FloatType(ge=low, le=high):
            return f"a number from {_plain(low)} to {_plain(high)}"
    raise TypeError(f"a setting cannot be {kind}")


def _plain(number: float | None) -> str:
    """A bound as a person writes it: never 3.1536e+07."""
    return f"{number:f}".rstrip("0").rstrip(".")
