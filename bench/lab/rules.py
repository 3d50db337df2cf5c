# SPDX-License-Identifier: Apache-2.0
"""The rules that a user would write to balance by hand: shell scripts, with what undoes them. Pure.

All choose a task at random for each new connection, and leave the rest to conntrack. TCP and UDP
alike; the port stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

PROTOCOLS = ("tcp", "udp")
TABLE = "bench"


class Rules(NamedTuple):
    """Scripts for ``sh -e``."""

    add: str
    delete: str


NONE = Rules("", "")


def iptables(
    hook: str, address: str, port: int, tasks: Sequence[str], *, masquerade: bool = False
) -> Rules:
    """DNAT by the match ``statistic``; `hook` is OUTPUT or PREROUTING."""
    rules = [
        f"{hook} -d {address} -p {protocol} --dport {port}"
        f"{_chance(len(tasks) - number)} -j DNAT --to-destination {task}"
        for protocol in PROTOCOLS
        for number, task in enumerate(tasks)
    ]
    if masquerade:
        rules += [
            f"POSTROUTING -p {protocol} --dport {port} -d {task} -j MASQUERADE"
            for protocol in PROTOCOLS
            for task in tasks
        ]
    return Rules(_each("--append", rules), _each("--delete", rules))


def _chance(left: int) -> str:
    """Of the tasks that are left, each gets as much; the last one takes what comes to it."""
    return f" -m statistic --mode random --probability {1 / left:.6f}" if left > 1 else ""


def _each(how: str, rules: Sequence[str]) -> str:
    return "".join(f"iptables --wait --table nat {how} {rule}\n" for rule in rules)


def nftables(
    hook: str, address: str, port: int, tasks: Sequence[str], *, masquerade: bool = False
) -> Rules:
    """DNAT by ``numgen random`` and a map; `hook` is output or prerouting."""
    slots = ", ".join(f"{number} : {task}" for number, task in enumerate(tasks))
    choice = f"numgen random mod {len(tasks)} map {{ {slots} }}"
    match = f"meta l4proto {{ {', '.join(PROTOCOLS)} }} th dport {port}"
    lines = [
        f"table ip {TABLE} {{",
        "  chain balance {",
        f"    type nat hook {hook} priority -100;",
        f"    ip daddr {address} {match} dnat to {choice}",
        "  }",
    ]
    if masquerade:
        lines += [
            "  chain leave {",
            "    type nat hook postrouting priority 100;",
            f"    ip daddr {{ {', '.join(tasks)} }} {match} masquerade",
            "  }",
        ]
    table = "\n".join([*lines, "}"])
    return Rules(f"nft -f - <<'END'\n{table}\nEND\n", f"nft delete table ip {TABLE}\n")
