# SPDX-License-Identifier: Apache-2.0
"""A network and a bpffs of the tests' own, gone with the last process that is in them."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .net import (
    CLIENT,
    CLIENT_MAC,
    NODE_A,
    NODE_A6,
    NODE_A_MAC,
    NODE_B,
    NODE_B_MAC,
    NODE_C,
    NODE_C_MAC,
)

_CLONE_NEWNS, _CLONE_NEWNET = 0x00020000, 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)

_LINKS = f"""\
link set lo up
link add nic0 address {NODE_A_MAC} type veth peer name lan0
link set nic0 up
link set lan0 up
addr add {NODE_A}/24 dev nic0
addr add {NODE_A6}/64 dev nic0 nodad
neigh add {NODE_B} lladdr {NODE_B_MAC} nud permanent dev nic0
neigh add {NODE_C} lladdr {NODE_C_MAC} nud permanent dev nic0
neigh add {CLIENT} lladdr {CLIENT_MAC} nud permanent dev nic0
link add nic1 type veth peer name lan1
link set lan1 up
link set nic1 up
addr add 198.51.100.1/24 dev nic1
neigh add 198.51.100.7 lladdr 02:00:00:00:01:07 nud permanent dev nic1
link add gw0 type veth peer name gw1
"""


def _call(function: str, *args: object) -> None:
    if getattr(_libc, function)(*args) != 0:
        raise OSError(ctypes.get_errno(), f"{function}: {os.strerror(ctypes.get_errno())}")


def _mount_bpffs(at: Path) -> None:
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "bpf", "bpf", str(at)], check=True)


def _make_network() -> None:
    subprocess.run(["ip", "-batch", "-"], input=_LINKS, text=True, check=True)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


@contextmanager
def sandbox(bpffs: Path) -> Iterator[None]:
    """This thread's own network (`nic0` is a node's NIC) and a bpffs at `bpffs`."""
    here = Path.cwd()
    own = [os.open(f"/proc/self/ns/{kind}", os.O_RDONLY) for kind in ("net", "mnt")]
    _call("unshare", _CLONE_NEWNS | _CLONE_NEWNET)
    try:
        _mount_bpffs(bpffs)
        _make_network()
        yield
    finally:
        for fd, kind in zip(own, (_CLONE_NEWNET, _CLONE_NEWNS), strict=True):
            _call("setns", fd, kind)
            os.close(fd)
        os.chdir(here)


def ifindex(name: str) -> int:
    return socket.if_nametoindex(name)


class OtherNetwork:
    """A network beside the sandbox's, as a container has one; gone when left."""

    def __enter__(self) -> OtherNetwork:
        own = os.open("/proc/self/ns/net", os.O_RDONLY)
        try:
            _call("unshare", _CLONE_NEWNET)
            self._fd = os.open("/proc/self/ns/net", os.O_RDONLY)
            _call("setns", own, _CLONE_NEWNET)
        finally:
            os.close(own)
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._fd)

    @property
    def path(self) -> str:
        """Names it to others, as `ip link ... netns`."""
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    @contextmanager
    def inside(self) -> Iterator[None]:
        own = os.open("/proc/self/ns/net", os.O_RDONLY)
        _call("setns", self._fd, _CLONE_NEWNET)
        try:
            yield
        finally:
            _call("setns", own, _CLONE_NEWNET)
            os.close(own)


@contextmanager
def send_finished_checksums(device: str) -> Iterator[None]:
    """Whoever listens at the other end sees packets as a wire would carry them."""
    subprocess.run(["ethtool", "-K", device, "tx", "off"], check=True, capture_output=True)
    yield
    subprocess.run(["ethtool", "-K", device, "tx", "on"], check=True, capture_output=True)
