# SPDX-License-Identifier: Apache-2.0
"""Makes a veth behave like a network card towards XDP.

What XDP sends back or redirects into a veth waits in its ring, unseen, until the *peer*
polls; a peer polls as soon as it has a program. So each port of the bridge gets the
smallest one: pass every frame.
"""

from __future__ import annotations

import os

from pyroute2 import IPRoute

from ebpfmesh.datapath.netns import netlink_socket
from ebpfmesh.datapath.syscall import load_constant
from ebpfmesh.lab import namespaces
from ebpfmesh.lab.errors import LabError

_BPF_PROG_TYPE_XDP = 6
_XDP_PASS = 2
_XDP_FLAGS_DRV_MODE = 1 << 2


def pass_every_frame(namespace: str, links: list[str]) -> None:
    """Attach the program, in driver mode, to the named links of a namespace.

    pyroute2's own way into a namespace is a forked process that it ends by SIGTERM: where that
    signal raises, the copy would unwind as we do, and take the lab down.
    """
    program = load_pass()
    try:
        socket = netlink_socket(str(namespaces.path(namespace)))
        with IPRoute(fileno=socket.detach()) as netlink:
            for link in links:
                (index,) = netlink.link_lookup(ifname=link)
                xdp = [("IFLA_XDP_FD", program), ("IFLA_XDP_FLAGS", _XDP_FLAGS_DRV_MODE)]
                netlink.link("set", index=index, IFLA_XDP={"attrs": xdp})
    finally:
        os.close(program)  # the links keep it


def load_pass() -> int:
    """File descriptor of a program that passes every frame; the caller closes it."""
    try:
        return load_constant(_BPF_PROG_TYPE_XDP, _XDP_PASS)
    except OSError as error:
        raise LabError(f"the kernel refuses an XDP program: {error.strerror}") from error
