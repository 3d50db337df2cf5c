# SPDX-License-Identifier: Apache-2.0
"""The agent's status as tables. Pure: values in, text and tables out."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from ebpfmesh.cli.text import clean, count, percent, size, span, style_of, table
from ebpfmesh.labels import STARTED
from ebpfmesh.status import (
    BackendStatus,
    DatapathStatus,
    FlowStatus,
    FrontendStatus,
    HubStatus,
    MapStatus,
    PolicyStatus,
    ServiceStatus,
    Status,
    Traffic,
)

_NONE = "-"
_NUMBERS = ("BACKENDS", "FLOWS", "CONNS", "PACKETS", "BYTES", "ENTERED", "PORT", "IDLE")
_PERCENT = 100


def health(status: Status) -> str:
    """Return the word for it."""
    return "degraded" if status.problems else "healthy"


def summary(status: Status) -> list[Text]:
    """The lines above the table: health first."""
    node = status.node
    word = health(status)
    lines = [Text(word, style_of(word))]
    lines += [Text(f"  problem: {clean(problem)}", "yellow") for problem in status.problems]
    about = (
        f"{node.hostname} {node.vtep}, up {span(node.uptime_s)}, "
        f"ebpfmesh {node.agent_version}, Engine {node.engine_version}"
    )
    lines += [
        _line("node", about),
        _line("datapath", _datapath(status.datapath)),
        *_mode(status.datapath),
        _line("hub", _hub(status.hub)),
        _line("maps", "  ".join(_fill(each) for each in status.maps)),
        _line("dropped", _reasons(status.drops)),
        _line("to kernel", _reasons(status.handbacks)),
        _line("retried", _reasons(status.retries)),
    ]
    lines += [
        Text(clean(f"{note.severity}: {note.subject}: {note.text}"), style_of(note.severity))
        for note in status.notes
    ]
    return lines


def _line(heading: str, text: str) -> Text:
    return Text.assemble((f"{heading:<10}", "bold"), clean(text))


def _datapath(datapath: DatapathStatus) -> str:
    others = [nic for nic in datapath.nics if nic.name != datapath.device]
    edges = f", tc on {' '.join(nic.name for nic in others)}" if others else ""
    return (
        f"XDP {datapath.xdp} on {datapath.device}{edges}, "
        f"{datapath.programs} places with programs, "
        f"return {datapath.return_mode}, table size {datapath.maglev_size}, "
        f"VNI {datapath.mesh_vni}"
    )


def _mode(datapath: DatapathStatus) -> list[Text]:
    """A line only where something is under way."""
    if datapath.mode == "giving_back":
        since = f"giving back for {span(datapath.mode_age_s)}: new flows are the kernel's"
        return [_line("mode", since)]
    if datapath.takeover_left_s:
        left = f"taking over for {span(datapath.takeover_left_s)} more: unknown connections are "
        return [_line("mode", left + "the kernel's")]
    return []


def _hub(hub: HubStatus) -> str:
    if not hub.connected:
        reason = f": {hub.last_error}" if hub.last_error else ""
        return f"{hub.role}, not connected for {span(hub.since_s)}{reason}"
    age = "unknown" if hub.age_s is None else f"{hub.age_s:.1f}s"
    return (
        f"{hub.role}, connected to {hub.address} for {span(hub.since_s)}, "
        f"state {hub.state_version}, age {age}"
    )


def _fill(each: MapStatus) -> str:
    share = each.entries * _PERCENT / each.max_entries if each.max_entries else 0
    return f"{each.name} {count(each.entries)}/{count(each.max_entries)} ({share:.0f}%)"


def _reasons(reasons: dict[str, int]) -> str:
    some = {reason: number for reason, number in reasons.items() if number}
    if not some:
        return "none"
    return "  ".join(f"{reason} {count(number)}" for reason, number in sorted(some.items()))


# --- services ---------------------------------------------------------------------------


def status_table(services: Iterable[ServiceStatus]) -> Table:
    """A row for each frontend; what belongs to the service is in its first row."""
    rows = table(
        *("SERVICE", "NETWORK", "FRONTEND", "MODE", "BACKENDS", "FLOWS", "CONNS"),
        *("PACKETS", "BYTES", "ENTERED", "STATE"),
        numbers=_NUMBERS,
    )
    for service in services:
        for index, frontend in enumerate(service.frontends or (None,)):
            first = index == 0
            rows.add_row(
                service.name,
                service.network,
                frontend.name if frontend else _NONE,
                service.mode,
                _backends(service) if first else "",
                str(service.flows) if first else "",
                *_totals(frontend),
                _state(service.state) if first else "",
            )
    return rows


def _totals(frontend: FrontendStatus | None) -> tuple[str, str, str, str]:
    if frontend is None:
        return (_NONE,) * 4
    traffic = frontend.traffic
    entered = str(frontend.entered.connections) if frontend.kind == "port" else _NONE
    return (
        str(traffic.connections),
        count(traffic.packets_to_backend + traffic.packets_to_client),
        size(traffic.bytes_to_backend + traffic.bytes_to_client),
        entered,
    )


def _backends(service: ServiceStatus) -> str:
    return f"{service.ready}/{service.total}"


def _state(state: str) -> Text:
    return Text(clean(state), style_of(state))


def service_table(services: Iterable[ServiceStatus]) -> Table:
    """A row for each service on each of its networks."""
    rows = table(
        *("SERVICE", "NETWORK", "MODE", "FRONTENDS", "BACKENDS", "FLOWS", "STATE"),
        numbers=_NUMBERS,
    )
    for service in services:
        frontends = " ".join(frontend.name for frontend in service.frontends)
        rows.add_row(
            service.name,
            service.network,
            service.mode,
            frontends or _NONE,
            _backends(service),
            str(service.flows),
            _state(service.state),
        )
    return rows


def service_lines(service: ServiceStatus) -> list[Text | Table]:
    """One service on one network, in full."""
    lines: list[Text | Table] = [
        _line("service", f"{service.name} ({service.id})"),
        _line("network", f"{service.network} (VNI {service.vni})"),
        _line("mode", service.mode),
        Text.assemble((f"{'state':<10}", "bold"), _state(service.state)),
        _line("backends", f"{_backends(service)} get new flows{_chosen(service)}"),
        _line("flows", str(service.flows)),
        _line("policy", _policy(service.policy)),
    ]
    if service.frontends:
        lines += [Text(), _frontend_table(service.frontends)]
    if service.backends:
        lines += [Text(), _backend_table(service.backends)]
    return lines


def _chosen(service: ServiceStatus) -> str:
    if service.chosen in (0, service.ready):
        return ""
    if not service.ready:
        return f", {service.chosen} that are not get new flows meanwhile"
    return f", from this node {service.chosen}: local ones are preferred"


def _policy(policy: PolicyStatus) -> str:
    """The labels' effect, in their own words."""
    words = [f"scheduler={policy.scheduler}"]
    words += [f"affinity={policy.affinity}"] if policy.affinity else []
    words += [f"prefer={policy.prefer}"] if policy.prefer else []
    words += [f"ready={policy.ready}"] if policy.ready == STARTED else []
    if policy.allow is not None:
        words.append(f"allow={','.join(policy.allow) or 'nobody'}")
    return "  ".join(words)


