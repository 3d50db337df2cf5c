# SPDX-License-Identifier: Apache-2.0
"""Mutual TLS with the certificates that Swarm gave this node.

No key has to be handed out: whoever holds a certificate of this Swarm's authority is a
node of it, and the certificate says which one, and in which role.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from ebpfmesh.hub.errors import CertificateError
from ebpfmesh.hub.pem import key_file, plain_key

MANAGER_ROLE = "swarm-manager"

CERTIFICATE = "swarm-node.crt"
KEY = "swarm-node.key"
AUTHORITY = "swarm-root-ca.crt"

# X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED (openssl-verification-options(1))
_OUT_OF_TIME = frozenset({9, 10})

Stamp = tuple[tuple[int, int, int], ...]


class Identity(msgspec.Struct, frozen=True):
    """What a Swarm certificate says of its node: CN, OU and O."""

    node_id: str
    role: str
    swarm_id: str

    @property
    def is_manager(self) -> bool:
        """Whether the node may serve as a hub."""
        return self.role == MANAGER_ROLE


class Certificates:
    """One node's certificates, read again when Swarm renews them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._load()

    @classmethod
    def of_node(cls, docker_root: str) -> Certificates:
        """The certificates below dockerd's data root."""
        return cls(Path(docker_root) / "swarm" / "certificates")

    def reload_if_changed(self) -> bool:
        """Read the files again if they are not those that were read; say whether they were."""
        if self._stamp_now() == self._stamp:
            return False
        self._load()
        return True

    def _load(self) -> None:
        """Build both contexts, then swap: a bad file on disk leaves the old ones in use."""
        stamp = self._stamp_now()
        server = self._context(ssl.PROTOCOL_TLS_SERVER)
        server.verify_mode = ssl.CERT_REQUIRED
        client = self._context(ssl.PROTOCOL_TLS_CLIENT)
        self.identity = _own_identity(server, client)
        client.check_hostname = True
        self.server_context, self.client_context, self._stamp = server, client, stamp

    def _context(self, protocol: ssl._SSLMethod) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = False
        try:
            with key_file(plain_key(self._read(KEY))) as key:
                context.load_cert_chain(self.directory / CERTIFICATE, key)
            context.load_verify_locations(self.directory / AUTHORITY)
        except (OSError, ssl.SSLError) as error:
            raise CertificateError(
                f"cannot use the Swarm certificates in {self.directory}: {error}"
            ) from error
        return context

    def _read(self, name: str) -> bytes:
        try:
            return (self.directory / name).read_bytes()
        except OSError as error:
            raise CertificateError(
                f"cannot read {self.directory / name}: {error.strerror}; the agent must run as "
                "root and see dockerd's data root"
            ) from error

    def _stamp_now(self) -> Stamp:
        """What tells one set of files from another."""
        return tuple(_file_stamp(self.directory / name) for name in (CERTIFICATE, KEY, AUTHORITY))


def _file_stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise CertificateError(
            f"cannot read {path}: {error.strerror}; is this node in a Swarm, and is its data "
            "root the one given?"
        ) from error
    return found.st_mtime_ns, found.st_ino, found.st_size


def why_not_valid(error: ssl.SSLError) -> str:
    """What is wrong with a certificate; of one that is out of its time, which time it is here."""
    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in _OUT_OF_TIME:
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        return f"{error.verify_message}; it is {now} by this node's clock: is that right?"
    return str(error)


def peer_identity(connection: ssl.SSLObject, own: Identity) -> Identity:
    """Who is at the other end of a connection; it must belong to our Swarm.

    An authority outside of Swarm may sign for several Swarms: the organisation tells them apart.
    """
    peer = _identity(connection.getpeercert())
    if peer.swarm_id != own.swarm_id:
        raise CertificateError(
            f"the peer {peer.node_id} belongs to the Swarm {peer.swarm_id}, not to {own.swarm_id}"
        )
    return peer


def _identity(certificate: Mapping[str, Any] | None) -> Identity:
    """Read the subject, as the ssl module presents it: a tuple of tuples of pairs."""
    names = {key: value for part in (certificate or {}).get("subject", ()) for key, value in part}
    try:
        return Identity(
            node_id=names["commonName"],
            role=names["organizationalUnitName"],
            swarm_id=names["organizationName"],
        )
    except KeyError as error:
        raise CertificateError(f"the certificate's subject has no {error.args[0]}") from error


def _own_identity(server: ssl.SSLContext, client: ssl.SSLContext) -> Identity:
    """Learn who we are by a handshake with ourselves, in memory.

    The ssl module parses only a peer's certificate; and what fails here (an expired
    certificate, a key that is not its own) would fail with every peer.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        server.wrap_bio(to_server, to_client, server_side=True),
        client.wrap_bio(to_client, to_server, server_hostname=MANAGER_ROLE),
    ]
    try:
        for _ in range(4):
            done = [_step(end) for end in ends]
            if all(done):
                break
    except ssl.SSLError as error:
        raise CertificateError(
            f"this node's own Swarm certificate is not valid: {why_not_valid(error)}"
        ) from error
    return _identity(ends[0].getpeercert())


def _step(end: ssl.SSLObject) -> bool:
    """Go on with a handshake as far as what has arrived allows."""
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True
