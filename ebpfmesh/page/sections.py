# SPDX-License-Identifier: Apache-2.0
"""What the page shows, and shows again every two seconds. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from ebpfmesh.changes import Change
from ebpfmesh.model import Frozen
from ebpfmesh.page.html import Html, element, join
from ebpfmesh.rates import BackendRates, Rate, Rates, ServiceRates
from ebpfmesh.status import ServiceStatus, Status
from ebpfmesh.wording import count, per_second, percent, size, span

_OPEN = 20  # services whose backends are shown at first
_CHANGES = 20
_PERCENT = 100
_CLASSES = {
    "ok": "good",
    "ready": "good",
    "healthy": "good",
    "down": "bad",
    "gone": "bad",
    "elsewhere": "quiet",
    "dnsrr": "quiet",
}


class View(Frozen, frozen=True):
    """A moment of a node; `rates` are of the same services in the same order."""

    status: Status
    rates: Rates
    changes: tuple[Change, ...] = ()


def live(view: View) -> Html:
    """Return all that changes."""
    return join(
        _head(view.status),
        _problems(view.status),
        _tiles(view),
        element("h2", "Services"),
        _services(view),
        element("h2", "Recent changes"),
        _changes(view.changes),
        element(
            "div",
            _reasons("Dropped", view.status.drops),
            _reasons("Left to the kernel", view.status.handbacks),
            class_="columns",
        ),
    )


def _badge(word: str) -> Html:
    return element("span", word, class_=f"badge {_CLASSES.get(word, 'warn')}")


def _head(status: Status) -> Html:
    node = status.node
    hub = f"follows {status.hub.address}" if status.hub.connected else "follows no hub"
    about = (
        f"{node.vtep}, up {span(node.uptime_s)}, ebpfmesh {node.agent_version}, "
        f"XDP {status.datapath.xdp} on {status.datapath.device}, {hub}"
    )
    return element(
        "header",
        element("h1", node.hostname),
        _badge("degraded" if status.problems else "healthy"),
        element("span", about, class_="quiet"),
    )


def _problems(status: Status) -> Html | None:
    lines = [element("li", problem, class_="bad") for problem in status.problems]
    lines += [
        element(
            "li",
            f"{note.severity}: {note.subject}: {note.text}",
            class_="bad" if note.severity == "error" else "warn",
        )
        for note in status.notes
    ]
    return element("ul", *lines) if lines else None


# --- in numbers ---------------------------------------------------------------------------


def _tiles(view: View) -> Html:
    services = view.rates.services
    here = [service for service in view.status.services if service.backends]
    entered = sum(service.entered.connections for service in services)
    down = len({service.id for service in view.status.services if service.state == "down"})
    return element(
        "div",
        _tile("new flows/s", per_second(_sum(services, "connections"))),
        _tile("entered/s", per_second(entered)),
        _tile("packets/s", per_second(_sum(services, "packets"))),
        _tile("to backends/s", size(_sum(services, "bytes_to_backend"))),
        _tile("to clients/s", size(_sum(services, "bytes_to_client"))),
        _tile("flows", count(sum(service.flows for service in services))),
        _tile("backends ready", f"{sum(s.ready for s in here)}/{sum(s.total for s in here)}"),
        _tile("services down", str(down), "bad" if down else ""),
        _tile("dropped so far", count(sum(view.status.drops.values()))),
        class_="tiles",
    )


def _sum(services: Iterable[ServiceRates], what: str) -> float:
    return sum(float(getattr(service.rate, what)) for service in services)


def _tile(name: str, number: str, kind: str = "") -> Html:
    return element(
        "div",
        element("b", number, class_=kind),
        element("span", name, class_="quiet"),
        class_="tile",
    )


# --- services -----------------------------------------------------------------------------


def _services(view: View) -> Html:
    pairs = list(zip(view.status.services, view.rates.services, strict=True))
    if not pairs:
        return element("p", "None is known.", class_="quiet")
    shown = len(pairs) <= _OPEN
    return join(*(_service(status, rates, shown) for status, rates in pairs))


def _service(service: ServiceStatus, rates: ServiceRates, shown: bool) -> Html:
    frontends = "  ".join(frontend.name for frontend in service.frontends)
    summary = element(
        "summary",
        element("b", service.name),
        element("span", service.network, class_="quiet"),
        element("span", frontends) if frontends else None,
        _badge(service.state),
        element("span", f"{service.ready}/{service.total} ready", class_="quiet"),
        element("span", _rates(rates.rate, service.flows), class_="rates"),
    )
    table = _table(
        ("Backend", "Node", "State", "Share", "New flows/s", "Packets/s", "In/s", "Out/s"),
        [_backend(backend) for backend in rates.backends],
        numbers=range(4, 8),
        kind="backends",
    )
    return element(
        "details",
        summary,
        table if rates.backends else None,
        id=f"{service.id}-{service.vni}",
        open=shown and bool(rates.backends),
    )


def _rates(rate: Rate, flows: int) -> str:
    return (
        f"{count(flows)} flows, {per_second(rate.connections)} new/s, "
        f"{per_second(rate.packets)} packets/s"
    )


def _backend(backend: BackendRates) -> tuple[str | Html, ...]:
    node = backend.node or "-"
    rate = backend.rate
    return (
        backend.address,
        f"{node} (here)" if backend.local else node,
        _badge(backend.state),
        _share(backend.share),
        per_second(rate.connections),
        per_second(rate.packets),
        size(rate.bytes_to_backend),
        size(rate.bytes_to_client),
    )


def _share(share: float) -> Html:
    """A bar; its width is an attribute, for the page's policy allows no style of an element."""
    width = f"{min(max(share, 0.0), 1.0) * _PERCENT:.1f}%"
    bar = element("svg", element("rect", width=width), aria_hidden="true")
    return element("span", bar, percent(share))


