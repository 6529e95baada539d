"""Every draw works on each device, in its dtype and shape; a counting stream gives the same numbers on all of them."""

import numpy as np
import pytest

from dtrain.backend import dtypes, namespace, philox, random
from dtrain.backend import device as devices

F32, BF16, F64 = dtypes.float32, dtypes.bfloat16, dtypes.float64


def on_cpu(array):
    return devices.move(array, devices.CPU)


def weights(device):
    return devices.move(np.array([[1.0, 0.0, 3.0], [0.0, 2.0, 0.0]], np.float32), devices.device(device))


DRAWS = {
    "uniform": lambda g, d: random.uniform((400, 5), F32, -1, 3, g),
    "uniform half": lambda g, d: random.uniform((400, 5), BF16, 0, 1, g),
    "normal": lambda g, d: random.normal((400, 5), F32, 1, 0.5, g),
    "normal double": lambda g, d: random.normal((400, 5), F64, 1, 0.5, g),
    "normal half": lambda g, d: random.normal((400, 5), BF16, 1, 0.5, g),
    "randint": lambda g, d: random.randint(-3, 6, (400, 5), dtypes.int64, g),
    "randint 64": lambda g, d: random.randint(-(2**40), 2**41, (400, 5), dtypes.int64, g),
    "integers": lambda g, d: random.random_integers((400, 5), dtypes.uint8, g),
    "randperm": lambda g, d: random.randperm(2000, dtypes.int64, g),
    "bernoulli": lambda g, d: random.bernoulli(0.5, g, (400, 5)),
    "bernoulli of weights": lambda g, d: random.bernoulli(weights(d) / 3, g),
    "exponential": lambda g, d: random.exponential((400, 5), F32, 1.0, g),
    "multinomial": lambda g, d: random.multinomial(weights(d), 1, False, g),
    "multinomial again": lambda g, d: random.multinomial(weights(d), 2000, True, g),
}
MEANS = {
    "uniform": 1, "uniform half": 0.5, "normal": 1, "normal double": 1, "normal half": 1, "randint": 1, "randint 64": 2**39, "integers": 127.5,
    "randperm": 999.5, "bernoulli": 0.5, "exponential": 1, "multinomial again": (1.5 + 1) / 2,
}


@pytest.mark.parametrize("name", DRAWS)
def test_draws(device, name):
    g = random.Generator(device).manual_seed(3)
    first = DRAWS[name](g, device)
    assert devices.device_of(first) == devices.device(device)
    values = on_cpu(first).astype(np.float64)
    assert (values == on_cpu(DRAWS[name](random.Generator(device).manual_seed(3), device)).astype(np.float64)).all()
    if values.size > 100:
        assert (values != on_cpu(DRAWS[name](g, device)).astype(np.float64)).any()
        assert abs(values.mean() - MEANS[name]) < 6 * values.std() / values.size**0.5


def test_state_of_every_kind_of_generator(device):
    g = random.Generator(device).manual_seed(3)
    random.normal(5, F32, 0, 1, g)
    place, expected = g.get_state(), on_cpu(random.normal(5, F32, 0, 1, g))
    assert (on_cpu(random.normal(5, F32, 0, 1, g.set_state(place))) == expected).all()
    assert random.Generator(device).set_state(place).initial_seed() == 3


def test_masks_are_the_same_on_every_device(device):
    xp = namespace.for_device(device.partition(":")[0])
    random.manual_seed(8)
    masks = [random.dropout_mask(xp, (7, 33), 0.3) for _ in range(2)]
    expected = [philox.keep_mask(namespace.numpy, 8, offset, (7, 33), 0.3) for offset in (0, 58)]
    assert all((on_cpu(m) == e).all() for m, e in zip(masks, expected))


def test_numbers_of_a_stream_are_the_same_on_every_device(device):
    xp = namespace.for_device(device.partition(":")[0])
    assert (on_cpu(philox.random_uint32(xp, 5, 2**32 - 1, 1001)) == philox.random_uint32(namespace.numpy, 5, 2**32 - 1, 1001)).all()
    np.testing.assert_allclose(on_cpu(philox.normal(xp, 5, 0, 1001)), philox.normal(namespace.numpy, 5, 0, 1001), rtol=1e-5, atol=1e-6)


def test_a_devices_default_generator_starts_from_the_ranks_seed():
    random.manual_seed(21)
    assert random.default_generator("cuda:0").initial_seed() == 21
    random.manual_seed(22)
    assert random.default_generator("cuda:0").initial_seed() == 22
    place = random.get_rng_state("cuda:0").tolist()
    with random.fork_rng(devices=[0]):
        random.uniform(3, F32, generator=random.default_generator("cuda:0"))
    assert random.get_rng_state("cuda:0").tolist() == place
