# SPDX-License-Identifier: Apache-2.0
"""What stands under the help of each command: how people call it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "agent": ("ebpfmesh agent", "ebpfmesh agent --xdp generic --log-level debug"),
    "status": (
        "ebpfmesh status",
        "ebpfmesh status -w --interval 2",
        "ebpfmesh status -o json | jq .problems",
    ),
    "top": (
        "ebpfmesh top",
        "ebpfmesh top --backends --sort bytes",
        "ebpfmesh top -n 1 -o json | jq '.services[0].rate'",
    ),
    "service ls": ("ebpfmesh service ls", "ebpfmesh service ls -o json | jq '.services[].name'"),
    "service inspect": (
        "ebpfmesh service inspect web",
        "ebpfmesh service inspect web -o json | jq '.services[].backends[].share'",
    ),
    "flow ls": ("ebpfmesh flow ls", "ebpfmesh flow ls --service web"),
    "explain": (
        "ebpfmesh explain 192.0.2.100:5000 192.0.2.11:8080/tcp",
        "ebpfmesh explain 10.0.1.7:40000 '->' 10.0.1.2:80 --network shop",
        "ebpfmesh explain 192.0.2.100 192.0.2.11:8080 -o json | jq '.backends[].share'",
    ),
    "events": ("ebpfmesh events", "ebpfmesh events -n 100 --service web -o json"),
    "trace": (
        "ebpfmesh trace",
        "ebpfmesh trace --service web --kind flow --count 10",
        "ebpfmesh trace --kind drop --client 192.0.2.0/24",
        "ebpfmesh trace --reason no_frontend -o json | jq .source",
    ),
    "capture": (
        "ebpfmesh capture web --write web.pcapng",
        "ebpfmesh capture web --seconds 10 --snaplen 1500 -w web.pcapng",
        "ebpfmesh capture web | wireshark -k -i -",
    ),
    "check": ("ebpfmesh check", "ebpfmesh check -o json | jq '.checks[].level'"),
    "detach": ("ebpfmesh detach", "ebpfmesh detach --drain 5m"),
    "demo": ("ebpfmesh demo",),
}
"""Command -> lines for a shell."""


def below(command: str) -> str:
    """Return the end of the command's help; a backspace keeps its lines as they are."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in EXAMPLES[command])