_TRAFFIC = ("CONNS", "PACKETS OUT", "PACKETS BACK", "BYTES OUT", "BYTES BACK")


def _frontend_table(frontends: Iterable[FrontendStatus]) -> Table:
    rows = table("FRONTEND", "TARGET", *_TRAFFIC, "ENTERED", numbers=(*_TRAFFIC, "ENTERED"))
    for frontend in frontends:
        target = str(frontend.target_port) if frontend.target_port else "any"
        entered = str(frontend.entered.connections) if frontend.kind == "port" else _NONE
        rows.add_row(frontend.name, target, *_traffic(frontend.traffic), entered)
    return rows


def _backend_table(backends: Iterable[BackendStatus]) -> Table:
    rows = table(
        *("TASK", "ADDRESS", "NODE", "STATE", "SHARE", *_TRAFFIC), numbers=("SHARE", *_TRAFFIC)
    )
    for backend in backends:
        node = backend.node or _NONE
        rows.add_row(
            backend.task,
            backend.address,
            f"{node} (here)" if backend.local else node,
            _state("avoided" if backend.avoided else backend.state),
            percent(backend.share),
            *_traffic(backend.traffic),
        )
    return rows


def _traffic(traffic: Traffic) -> tuple[str, ...]:
    return (
        str(traffic.connections),
        count(traffic.packets_to_backend),
        count(traffic.packets_to_client),
        size(traffic.bytes_to_backend),
        size(traffic.bytes_to_client),
    )


def flow_table(flows: Iterable[FlowStatus]) -> Table:
    """A row for each flow; ENTRY is the node through which its client comes in."""
    rows = table(
        *("PROTO", "CLIENT", "FRONTEND", "BACKEND", "SERVICE", "NETWORK", "STATE", "IDLE"),
        "ENTRY",
        numbers=_NUMBERS,
    )
    for flow in flows:
        rows.add_row(
            flow.protocol,
            flow.client,
            flow.frontend,
            flow.backend,
            flow.service,
            flow.network,
            flow.state,
            span(flow.idle_s),
            flow.entry or _NONE,
        )
    return rows
