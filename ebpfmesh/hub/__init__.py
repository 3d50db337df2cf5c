# SPDX-License-Identifier: Apache-2.0
"""Managers to agents and back: the mesh state, and what each node reports of itself."""

from ebpfmesh.hub.client import HubClient, HubStatus
from ebpfmesh.hub.errors import CertificateError, HubError, ProtocolError, StoreError
from ebpfmesh.hub.link import HubAddress, LinkSettings, LinkStatus
from ebpfmesh.hub.server import HubServer, PeerStatus, ServerSettings
from ebpfmesh.hub.store import StateStore
from ebpfmesh.hub.tls import Certificates, Identity

__all__ = [
    "CertificateError",
    "Certificates",
    "HubAddress",
    "HubClient",
    "HubError",
    "HubServer",
    "HubStatus",
    "Identity",
    "LinkSettings",
    "LinkStatus",
    "PeerStatus",
    "ProtocolError",
    "ServerSettings",
    "StateStore",
    "StoreError",
]
