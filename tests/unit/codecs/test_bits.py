"""Bits on the wire: packing, the subset code, the quantiser."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysoft.codecs.wire.bits import BitReader, BitWriter, subset_mask, subset_rank
from raysoft.codecs.wire.quantizer import ValueCoder, Values
from raysoft.kernels.subsets import BLOCK, subset_bits
from raysoft.types import Payload


def written(writer: BitWriter) -> Payload:
    payload = writer.payload()
    assert len(payload.data) == (payload.num_bits + 7) // 8
    return payload


@given(st.lists(st.tuples(st.integers(1, 31), st.lists(st.integers(0, 2**31), max_size=9)), max_size=6), st.integers(0))
@settings(max_examples=60, deadline=None)
def test_mixed_fields_come_back(fields, side):
    writer, width = BitWriter(), side.bit_length()
    for bits, numbers in fields:
        writer.integers(np.array([n % 2**bits for n in numbers], dtype=np.int64), bits)
        writer.floats(np.array(numbers, dtype=np.float32), 32)
        writer.floats(np.array([n % 2048 for n in numbers], dtype=np.float32), 16)
    writer.integer(side, width)
    payload = written(writer)
    assert payload.num_bits == sum((bits + 48) * len(numbers) for bits, numbers in fields) + width
    reader = BitReader(payload)
    assert reader.last_integer(width) == side
    for bits, numbers in fields:
        assert reader.integers(len(numbers), bits).tolist() == [n % 2**bits for n in numbers]
        assert reader.floats(len(numbers), 32).tolist() == np.array(numbers, dtype=np.float32).tolist()
        assert reader.floats(len(numbers), 16).tolist() == [n % 2048 for n in numbers]
    assert reader.left == 0


def test_bits_are_big_endian_and_padded_with_zeros():
    writer = BitWriter()
    writer.integers(np.array([5, 1]), 3)
    assert written(writer) == Payload(bytes([0b10100100]), 6)


@pytest.mark.parametrize("read", [lambda r: r.floats(2, 32), lambda r: r.integers(9, 4), lambda r: r.last_integer(33)])
def test_reading_past_the_end_is_refused(read):
    with pytest.raises(ValueError, match="too short"):
        read(BitReader(Payload(bytes(4), 32)))


def test_subset_code_is_a_bijection():
    for total in range(11):
        for count in range(total + 1):
            ranks = set()
            for chosen in combinations(range(total), count):
                mask = np.zeros(total, dtype=bool)
                mask[list(chosen)] = True
                rank = subset_rank(mask)
                ranks.add(rank)
                assert (subset_mask(total, count, rank) == mask).all()
            assert ranks == set(range(math.comb(total, count)))


@given(st.integers(1, 700), st.integers(0, 2**32), st.floats(0, 1))
@settings(max_examples=80, deadline=None)
def test_subset_code_round_trip_in_exact_bits(total, seed, share):
    count = round(share * total)
    mask = np.zeros(total, dtype=bool)
    mask[np.random.default_rng(seed).permutation(total)[:count]] = True
    bits = subset_bits(total, count)
    ways = math.comb(total, count)
    assert 2**bits >= ways > 2**bits // 2 or ways == 1 == 2**bits
    rank = subset_rank(mask)
    assert rank.bit_length() <= bits
    assert (subset_mask(total, count, rank) == mask).all()


@pytest.mark.parametrize(
    "total, count", [(8192, 2048), (BLOCK, BLOCK // 2), (BLOCK, 5), (BLOCK + 1, 4000), (40_000, 900)]
)
def test_large_subsets(total, count):
    rng = np.random.default_rng(total + count)
    bits = subset_bits(total, count)
    entropy = math.ceil(math.log2(math.comb(total, count)))
    blocks = -(-total // BLOCK)
    assert bits == entropy if total <= BLOCK else entropy <= bits <= entropy + 1 + 16 * blocks
    for mask in (np.arange(total) < count, np.arange(total) >= total - count, rng.permutation(total) < count):
        rank = subset_rank(mask)
        assert rank.bit_length() <= bits
        assert (subset_mask(total, count, rank) == mask).all()


def test_subset_bits_refuses_what_cannot_be():
    with pytest.raises(ValueError, match="cannot choose 4 of 3"):
        subset_bits(3, 4)
    with pytest.raises(ValueError, match="no subset of 2 out of 30"):
        subset_mask(30, 2, math.comb(30, 2))


def coded(coder: ValueCoder, values: Values, rng: np.random.Generator) -> np.ndarray:
    writer = BitWriter()
    told = coder.write(writer, values, rng)
    payload = written(writer)
    assert payload.num_bits == coder.size(values.flat.size, len(values.sizes))
    read = coder.read(BitReader(payload), values.sizes)
    assert read.dtype == np.float32
    assert (read == told).all()
    return read.astype(np.float64)


VALUES = Values(np.random.default_rng(5).normal(size=24) * np.repeat([1e-6, 1.0, 300.0], 8), np.array([8, 8, 0, 8]))


@pytest.mark.parametrize("bits", [*range(1, 16), 20, 31])
def test_quantiser_error_is_below_one_step_and_zero_stays(bits):
    values = Values(np.where(np.arange(24) % 5 == 0, 0.0, VALUES.flat), VALUES.sizes)
    read = coded(ValueCoder(bits), values, np.random.default_rng(0))
    peak = np.repeat([np.abs(values.flat[at : at + 8]).max() for at in (0, 8, 16)], 8)
    step = 2 * peak / (max(2**bits - 1, 2) - 1)
    # Scales and results are rounded to float32.
    assert (np.abs(read - values.flat) <= step + 2e-7 * peak).all()
    if bits > 1:
        assert (read[values.flat == 0] == 0).all()


@pytest.mark.parametrize("bits", [1, 2, 3, 8])
def test_quantiser_is_unbiased_with_the_variance_it_tells(bits):
    coder, rng, draws = ValueCoder(bits), np.random.default_rng(bits), 4000
    mean, variance = coder.moments(VALUES)
    assert (mean == VALUES.flat).all()
    sample = np.stack([coded(coder, VALUES, rng) for _ in range(draws)])
    peak = np.repeat([np.abs(VALUES.flat[at : at + 8]).max() for at in (0, 8, 16)], 8)
    step = 2 * peak / (max(2**bits - 1, 2) - 1)
    # The mean of n draws with deviation sigma lies within 5 sigma/sqrt(n) (24 values: 1e-5 in all); float32 adds 2e-7.
    assert (np.abs(sample.mean(0) - mean) <= 5 * np.sqrt(variance / draws) + 2e-7 * peak).all()
    # (x - mean)^2 lies in [0, step^2], so its mean over n draws is within step^2 sqrt(ln(2/1e-6) / 2n) (Hoeffding).
    slack = step**2 * math.sqrt(math.log(2e6) / (2 * draws)) + 1e-6 * peak**2
    assert (np.abs(((sample - mean) ** 2).mean(0) - variance) <= slack).all()


def test_floats_are_rounded_once_and_never_infinite():
    values = Values(np.array([1 / 3, -1e300, 70000.0, 1e-50]), np.array([4]))
    whole = coded(ValueCoder(32), values, np.random.default_rng(0))
    assert whole.tolist() == [float(np.float32(1 / 3)), -float(np.finfo(np.float32).max), 70000.0, 0.0]
    half = coded(ValueCoder(16), values, np.random.default_rng(0))
    assert half.tolist() == [float(np.float16(1 / 3)), -65504.0, 65504.0, 0.0]


def test_all_zero_block_costs_its_bits_and_comes_back_zero():
    values = Values(np.zeros(6), np.array([4, 2]))
    assert (coded(ValueCoder(4), values, np.random.default_rng(0)) == 0).all()
