# SPDX-License-Identifier: Apache-2.0
"""How many flows of a node are alive: what is waited for when it gives back."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebpfmesh.config import Config
from ebpfmesh.datapath.flows import (
    FLOW_ANSWERED,
    FLOW_DIRECT,
    FLOW_ESTABLISHED,
    FLOW_FIN_CLIENT,
    FLOW_FIN_SERVER,
    FLOW_RST,
    FLOW_VIA_KERNEL,
    entries,
    flows,
)
from ebpfmesh.datapath.loader import Module
from ebpfmesh.model import Protocol
from ebpfmesh.takeover import SECOND_NS

_ENTRY_MAPS = ("entries", "transient_entries")
_BOTH_FINS = FLOW_FIN_CLIENT | FLOW_FIN_SERVER


@dataclass(frozen=True)
class Timeouts:
    """After how many nanoseconds without a packet a flow is over."""

    syn_ns: int
    tcp_ns: int
    udp_ns: int

    @classmethod
    def of(cls, config: Config) -> Timeouts:
        """As the settings say."""
        seconds = (config.syn_timeout_s, config.tcp_timeout_s, config.udp_timeout_s)
        return cls(*(int(each * SECOND_NS) for each in seconds))


def living_flows(module: Module, timeouts: Timeouts, now_ns: int) -> int:
    """Count what would end with the programs: flows that this node translates, or sends on.

    Those of backends of other nodes are known by the entry node's note alone; of them a half-closed
    one counts as closed, for answers do not come this way.
    """
    here = sum(_translated(k, v, timeouts, now_ns) for k, v in flows(module))
    local = _local_backends(module)
    for name in _ENTRY_MAPS:
        here += sum(_sent_on(k, v, timeouts, now_ns, local) for k, v in entries(module, name))
    return here


def _translated(keys: NDArray[Any], values: NDArray[Any], t: Timeouts, now_ns: int) -> int:
    flags = values["flags"]
    ours = (flags & (FLOW_DIRECT | FLOW_VIA_KERNEL)) == 0
    open_ = ((flags & FLOW_RST) == 0) & ((flags & _BOTH_FINS) != _BOTH_FINS)
    fresh = _fresh(keys, values, (flags & FLOW_ANSWERED) != 0, t, now_ns)
    return int((ours & open_ & fresh).sum())


def _sent_on(
    keys: NDArray[Any], values: NDArray[Any], t: Timeouts, now_ns: int, local: NDArray[Any]
) -> int:
    flags = values["flags"]
    elsewhere = ~np.isin(values["backend"], local)
    open_ = (flags & (FLOW_RST | FLOW_FIN_CLIENT)) == 0
    fresh = _fresh(keys, values, (flags & FLOW_ESTABLISHED) != 0, t, now_ns)
    return int((elsewhere & open_ & fresh).sum())


def _fresh(
    keys: NDArray[Any], values: NDArray[Any], answered: NDArray[Any], t: Timeouts, now_ns: int
) -> NDArray[np.bool_]:
    tcp = np.where(answered, t.tcp_ns, t.syn_ns)
    limit = np.where(keys["protocol"] == int(Protocol.TCP), tcp, t.udp_ns)
    idle = now_ns - values["seen_ns"].astype(np.int64)
    return np.asarray(idle <= limit)


def _local_backends(module: Module) -> NDArray[Any]:
    table = module.table("local_backends")
    return np.array([leaf.value for leaf in table.values()], dtype=ctypes.c_uint32)
