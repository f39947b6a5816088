"""Generate random numbers that depend on their purpose, never on earlier draws.

A number depends on (seed, purpose, epoch, example, position) alone. So it is independent of the batch, the order and
the process, and any training step can be reproduced.

Numbers for single examples come from SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
generators", figure 14), a counter followed by a mixing function: the n-th number does not depend on the others.
"""

from __future__ import annotations

import hashlib
from operator import index
from typing import SupportsIndex

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.integer]
Float32s = NDArray[np.float32]
UInt64s = NDArray[np.uint64]

# The constants of SplitMix64: the odd number nearest to 2⁶⁴ / golden ratio, and the two multipliers of its mixing
# function (Stafford's variant 13 of the MurmurHash3 finaliser).
GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)
FIRST_MULTIPLIER = np.uint64(0xBF58476D1CE4E5B9)
SECOND_MULTIPLIER = np.uint64(0x94D049BB133111EB)


def mix(seed: SupportsIndex, *parts: str | SupportsIndex) -> int:
    """Return a 64-bit seed for a purpose; the same in every process and on every machine.

    Each part is written with its type and length, so ("ab", "c") and ("a", "bc"), or 1 and "1", give different numbers.

    Returns:
        0 ≤ number < 2⁶⁴, the range of `torch.manual_seed`.
    """
    written = "".join(
        f"s{len(part)}:{part}" if isinstance(part, str) else f"i{index(part)};" for part in (seed, *parts)
    )
    return int.from_bytes(hashlib.blake2b(written.encode(), digest_size=8).digest(), "little")


def uniform(seed: SupportsIndex, purpose: str, epoch: SupportsIndex, ids: Ids, count: int) -> Float32s:
    """Return uniform numbers in [0, 1), multiples of 2⁻²⁴.

    Args:
        purpose: what the numbers are for; another purpose gives independent numbers.
        ids: [N], the ids of the examples.
        count: numbers per example.

    Returns:
        [N, count] float32.
    """
    bits = _hash(mix(seed, purpose, epoch), ids, count)
    return (bits >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def normal(seed: SupportsIndex, purpose: str, epoch: SupportsIndex, ids: Ids, count: int) -> Float32s:
    """Return numbers from the standard normal distribution; arguments and shape as for `uniform`.

    By Box and Muller (1958): with u, v uniform, √(−2 ln u) cos 2πv and √(−2 ln u) sin 2πv are normal and independent.
    One 64-bit number gives u from its upper 32 bits (never 0, so no |z| exceeds 6.66) and v from the 24 bits below.
    """
    pairs = -(-count // 2)
    bits = _hash(mix(seed, purpose, epoch), ids, pairs)
    u = ((bits >> np.uint64(32)).astype(np.float32) + np.float32(1)) * np.float32(2.0**-32)
    angle = ((bits >> np.uint64(8)) & np.uint64(0xFFFFFF)).astype(np.float32) * np.float32(2 * np.pi * 2.0**-24)
    radius = np.sqrt(np.float32(-2) * np.log(u))
    numbers = np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=-1)
    return numbers.reshape(len(ids), 2 * pairs)[:, :count]


def permutation(seed: SupportsIndex, purpose: str, epoch: SupportsIndex, n: int) -> NDArray[np.int64]:
    """Return 0 … n − 1 in random order, [n] int64; from Philox, a counter-based generator (Salmon et al. 2011)."""
    return np.random.Generator(np.random.Philox(key=mix(seed, purpose, epoch))).permutation(n)


def _hash(key: int, ids: Ids, count: int) -> UInt64s:
    """Return [N, count] hashes: each example has its own SplitMix64 stream, which starts at a hash of its id."""
    starts = _splitmix(np.uint64(key) ^ _splitmix(np.ascontiguousarray(ids).astype(np.uint64)))
    counters = np.arange(1, count + 1, dtype=np.uint64) * GOLDEN_GAMMA
    return _splitmix(starts[:, None] + counters)


def _splitmix(state: UInt64s) -> UInt64s:
    """Apply SplitMix64's mixing function, a bijection of the 64-bit integers, in place, and return its argument."""
    state ^= state >> np.uint64(30)
    state *= FIRST_MULTIPLIER
    state ^= state >> np.uint64(27)
    state *= SECOND_MULTIPLIER
    state ^= state >> np.uint64(31)
    return state
