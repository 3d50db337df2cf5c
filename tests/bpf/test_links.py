# SPDX-License-Identifier: Apache-2.0
"""What the kernel says of links and addresses, and that it is heard of when they change."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from ebpfmesh.datapath.discover import look_at_host
from ebpfmesh.datapath.dump import Link, LinkAddress
from ebpfmesh.datapath.links import link_changes, links_of

from .sandbox import ifindex

MAC = "02:42:0a:00:01:05"
PATIENCE_S = 20.0


def ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True)


def batch(*lines: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)


@pytest.fixture
def overlay(bpffs: Path) -> Iterator[None]:
    del bpffs  # whose network this is
    batch(
        "link add ebr0 type bridge",
        "link add evx0 master ebr0 type vxlan id 4099 dstport 4789",
        f"link add eve0 address {MAC} master ebr0 mtu 1400 type veth peer name eve1",
        "address add 10.0.1.5/24 dev eve0",
        "address add 10.0.1.6 peer 10.0.9.9/32 dev eve0",
        "address add fd00::5/64 dev eve0 nodad",
    )
    yield
    batch("link del eve0", "link del evx0", "link del ebr0")


@pytest.mark.usefixtures("overlay")
def test_links_are_those_of_the_kernel() -> None:
    found = {link.name: link for link in look_at_host().links}
    bridge, here, there = (ifindex(name) for name in ("ebr0", "eve0", "eve1"))
    assert found["eve0"] == Link(here, "eve0", "veth", MAC, 1400, bridge, there, 0, up=False)
    assert (found["eve1"].peer, found["eve1"].master) == (here, 0)
    assert (found["evx0"].kind, found["evx0"].vni, found["evx0"].master) == ("vxlan", 4099, bridge)
    assert (found["ebr0"].kind, found["ebr0"].vni) == ("bridge", 0)
    assert found["nic0"].up
    assert (found["lo"].kind, found["lo"].ethernet) == ("", False)


@pytest.mark.usefixtures("overlay")
def test_addresses_are_those_of_the_kernel() -> None:
    host, here = look_at_host(), ifindex("eve0")
    found = [one for one in host.addresses if one.index == here]
    assert found == [LinkAddress(here, "10.0.1.5", 24), LinkAddress(here, "10.0.1.6", 32)]
    assert LinkAddress(here, "fd00::5", 64) in host.addresses6


@pytest.mark.usefixtures("overlay")
def test_a_list_that_takes_many_messages_is_whole() -> None:
    batch(*(f"link add many{number} type veth peer name peer{number}" for number in range(100)))
    try:
        found = [link for link in look_at_host().links if link.name.startswith(("many", "peer"))]
        assert len(found) == len({link.index for link in found}) == 200
    finally:
        batch(*(f"link del many{number}" for number in range(100)))


@pytest.mark.usefixtures("overlay")
def test_changes_are_heard_of() -> None:
    async def hear() -> None:
        changes = link_changes()
        for words in ("link set eve1 mtu 1300", "address add 10.0.1.7/24 dev eve0"):
            heard = await nothing_yet(changes)
            await asyncio.to_thread(ip, words)
            async with asyncio.timeout(PATIENCE_S):
                await heard

    async def nothing_yet(changes: AsyncIterator[None]) -> asyncio.Future[None]:
        """Listens; what the kernel has to say of earlier changes is let go."""
        while True:
            heard = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0)
            if not heard.done():
                return heard

    asyncio.run(hear())


def test_no_namespace_is_said_so() -> None:
    with pytest.raises(FileNotFoundError), links_of("/run/netns/no-such-one") as links:
        links.links()
