"""Counter-based random numbers: golden values, quality, and independence of batch, order and process."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from tunewright.random import mix, normal, permutation, uniform

MASK = 2**64 - 1


def splitmix(state: int) -> int:
    """SplitMix64's mixing function in plain Python integers."""
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


def reference_bits(key: int, example: int, position: int) -> int:
    start = splitmix(key ^ splitmix(example))
    return splitmix((start + (position + 1) * 0x9E3779B97F4A7C15) & MASK)


def test_the_mixing_function_is_splitmix64() -> None:
    """The first outputs of Vigna's splitmix64.c for the seed 1234567."""
    outputs = [splitmix((1234567 + n * 0x9E3779B97F4A7C15) & MASK) for n in (1, 2, 3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_uniform_equals_a_plain_python_reference() -> None:
    ids = np.array([0, 1, 59_999, 2**40])
    expected = [[(reference_bits(mix(7, "noise", 3), i, p) >> 40) / 2**24 for p in range(5)] for i in ids.tolist()]
    assert uniform(7, "noise", 3, ids, 5).tolist() == expected


def test_golden_values() -> None:
    """If one of these changes, no earlier run can be repeated: that needs a new major version, not new numbers here."""
    ids = np.array([0, 1, 2])
    assert mix(0) == 7754967453105325484
    assert mix(0, "a", 1) == 14274078634024036606
    assert uniform(0, "golden", 1, ids, 3).tolist() == [
        [0.7514476180076599, 0.5450854301452637, 0.8146312832832336],
        [0.5685871243476868, 0.02715742588043213, 0.5263053178787231],
        [0.10794669389724731, 0.8729503154754639, 0.6727156639099121],
    ]
    np.testing.assert_allclose(
        normal(0, "golden", 1, ids, 3),
        [
            [0.5098996758460999, -0.5581305623054504, 0.9176970720291138],
            [0.6637324094772339, 0.8298558592796326, -1.659741759300232],
            [2.09466290473938, 0.2542077600955963, -0.3063475489616394],
        ],
        rtol=1e-5,
    )
    assert permutation(0, "golden", 1, 10).tolist() == [7, 5, 1, 6, 0, 2, 4, 9, 3, 8]


def test_mix_tells_parts_and_kinds_apart() -> None:
    values = [
        mix(1),
        mix(11),
        mix(1, 1),
        mix(1, "1"),
        mix(1, "ab", "c"),
        mix(1, "a", "bc"),
        mix(1, "abc"),
        mix(1, 1, 2),
        mix(1, 12),
        mix(1, -1),
        mix(1, "i2;"),
        mix(1, 2),
    ]
    assert len(set(values)) == len(values)
    assert all(0 <= value <= MASK for value in values)
    assert mix(np.uint32(1), "x", np.int64(4)) == mix(1, "x", 4)
    with pytest.raises(TypeError):
        mix(1, 0.5)  # pyright: ignore[reportArgumentType]


def test_mix_is_the_same_in_another_process() -> None:
    """Python's own hash of text changes from process to process."""
    program = "from tunewright.random import mix; print(mix(3, 'order', 9))"
    for hash_seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
        assert int(ended.stdout) == mix(3, "order", 9)


@pytest.mark.parametrize("draw", [uniform, normal])
@pytest.mark.parametrize("count", [1, 7, 64, 785])
def test_an_example_gets_the_same_numbers_in_any_batch(draw, count: int) -> None:
    ids = np.arange(100)
    together = draw(5, "mask", 2, ids, count)
    assert together.shape == (100, count) and together.dtype == np.float32
    shuffled = permutation(0, "test", 0, 100)
    assert np.array_equal(draw(5, "mask", 2, shuffled, count), together[shuffled])
    for example in (0, 41, 99):
        assert np.array_equal(draw(5, "mask", 2, np.array([example]), count)[0], together[example])
    assert np.array_equal(draw(5, "mask", 2, ids, count + 6)[:, :count], together), "a position has its own number"


def test_no_example_and_no_position() -> None:
    assert uniform(0, "x", 0, np.array([], dtype=np.int64), 4).shape == (0, 4)
    assert normal(0, "x", 0, np.arange(3), 0).shape == (3, 0)


def test_uniform_is_uniform() -> None:
    """χ² over 256 bins of 1.6 million numbers; its expectation is 255 and its deviation √510 = 22.6."""
    numbers = uniform(0, "quality", 0, np.arange(2000), 800)
    assert numbers.min() >= 0 and numbers.max() < 1
    counts = np.bincount((numbers.reshape(-1) * 256).astype(int), minlength=256)
    chi2 = ((counts - numbers.size / 256) ** 2).sum() / (numbers.size / 256)
    assert 255 - 4 * 22.6 < chi2 < 255 + 4 * 22.6
    assert abs(numbers.mean(dtype=np.float64) - 0.5) < 4 * np.sqrt(1 / 12 / numbers.size)


def test_normal_is_normal() -> None:
    """The first four moments, and the distribution function at a few points (Kolmogorov and Smirnov's distance)."""
    from scipy.stats import kstest

    numbers = normal(0, "quality", 0, np.arange(1000), 501).astype(np.float64).reshape(-1)
    size = numbers.size
    for power, expected, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((numbers**power).mean() - expected) < 4 * np.sqrt(variance / size), power
    assert kstest(numbers[:100_000], "norm").pvalue > 1e-3


@pytest.mark.parametrize("draw", [uniform, normal])
def test_numbers_are_independent(draw) -> None:
    """Neighbouring examples, positions, epochs, seeds and purposes do not correlate (4 deviations, 400,000 pairs)."""
    ids = np.arange(500)

    def numbers(seed: int = 0, purpose: str = "a", epoch: int = 0, shift: int = 0) -> np.ndarray:
        return draw(seed, purpose, epoch, ids + shift, 800).astype(np.float64)

    base = numbers()
    others = {
        "seed": numbers(seed=1),
        "purpose": numbers(purpose="b"),
        "epoch": numbers(epoch=1),
        "example": numbers(shift=1),
        "position": np.roll(base, 1, axis=1),
        "half": np.roll(base, 400, axis=1),
    }
    for name, other in others.items():
        assert abs(np.corrcoef(base.reshape(-1), other.reshape(-1))[0, 1]) < 4 / np.sqrt(base.size), name
        assert not np.array_equal(base, other)


def test_bits_avalanche() -> None:
    """A neighbouring id, epoch or seed flips half of the 24 bits on average."""
    ids = np.arange(20_000)

    def bits(seed: int, epoch: int, ids: np.ndarray) -> np.ndarray:
        return (uniform(seed, "a", epoch, ids, 1) * 2**24).astype(np.uint32)

    for other in (bits(0, 0, ids + 1), bits(0, 1, ids), bits(1, 0, ids)):
        flipped = np.bitwise_count(bits(0, 0, ids) ^ other).mean()
        assert abs(flipped - 12) < 4 * np.sqrt(24 / 4 / ids.size)


def test_permutation_is_one_and_changes_with_everything() -> None:
    base = permutation(0, "order", 0, 1000)
    assert base.dtype == np.int64
    assert sorted(base.tolist()) == list(range(1000))
    assert np.array_equal(base, permutation(0, "order", 0, 1000))
    for other in (permutation(1, "order", 0, 1000), permutation(0, "split", 0, 1000), permutation(0, "order", 1, 1000)):
        assert (base == other).sum() < 10, "two random permutations agree in one place on average"
    assert permutation(0, "order", 0, 0).shape == (0,)


def test_permutations_are_equally_likely() -> None:
    """All 24 permutations of 4, over 4,800 epochs: χ² with 23 degrees of freedom, deviation √46 = 6.8."""
    codes = [tuple(permutation(0, "order", epoch, 4).tolist()) for epoch in range(4800)]
    counts = np.array([codes.count(code) for code in set(codes)])
    assert len(counts) == 24
    assert ((counts - 200) ** 2 / 200).sum() < 23 + 4 * 6.8
