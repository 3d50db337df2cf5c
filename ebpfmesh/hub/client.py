# SPDX-License-Identifier: Apache-2.0
"""The agent's view of all hubs: follows one of them, reports to each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence

import msgspec
import structlog

from ebpfmesh.hub.link import HubAddress, HubLink, LinkSettings, LinkStatus
from ebpfmesh.hub.protocol import Report
from ebpfmesh.hub.tls import Certificates
from ebpfmesh.latest import Latest
from ebpfmesh.model import BackendState, MeshState

log = structlog.get_logger(__name__)


class HubStatus(msgspec.Struct, frozen=True):
    """Whom the agent follows, if anybody, and how old its state is.

    `state_age_s` counts from the last moment at which the state was known to be current;
    it is None before the first one.
    """

    connected: bool
    hub_id: str
    hub_address: str
    since_s: float
    state_version: int
    state_age_s: float | None
    last_error: str
    links: tuple[LinkStatus, ...] = ()


class HubClient:
    """Keeps `states` at what the best hub says.

    It stays with a hub for as long as that one is connected and in touch with the Swarm, and
    otherwise takes the first such hub in the order given; without one it keeps its state.
    """

    def __init__(
        self,
        certificates: Certificates,
        *,
        known: MeshState | None = None,
        settings: LinkSettings | None = None,
        agent: str = "",
        on_hub: Callable[[str, str], None] | None = None,
    ) -> None:
        """`on_hub` hears what has happened, and a hub's address; otherwise the log does.

        That is "following" or "left", "unconfirmed" when the hub that is followed has not been
        confirmed by a manager for too long, and "confirmed" when it is again.
        """
        self.states: Latest[MeshState] = Latest(known or MeshState())
        self.caught_up = asyncio.Event()
        """Set once a hub has said what the Swarm has confirmed."""
        self._certificates = certificates
        self._settings = settings or LinkSettings()
        self._agent = agent
        self._on_hub = on_hub or _log_hub
        self._reports: Latest[Report | None] = Latest(None)
        self._links: dict[HubAddress, HubLink] = {}
        self._wanted: Latest[tuple[HubAddress, ...]] = Latest(())
        self._tasks: dict[HubAddress, asyncio.Task[None]] = {}
        self._followed: HubLink | None = None
        self._began = self._since = time.monotonic()
        self._current_at: float | None = None
        self._held_back = False
        self._doubted = False

    # --- what the agent uses ------------------------------------------------------------

    def set_hubs(self, hubs: Sequence[HubAddress]) -> None:
        """The managers' addresses, the preferred first; a manager puts its own hub there."""
        wanted = tuple(dict.fromkeys(hubs))
        if wanted != self._wanted.value:
            self._wanted.set(wanted)

    def report(self, vtep: str, tasks: dict[str, BackendState], origin_ns: int = 0) -> None:
        """All that this node knows of itself; every hub gets it, now and at each connection.

        `origin_ns`: when the latest change of it happened, by this node's clock.
        """
        node_id = self._certificates.identity.node_id
        report = Report(node_id=node_id, vtep=vtep, tasks=tasks, origin_ns=origin_ns)
        last = self._reports.value
        if last is None or report.says() != last.says():
            self._reports.set(report)

    @property
    def status(self) -> HubStatus:
        """For `ebpfmesh status`."""
        link, now = self._followed, time.monotonic()
        links = [self._links[a] for a in self._wanted.value if a in self._links]
        return HubStatus(
            connected=link is not None,
            hub_id=link.node_id if link else "",
            hub_address=str(link.address) if link else "",
            since_s=now - self._since,
            state_version=self.states.value.version,
            state_age_s=None if self._current_at is None else now - self._current_at,
            last_error=next((entry.last_error for entry in links if entry.last_error), ""),
            links=tuple(entry.status for entry in links),
        )

    async def run(self) -> None:
        """Keep the links up until cancelled."""
        async with asyncio.TaskGroup() as group:
            async for wanted in self._wanted.changes():
                self._drop(self._links.keys() - set(wanted))
                self._add(group, [address for address in wanted if address not in self._links])

    # --- links --------------------------------------------------------------------------

    def _add(self, group: asyncio.TaskGroup, addresses: Iterable[HubAddress]) -> None:
        for address in addresses:
            link = HubLink(
                address,
                self._certificates,
                reports=self._reports,
                on_change=self._changed,
                settings=self._settings,
                agent=self._agent,
            )
            self._links[address] = link
            self._tasks[address] = group.create_task(link.run(), name=f"hub-link {address}")

    def _drop(self, addresses: Iterable[HubAddress]) -> None:
        for address in addresses:
            self._tasks.pop(address).cancel()
            link = self._links.pop(address)
            if link is self._followed:
                self._leave(link)
        self._choose()

    # --- whom to follow -----------------------------------------------------------------

    def _changed(self, link: HubLink) -> None:
        """A link came up, went down, heard a ping, or has a new state."""
        if link is self._followed and not link.connected:
            self._leave(link)
        self._choose()
        if link is self._followed:
            self._consider(link)
            self._doubt(link)

    def _leave(self, link: HubLink) -> None:
        self._followed = None
        self._since = time.monotonic()
        if link.connected:
            link.follow(False)
        self._on_hub("left", str(link.address))

    def _choose(self) -> None:
        """Stay with a hub that is in touch with the Swarm; else take the best there is."""
        best = self._best()
        if best is None or best is self._followed:
            return
        if self._followed is not None:
            self._leave(self._followed)
        self._followed = best
        self._since = time.monotonic()
        self._on_hub("following", str(best.address))
        best.follow(True)

    def _best(self) -> HubLink | None:
        current = self._followed
        if current is not None and current.fresh:
            return current
        in_order = [self._links[a] for a in self._wanted.value if a in self._links]
        connected = [link for link in in_order if link.connected]
        fallback = current or next(iter(connected), None)
        return next((link for link in connected if link.fresh), fallback)

    # --- what to believe ----------------------------------------------------------------

    def _consider(self, link: HubLink) -> None:
        """Take the hub's state unless it may be older than ours.

        A lower version is an older state as long as the hub has not caught up; once the Swarm
        itself has confirmed it since we follow this hub, it is the present whatever its number.
        """
        state = link.state
        if state is None:
            return
        known = self.states.value
        if state.version < known.version and not link.confirmed:
            self._hold_back(state, known)
            return
        self._held_back = False
        if state is not known:
            self.states.set(state)
        if link.confirmed_at is not None:
            self._current_at = link.confirmed_at
            self.caught_up.set()

    def _doubt(self, link: HubLink) -> None:
        """Say it when nobody vouches any more for what the hub says, and when somebody does."""
        confirmed_at = self._began if self._current_at is None else self._current_at
        doubted = time.monotonic() - confirmed_at > self._settings.stale_after_s
        if doubted is not self._doubted:
            self._doubted = doubted
            self._on_hub("unconfirmed" if doubted else "confirmed", str(link.address))

    def _hold_back(self, state: MeshState, known: MeshState) -> None:
        if not self._held_back:
            self._held_back = True
            log.info("hub.state_held_back", offered=state.version, known=known.version)


def _log_hub(event: str, address: str) -> None:
    log.info(f"hub.{event}", hub=address)
