# SPDX-License-Identifier: Apache-2.0
"""What can go wrong between hubs and agents."""

from __future__ import annotations


class HubError(Exception):
    """Base of everything that this package raises."""


class ProtocolError(HubError):
    """The peer sent something that the protocol does not allow."""


class BaseMismatch(ProtocolError):
    """A delta does not start from the state that we have; the whole state is needed."""


class Refused(HubError):
    """The hub turned us away, and said why."""


class PeerSilent(HubError):
    """The peer has sent nothing for too long, or reads nothing."""


class CertificateError(HubError):
    """This node's certificates cannot be used, or the peer's do not belong here."""


class StoreError(HubError):
    """The state could not be written to disk."""
