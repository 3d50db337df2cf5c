# SPDX-License-Identifier: Apache-2.0
"""What can go wrong in the datapath. Every message names the cause, and what to do about it."""

from __future__ import annotations


class DatapathError(RuntimeError):
    """Base of all of them."""


class HeadersMissing(DatapathError):
    """The C library's copies of the kernel's user space headers are not installed."""


class LoadError(DatapathError):
    """A program did not compile, or the kernel's verifier refused it."""


class ObjectDamaged(DatapathError):
    """A file does not hold the compiled programs; says why. They are compiled anew."""


class LayoutMismatch(DatapathError):
    """Maps pinned by an earlier agent have other sizes; says which, and what to do."""


class MapError(DatapathError):
    """The kernel refused to read or write a map; says which, and why."""


class AttachError(DatapathError):
    """A program could not be attached; says where and why."""


class PlaceGone(AttachError):
    """The link or the namespace went away before a program was attached: nothing is wrong."""


class DeviceNotFound(DatapathError):
    """No link of the node holds the address that the Swarm uses for VXLAN."""
