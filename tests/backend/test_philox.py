"""The counter-based stream: published answers, independence of how it is cut up, and fair masks."""

import numpy as np
import pytest

from dtrain.backend import namespace, philox

xp = namespace.numpy
PI = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0)


@pytest.mark.parametrize("counter_and_key, expected", [        # the known answers that Salmon et al. publish with their code
    ((0,) * 6, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 6, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (PI, (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
])
def test_known_answers(counter_and_key, expected):
    counters = [np.array([c], np.uint64) for c in counter_and_key[:4]]
    words = philox.rounds(*counters, *counter_and_key[4:])
    assert tuple(int(w[0]) & 0xFFFFFFFF for w in words) == expected


def test_words_come_block_by_block():
    assert philox.random_uint32(xp, 0, 0, 4).tolist() == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    seed, offset = PI[5] << 32 | PI[4], 5 | 7 << 32
    one = philox.rounds(*[np.array([c], np.uint64) for c in (5, 7, 0, 0)], PI[4], PI[5])
    assert philox.random_uint32(xp, seed, offset, 4).tolist() == [int(w[0]) & 0xFFFFFFFF for w in one]


@pytest.mark.parametrize("cut", [1, 100, 12288, 12289])
def test_any_part_can_be_computed_alone(cut):
    whole = philox.random_uint32(xp, 9, 2**32 - 3, 4 * 13000)
    assert (whole[4 * cut:4 * cut + 401] == philox.random_uint32(xp, 9, 2**32 - 3 + cut, 4 * 13000 - 4 * cut)[:401]).all()


def test_offset_wraps_at_64_bits():
    assert (philox.random_uint32(xp, 1, 2**64 - 1, 8)[4:] == philox.random_uint32(xp, 1, 0, 4)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_uniform_and_normal_have_their_moments(dtype):
    u, z = philox.uniform(xp, 3, 0, 200001, dtype), philox.normal(xp, 3, 0, 200001, dtype)
    assert u.dtype == z.dtype == dtype and u.shape == z.shape == (200001,)
    assert 0 <= u.min() < u.max() < 1 and abs(u.mean() - 0.5) < 0.003 and abs(u.var() - 1 / 12) < 0.001
    assert abs(z.mean()) < 0.01 and abs(z.var() - 1) < 0.02 and abs((z**4).mean() - 3) < 0.1


@pytest.mark.parametrize("p", [0.0, 1e-4, 0.1, 0.5, 1.0])
def test_keep_mask_drops_p(p):
    mask = philox.keep_mask(xp, 3, 0, (500, 2001), p)
    assert mask.shape == (500, 2001) and mask.dtype == bool
    assert abs((~mask).mean() - p) <= 5 * (p * (1 - p) / mask.size) ** 0.5


def test_a_stream_never_gives_a_block_twice():
    stream = philox.Stream(7)
    first, second = stream.take(5), stream.take(1)
    assert (first, second, stream.offset) == ((7, 0), (7, 2), 3)
    other = philox.Stream(0)
    other.set_state(stream.get_state())
    assert (other.seed, other.offset) == (7, 3)
