# SPDX-License-Identifier: Apache-2.0
"""Which sizes a Maglev table can have. Pure, no I/O."""

from __future__ import annotations

from functools import cache
from math import isqrt

MIN_SIZE = 3
MAX_SIZE = 131071


@cache
def is_prime(number: int) -> bool:
    """Tell whether `number` is prime, by trial division: meant for table sizes."""
    return number > 1 and all(number % d for d in range(2, isqrt(number) + 1))


def check_size(size: int) -> None:
    """Raise ValueError, with the primes nearby, unless `size` can be the size of a table."""
    if MIN_SIZE <= size <= MAX_SIZE and is_prime(size):
        return
    inside = min(max(size, MIN_SIZE), MAX_SIZE)
    below = next(n for n in range(inside, 0, -1) if is_prime(n))
    above = next(n for n in range(inside, MAX_SIZE + 1) if is_prime(n))
    near = " or ".join(str(n) for n in sorted({below, above}))
    raise ValueError(
        f"a Maglev table has a prime size from {MIN_SIZE} to {MAX_SIZE}, not {size}: try {near}"
    )
