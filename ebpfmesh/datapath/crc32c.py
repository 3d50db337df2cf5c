# SPDX-License-Identifier: Apache-2.0
"""The constants by which the programs keep SCTP's checksum right. Pure, no I/O.

Polynomials over GF(2) modulo the generator of CRC32c (RFC 9260, appendix A), written reflected: bit
31 is the coefficient of x^0.
"""

from __future__ import annotations

GENERATOR = 0x82F63B78
_ONE = 1 << 31


def _byte(value: int) -> int:
    """`value` times x^8, for a value of 8 bits: what classic tables of this CRC hold."""
    for _ in range(8):
        value = value >> 1 ^ (GENERATOR if value & 1 else 0)
    return value


_BYTES = tuple(_byte(value) for value in range(256))


def shifted(value: int) -> int:
    """`value` times x^8."""
    return value >> 8 ^ _BYTES[value & 0xFF]


def shifts(count: int) -> list[int]:
    """x^0, x^8, x^16, ..."""
    powers = [_ONE]
    while len(powers) < count:
        powers.append(shifted(powers[-1]))
    return powers


def bytes_followed_by(count: int) -> list[int]:
    """For each byte, what it adds to a CRC with `count` more bytes behind it."""
    values = list(_BYTES)
    for _ in range(count):
        values = [shifted(value) for value in values]
    return values


def constants() -> list[int]:
    """The words of struct crc32c (bpf/types.h), in its order."""
    words = shifts(1 << 16)
    for count in range(4):
        words += bytes_followed_by(count)
    return words
