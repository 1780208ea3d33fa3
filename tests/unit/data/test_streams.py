"""Named random streams against a Philox written out in Python, and as literals."""

from __future__ import annotations

import hashlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data import streams

_WORD = 2**64 - 1


def philox_words(key: bytes, count: int) -> list[int]:
    """Philox 4x64 with 10 rounds (Salmon et al., SC 2011), counting from 1 as NumPy does."""
    first, second = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    words: list[int] = []
    for counter in range(1, count // 4 + 2):
        a, b, c, d = counter, 0, 0, 0
        k0, k1 = first, second
        for _ in range(10):
            low, high = 0xD2E7470EE14C6C93 * a, 0xCA5A826395121157 * c
            a, b, c, d = (high >> 64) ^ b ^ k0, high & _WORD, (low >> 64) ^ d ^ k1, low & _WORD
            k0, k1 = (k0 + 0x9E3779B97F4A7C15) & _WORD, (k1 + 0xBB67AE8584CAA73B) & _WORD
        words += [a, b, c, d]
    return words[:count]


@given(st.lists(st.one_of(st.integers(0, 2**31), st.text("abc", max_size=4)), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_raw_bits_are_philox_keyed_by_the_name(key: list[int | str]) -> None:
    digest = hashlib.sha256("\x1f".join(str(part) for part in key).encode()).digest()
    assert streams.raw_bits(9, *key).tolist() == philox_words(digest[:16], 9)


def test_streams_never_drift() -> None:
    assert streams.raw_bits(3, "order", 0, 0).tolist() == [
        645099399989945285,
        3984401129584372112,
        14746686121958320812,
    ]
    assert streams.permutation(8, "order", 0, 0).tolist() == [3, 0, 5, 4, 1, 6, 2, 7]
    assert streams.integers(8, 9, "view", 0, 0, "dy").tolist() == [7, 3, 4, 8, 7, 4, 7, 0]


def test_a_longer_draw_begins_with_the_shorter_one() -> None:
    assert np.array_equal(streams.raw_bits(100, "a", 1)[:7], streams.raw_bits(7, "a", 1))


def test_names_do_not_run_together() -> None:
    draws = [
        streams.raw_bits(1, *key)[0] for key in [("ab",), ("a", "b"), ("b", "a"), ("a", "b", ""), (1, 12), (11, 2)]
    ]
    assert len(set(draws)) == len(draws)


def test_uniform_is_uniform() -> None:
    values = streams.uniform(20_000, "uniform")
    assert values.min() >= 0
    assert values.max() < 1
    assert abs(values.mean() - 0.5) < 0.01
    assert abs(values.var() - 1 / 12) < 0.003
    assert abs(np.corrcoef(values, streams.uniform(20_000, "another"))[0, 1]) < 0.03


def test_integers_reach_every_value_equally() -> None:
    counts = np.bincount(streams.integers(18_000, 9, "integers"), minlength=9)
    assert len(counts) == 9
    assert abs(counts - 2000).max() < 250


@given(st.integers(0, 300))
@settings(max_examples=20, deadline=None)
def test_permutation_has_everything_once(n: int) -> None:
    assert sorted(streams.permutation(n, "p", n).tolist()) == list(range(n))
