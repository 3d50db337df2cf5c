# SPDX-License-Identifier: Apache-2.0
"""Swarm's private key files, in a shape that OpenSSL reads.

Swarm keeps facts of its own (`kek-version`, `raft-dek`) as headers of the key's PEM block;
OpenSSL takes any header for a sign of encryption, and refuses the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ebpfmesh.hub.errors import CertificateError


def plain_key(pem: bytes) -> bytes:
    """The same PEM without headers; `CertificateError` if the key is encrypted."""
    if b"ENCRYPTED" in pem:
        raise CertificateError(
            "this node's Swarm key is encrypted (autolock), which ebpfmesh does not support; "
            "run `docker swarm update --autolock=false` on a manager"
        )
    return b"\n".join(line for line in pem.splitlines() if b":" not in line) + b"\n"


@contextmanager
def key_file(pem: bytes) -> Iterator[str]:
    """A path to the key for an API that wants one; the bytes never reach a disk."""
    handle = os.memfd_create("key", os.MFD_CLOEXEC)
    try:
        os.write(handle, pem)
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)
