# SPDX-License-Identifier: Apache-2.0
"""Runs the traffic through each side in turn, in the guest; writes what it took as JSON."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import msgspec

from bench.ipvs.network import Network, path, run
from bench.ipvs.plan import (
    CLIENT,
    DIRECT,
    EBPFMESH,
    EMPTY,
    IPVS,
    ROUTER,
    SIDES,
    TASKS,
    VIP,
    Round,
    Told,
    told,
)
from bench.ipvs.sides import Sides
from bench.node import quiet

TRAFFIC = Path(__file__).resolve().parents[2] / "traffic"
_PINS = Path("/sys/fs/bpf/bench")


def _arguments() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, required=True)
    options.add_argument("--count", type=int, required=True, help="of packets, in each round")
    options.add_argument("--side", action="append", help="only these; default: all")
    options.add_argument("to", type=Path)
    return options.parse_args()


def _say(text: str) -> None:
    print(f"guest: {text}, up {time.monotonic():.1f} s", flush=True)


def _traffic(side: str, network: Network, number: int, count: int) -> Told:
    """One run; what a side does is checked on the way."""
    asked = ",".join(TASKS) if side in {DIRECT, EMPTY} else VIP
    where = [path(network.client), *map(path, network.tasks)]
    found = told(run(str(TRAFFIC), str(number), str(count), asked, *where))
    # Swarm's tasks see a node's address in place of the client's.
    assert (found.peer == CLIENT) == (side != IPVS), f"{side}: saw {found.peer}"
    assert all(found.got), f"{side}: tasks got {found.got}"
    return found


def main() -> None:
    """One run through every side is not kept: the first one loads code, and makes caches."""
    given = _arguments()
    quiet()
    assert int(Path("/proc/sys/net/core/bpf_jit_enable").read_text()) == 1
    sides, networks = Sides(_PINS), {}
    for place, names in SIDES.items():
        for number, side in enumerate(names):
            if given.side and side not in given.side:
                continue
            network = Network(f"{place}{number}", routed=place == ROUTER)
            sides.put(side, network)
            networks[place, side] = network
            _say(f"{place}, {side}: made")
    rounds = []
    for number in range(given.rounds + 1):
        turn = list(networks.items())
        for (place, side), network in turn if number % 2 else reversed(turn):
            found = _traffic(side, network, number, given.count)
            if number:
                rounds.append(Round(place, side, found.instructions))
            _say(f"round {number}, {place}, {side}: {found}")
        given.to.write_bytes(msgspec.json.encode(rounds))
    if any(side.startswith(EBPFMESH) for _, side in networks):
        print(f"guest: reasons counted by ebpfmesh: {sides.world.reasons()}", flush=True)


if __name__ == "__main__":
    main()