# --- changes and reasons ------------------------------------------------------------------


def _changes(changes: tuple[Change, ...]) -> Html:
    if not changes:
        return element("p", "None since the agent was started.", class_="quiet")
    rows = [
        (
            datetime.fromtimestamp(change.at, UTC).strftime("%H:%M:%S UTC"),
            change.event,
            ", ".join(f"{name} {value}" for name, value in change.fields.items()),
            change.cause or "-",
            "-" if change.took_s is None else f"{change.took_s * 1000:.0f} ms",
        )
        for change in changes[:_CHANGES]
    ]
    headings = ("Time", "Event", "What", "Cause", "Took")
    table = _table(headings, rows, numbers=(4,), short=(0, 1))
    return element("div", table, class_="card")


def _reasons(title: str, reasons: Mapping[str, int]) -> Html | None:
    rows = [(reason, count(number)) for reason, number in sorted(reasons.items()) if number]
    if not rows:
        return None
    table = _table(("Reason", "Packets"), rows, numbers=(1,))
    return element("section", element("h2", title), element("div", table, class_="card"))


def _table(
    headings: tuple[str, ...],
    rows: Iterable[tuple[str | Html, ...]],
    numbers: Iterable[int],
    short: Iterable[int] = (),
    kind: str = "",
) -> Html:
    """`numbers` are the columns that are aligned to the right, `short` those never broken."""
    classes = dict.fromkeys(short, "short") | dict.fromkeys(numbers, "number")
    kinds = [classes.get(index, "") for index in range(len(headings))]
    head = [
        element("th", heading, class_=kind) for heading, kind in zip(headings, kinds, strict=True)
    ]
    body = [
        element(
            "tr",
            *(
                element("td", cell, class_=kind, data_label=heading)
                for cell, kind, heading in zip(row, kinds, headings, strict=True)
            ),
        )
        for row in rows
    ]
    table = element(
        "table", element("thead", element("tr", *head)), element("tbody", *body), class_=kind
    )
    return element("div", table, class_="wide")
