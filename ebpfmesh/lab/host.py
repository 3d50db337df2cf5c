# SPDX-License-Identifier: Apache-2.0
"""What makes namespaces a host: a holder process, with mounts and a name of its own.

The holder does nothing but stay. So a node outlives its dockerd, and a test can end and
start that one as it likes.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

from ebpfmesh.lab import cgroup, namespaces
from ebpfmesh.lab.errors import LabError
from ebpfmesh.lab.processes import identify
from ebpfmesh.lab.state import ProcessId

# What a node writes below /etc, /opt and /var/lib stays its own: dockerd and containerd leave
# files there, whatever they are told. The lab's directory is shared, wherever it lies. A
# resolver that nobody can reach would delay the start of every task by minutes. What a container
# may want to be given lies where a machine has it: Docker's data, cgroup v2 (which cannot be on
# /sys here: /run/cgroup). Mounts below /run reach those that have it from this node, as elsewhere.
_SETUP = """
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir -p /run/lock /run/own/lab
mount --bind "$2" /run/own/lab
for own in etc opt var/lib; do
    mkdir -p /run/own/$own/upper /run/own/$own/work
    layers=lowerdir=/$own,upperdir=/run/own/$own/upper,workdir=/run/own/$own/work
    mount -t overlay -o $layers overlay /$own
done
mount --bind /run/own/lab "$2"
rm -f /etc/resolv.conf
echo "nameserver 127.0.0.1" >/etc/resolv.conf
echo "$1" >/etc/hostname
mkdir -p /sys/fs/bpf
mount -t bpf bpf /sys/fs/bpf
hostname "$1"
echo 1 >/proc/sys/net/ipv4/ip_forward
ln -s "$2/$1/docker.sock" /run/docker.sock
mkdir -p /var/lib/docker /run/cgroup
mount --bind "$2/$1/data" /var/lib/docker
mount --bind "$3" /run/cgroup
mount --make-shared /run
echo ready
exec sleep infinity >/dev/null 2>&1
"""


def start_holders(names: Iterable[str], lab: Path) -> dict[str, ProcessId]:
    """Make the hosts, side by side, around the lab's directory; their holders by name."""
    starting = {name: _start(name, lab) for name in names}
    return {name: _ready(name, process) for name, process in starting.items()}


def _start(name: str, lab: Path) -> subprocess.Popen[str]:
    setup = ["sh", "-c", _SETUP, "sh", name, str(lab), str(cgroup.of_place(name))]
    own = ["unshare", "--mount", "--uts", "--", *setup]
    cgroup.create(name)
    return subprocess.Popen(
        namespaces.in_place(name, own),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _ready(name: str, process: subprocess.Popen[str]) -> ProcessId:
    """The holder closes its output when it has set everything up, or failed."""
    output, errors = process.stdout, process.stderr
    if output is None or errors is None:
        raise TypeError("the holder was started without pipes")
    with output, errors:
        if output.readline().strip() != "ready":
            raise LabError(f"{name} cannot be made a host: {errors.read().strip()}")
    process.returncode = 0  # it is meant to outlive us: no warning that it still runs
    return identify(process.pid)
