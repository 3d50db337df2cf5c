# SPDX-License-Identifier: Apache-2.0
"""What the kernel can do, found by trying where nothing of the node is changed."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import subprocess
from collections.abc import Iterator

from ebpfmesh.check.facts import Programs
from ebpfmesh.datapath.syscall import PROG_QUERY, bpf, load_constant

_TIMEOUT_S = 10

# --- programs ---------------------------------------------------------------------------

_ANSWER = 1
# Name -> type of the program and of how it is attached (BPF_CGROUP_INET4_CONNECT).
_KINDS = {"tc": (3, 0), "XDP": (6, 0), "sockets": (18, 10)}


def refused() -> Programs:
    """Of which programs the kernel does not load the smallest, and why. Nothing is attached."""
    found = {}
    for name, (kind, attach) in _KINDS.items():
        if error := _load(kind, attach):
            found[name] = error
    return found


def _load(kind: int, attach: int) -> str:
    try:
        os.close(load_constant(kind, _ANSWER, attach))
    except OSError as error:
        return str(error.strerror)
    return ""


# Link, where, flags of the question and of the answer, ids (none wanted), how many (6.6).
_QUERY = struct.Struct("@IIIIQI")
_TCX_INGRESS = 46


def tcx_programs(device: str) -> int:
    """How many programs are at a link's tcx, where they run before those of tc."""
    try:
        index = socket.if_nametoindex(device)
        _, answer = bpf(PROG_QUERY, _QUERY.pack(index, _TCX_INGRESS, 0, 0, 0, 0))
    except OSError:
        return 0
    *_, count = _QUERY.unpack_from(answer)
    return int(count)


# --- tc ---------------------------------------------------------------------------------

# In a network namespace that ends with it. The filter answers "pass".
_TRY_TC = """
tc qdisc add dev lo clsact &&
tc filter add dev lo ingress bpf direct-action bytecode '1,6 0 0 0'
"""


def tc_error() -> str:
    """Why programs cannot be attached by tc; empty if they can, or if that cannot be tried."""
    try:
        done = subprocess.run(
            ["unshare", "--net", "sh", "-c", _TRY_TC],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return complaint(done.returncode, done.stderr)


def complaint(code: int, stderr: str) -> str:
    """What tc has against it, in a line; not what keeps `unshare` from making a namespace."""
    first = (stderr.strip() or f"tc ends with {code}").splitlines()[0]
    return "" if code == 0 or first.startswith("unshare:") else first


# --- XDP in drivers: generic netlink, from linux/netdev.h (6.3) ---------------------------

_NETLINK_GENERIC, _CONTROL = 16, 16
_GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 3, 1, 2
_DEV_GET, _DEV_IFINDEX, _DEV_XDP_FEATURES = 1, 1, 3
_XDP_ACT_BASIC = 1
_REQUEST, _ERROR = 1, 2
_HEADER, _ATTRIBUTE = struct.Struct("=IHHIIBBH"), struct.Struct("=HH")


def native_xdp(device: str) -> bool | None:
    """Whether the driver runs XDP programs itself; None where the kernel does not tell."""
    try:
        index = socket.if_nametoindex(device)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_GENERIC) as netlink:
            netlink.settimeout(_TIMEOUT_S)
            found = _ask(netlink, _CONTROL, _GET_FAMILY, _FAMILY_NAME, b"netdev\0")
            (family,) = struct.unpack("=H", found[_FAMILY_ID])
            found = _ask(netlink, family, _DEV_GET, _DEV_IFINDEX, struct.pack("=I", index))
            (features,) = struct.unpack("=Q", found[_DEV_XDP_FEATURES])
    except (OSError, KeyError, struct.error):
        return None
    return bool(features & _XDP_ACT_BASIC)


def _ask(
    netlink: socket.socket, family: int, command: int, attribute: int, value: bytes
) -> dict[int, bytes]:
    """One question with one attribute; the answer's attributes. Raises `OSError` if refused."""
    size = _ATTRIBUTE.size + len(value)
    body = _ATTRIBUTE.pack(size, attribute) + value + bytes(-size % 4)
    netlink.send(
        _HEADER.pack(_HEADER.size + len(body), family, _REQUEST, 1, 0, command, 1, 0) + body
    )
    answer = netlink.recv(1 << 16)
    _, kind, *_ = _HEADER.unpack_from(answer)
    if kind == _ERROR:
        (number,) = struct.unpack_from("=i", answer, 16)
        raise OSError(-number, os.strerror(-number))
    return dict(_attributes(answer[_HEADER.size :]))


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        size, kind = _ATTRIBUTE.unpack_from(data)
        yield kind, data[_ATTRIBUTE.size : size]
        data = data[max(size + -size % 4, _ATTRIBUTE.size) :]


# --- the clock --------------------------------------------------------------------------

_TIME_ERROR = 5  # "clock not synchronized"
_TIMEX_SIZE = 256


def clock_is_kept() -> bool | None:
    """Whether something (NTP, PTP) keeps the clock right; None if it may not be asked."""
    ask_only = ctypes.create_string_buffer(_TIMEX_SIZE)
    state = int(ctypes.CDLL(None, use_errno=True).adjtimex(ask_only))
    return None if state < 0 else state != _TIME_ERROR
