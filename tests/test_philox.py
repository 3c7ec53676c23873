"""Philox4x32-10 against Random123's known answers and an integer version written from the paper."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from train import philox
from train.philox import WORD, key_words, philox4x32, philox4x32_torch

KNOWN_ANSWERS = [  # Random123, tests/kat_vectors: counter, key, output
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((WORD,) * 4, (WORD,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]

words = st.integers(0, WORD)
counters = st.tuples(words, words, words, words)
keys = st.tuples(words, words)


def plain_philox(counter, key):
    """Section 3.3 of the paper, with Python's unbounded integers."""
    left0, right0, left1, right1 = counter
    for round_number in range(10):
        key0 = (key[0] + round_number * 0x9E3779B9) % 2**32
        key1 = (key[1] + round_number * 0xBB67AE85) % 2**32
        high0, low0 = divmod(0xD2511F53 * left0, 2**32)
        high1, low1 = divmod(0xCD9E8D57 * left1, 2**32)
        left0, right0, left1, right1 = high1 ^ right0 ^ key0, low1, high0 ^ right1 ^ key1, low0
    return left0, right0, left1, right1


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_known_answers(counter, key, answer):
    tensors = tuple(torch.tensor([word]) for word in counter)
    assert plain_philox(counter, key) == answer
    assert philox4x32(*counter, *key) == answer
    assert philox4x32.py_func(*counter, *key) == answer
    assert tuple(int(word) for word in philox4x32_torch(tensors, key)) == answer


@settings(max_examples=200)
@given(st.lists(counters, min_size=1, max_size=8), keys)
def test_numba_torch_and_plain_agree(several, key):
    expected = [plain_philox(counter, key) for counter in several]
    tensors = tuple(torch.tensor(several).unbind(1))
    assert [philox4x32(*counter, *key) for counter in several] == expected
    assert [tuple(row) for row in torch.stack(philox4x32_torch(tensors, key), 1).tolist()] == (
        expected
    )


def test_tensors_broadcast_with_integers():
    blocks, samples = torch.arange(3), torch.tensor([[7], [WORD]])
    words = philox4x32_torch((blocks, samples, 5, 2), (11, WORD))
    for row, sample in enumerate((7, WORD)):
        for block in range(3):
            got = tuple(int(word[row, block]) for word in words)
            assert got == plain_philox((block, sample, 5, 2), (11, WORD))


def test_key_is_the_two_halves_of_the_seed():
    assert key_words(0x123456789ABCDEF0) == (0x9ABCDEF0, 0x12345678)


def test_no_two_uses_share_a_stream():
    # The dropout layers take DROPOUT and every number above it.
    assert philox.CROP_AND_MIRROR != philox.COLOUR_NOISE
    assert max(philox.CROP_AND_MIRROR, philox.COLOUR_NOISE) < philox.DROPOUT
