"""The entropy coder of quantised updates: what is written comes back, in the bits that are announced."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from raysoft.codecs.wire.bits import BitReader, BitWriter, subset_masks, subset_rank, subset_ranks
from raysoft.codecs.wire.symbols import Symbols, read_symbols, symbol_bits, write_symbols
from raysoft.kernels.subsets import subset_bits
from raysoft.types import Payload

sizes = st.lists(st.integers(0, 150), max_size=8)


def drawn(lengths: list[int], seed: int, share: float, largest: int) -> Symbols:
    """A share of entries is not zero, most of those small."""
    rng = np.random.default_rng(seed)
    total = sum(lengths)
    magnitudes = np.minimum(rng.geometric(0.6, total) ** rng.integers(1, 12, total), largest)
    values = np.where(rng.random(total) < share, magnitudes * rng.choice([-1, 1], total), 0)
    return Symbols(values.astype(np.int64), np.array(lengths, dtype=np.int64))


def payload(symbols: Symbols) -> Payload:
    writer = BitWriter()
    write_symbols(writer, symbols)
    return writer.payload()


@given(sizes, st.integers(0, 2**32), st.floats(0, 1), st.sampled_from([1, 2, 3, 100, 2**20]))
@settings(max_examples=150, deadline=None)
@example([], 0, 0.5, 9)
@example([0, 0], 0, 0.5, 9)
@example([7, 0, 66, 67, 7], 1, 1.0, 9)
@example([1, 1, 1], 1, 1.0, 1)
@example([133, 20], 1, 0.0, 9)
def test_symbols_come_back_in_the_announced_bits(lengths, seed, share, largest):
    symbols = drawn(lengths, seed, share, largest)
    written = payload(symbols)
    assert written.num_bits == symbol_bits(symbols)
    assert symbol_bits(Symbols(np.abs(symbols.values).astype(float), symbols.lengths)) == written.num_bits
    reader = BitReader(written)
    assert (read_symbols(reader, symbols.lengths).values == symbols.values).all()
    assert reader.left == 0


def test_every_small_list_has_its_own_payload():
    """Exhaustive: 5^4 lists in blocks of 3 and 1."""
    lengths = np.array([3, 1])
    seen = set()
    for values in product((-2, -1, 0, 1, 3), repeat=4):
        written = payload(Symbols(np.array(values), lengths))
        assert read_symbols(BitReader(written), lengths).values.tolist() == list(values)
        seen.add((written.data, written.num_bits))
    assert len(seen) == 5**4


def test_places_cost_their_entropy_and_a_few_bits_for_the_counts():
    """Ones and zeros of one frequency: log2 of the number of lists with these counts, signs, and Rice codes."""
    lengths = np.full(200, 64)
    symbols = drawn(lengths.tolist(), 0, 0.1, 1)
    counts = (symbols.values.reshape(200, 64) != 0).sum(axis=1)
    ways = math.prod(math.comb(64, int(k)) for k in counts)
    rice = min(4 + sum((int(c) >> k) + 1 + k for c in counts) for k in range(16))
    used = int(counts.sum())
    needed = (ways - 1).bit_length() + rice + used + used.bit_length()
    assert needed <= symbol_bits(symbols) <= needed + 1
    entropy = -64 * 200 * (0.1 * math.log2(0.1) + 0.9 * math.log2(0.9))
    assert symbol_bits(symbols) < 1.12 * (entropy + used)


@given(st.integers(1, 300), st.integers(1, 6), st.integers(0, 2**32), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_subsets_of_many_blocks_are_those_of_each(size, blocks, seed, share):
    mask = np.random.default_rng(seed).random((blocks, size)) < share
    ranks = subset_ranks(mask)
    assert ranks == [subset_rank(row) for row in mask]
    counts = mask.sum(axis=1).tolist()
    assert all(0 <= rank < math.comb(size, count) for rank, count in zip(ranks, counts, strict=True))
    assert (subset_masks(size, counts, ranks) == mask).all()


@given(st.lists(st.integers(0, 300), max_size=20), st.integers(0, 2**200), st.integers(0, 9))
@settings(max_examples=80, deadline=None)
def test_unary_and_wide_integers_come_back(numbers, wide, shift):
    writer = BitWriter()
    writer.integer(0, shift)  # nothing is aligned
    writer.unary(np.array(numbers, dtype=np.int64))
    writer.integer(wide, wide.bit_length())
    written = writer.payload()
    assert written.num_bits == shift + sum(numbers) + len(numbers) + wide.bit_length()
    reader = BitReader(written)
    assert reader.integer(shift) == 0
    assert reader.unary(len(numbers)).tolist() == numbers
    assert reader.integer(wide.bit_length()) == wide
    assert reader.left == 0


def test_bits_of_unary_and_integer():
    writer = BitWriter()
    writer.unary(np.array([2, 0, 1]))
    writer.integer(5, 4)
    assert writer.payload() == Payload(bytes([0b11001001, 0b01000000]), 10)
    with pytest.raises(ValueError, match="2 numbers wanted, 1 found"):
        BitReader(Payload(bytes([0b11011111]), 8)).unary(2)
    with pytest.raises(ValueError, match="too short: 9 bits"):
        BitReader(Payload(bytes([0]), 8)).integer(9)


def test_malformed_payloads_are_refused():
    lengths = np.array([10, 3])

    def refused(fields: list[tuple[int, int]], text: str) -> None:
        writer = BitWriter()
        for value, bits in fields:
            writer.integer(value, bits)
        with pytest.raises(ValueError, match=text):
            read_symbols(BitReader(writer.payload()), lengths)

    counts = [(0, 4), (0b11110, 5), (0b0, 1)]  # Rice parameter 0: four of ten, none of three
    refused([(0, 4), (0b0, 1), (0b11110, 5)], "more non-zero entries than entries")
    refused([*counts, (210, 8)], "does not exist")  # C(10, 4) = 210
    refused([*counts, (0, 8), (7, 3), (0, 40)], "cannot choose 7 of 4")
    refused([*counts, (0, 8), (2, 3), (6, 3), (0, 40)], "no subset of 2 out of 4 has this number")
    refused([*counts, (0, 8), (0, 3), (0, 3)], "too short: 4 bits wanted, 3 left")
    refused([*counts, (0, 8), (4, 3), (0, 4), (0, 4), (0b1111, 4)], "4 numbers wanted, 0 found")


@given(st.integers(0, 2**32), st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_symbols_or_a_value_error(seed, data):
    lengths = np.random.default_rng(seed).integers(0, 40, 5)
    try:
        symbols = read_symbols(BitReader(Payload(data, 8 * len(data))), lengths)
    except ValueError:
        return
    assert symbols.values.shape == (lengths.sum(),)


def test_a_long_list_that_contradicts_its_count_is_refused():
    """Lists beyond the exact code carry their own counts, which may not agree with the one in front."""
    lengths = np.array([20_000])
    values = np.ones(20_000, dtype=np.int64)
    values[3:9_000:7] = 3
    written = payload(Symbols(values, lengths))
    assert (read_symbols(BitReader(written), lengths).values == values).all()
    writer = BitWriter()
    writer.integer(14, 4)  # Rice parameter of the counts: 20000 = 1 * 2^14 + 3616
    writer.integer(0b10, 2)
    writer.integer(20_000 - 2**14, 14)
    writer.integer(0, 1)  # the one way to choose all
    writer.integer(500, 15)
    writer.integer(0, subset_bits(20_000, 500))  # no large magnitude in any block
    with pytest.raises(ValueError, match="500 magnitudes above one are announced, 0 are named"):
        read_symbols(BitReader(writer.payload()), lengths)
