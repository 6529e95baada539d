"""Random tensors. On the CPU a seed gives PyTorch's own numbers."""

from __future__ import annotations

from typing import Any, Callable

from dtrain.autograd.tensor import Tensor
from dtrain.backend import device as devices
from dtrain.backend import dtypes, namespace
from dtrain.backend import random as rng
from dtrain.backend.state import local
from dtrain.errors import ArgumentError, ShapeError
from dtrain.ops._shape import shape_args
from dtrain.ops.shape import expand


def _draw(kind: str, shape: tuple, dtype: Any, device: Any, generator: Any, requires_grad: bool, *args: Any) -> Tensor:
    place = devices.resolve(device if device is not None else (local.device or "cpu"))
    wanted = dtypes.as_dtype(dtype) if dtype is not None else dtypes.get_default_dtype()
    if place.type == "meta":
        array = namespace.for_device("meta").empty(shape, dtype=wanted.np)
    else:
        source = generator if generator is not None else rng.default_generator(place)
        array = getattr(rng, kind)(shape, wanted, *args, source)
    out = Tensor._wrap(array)
    return out.requires_grad_() if requires_grad else out


def rand(*size: Any, generator: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Uniform numbers in [0, 1)."""
    return _draw("uniform", shape_args(size), dtype, device, generator, requires_grad, 0.0, 1.0)


def randn(*size: Any, generator: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Standard normal numbers."""
    return _draw("normal", shape_args(size), dtype, device, generator, requires_grad, 0.0, 1.0)


def rand_like(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """``rand`` with the shape, dtype and device of ``input``."""
    return rand(tuple(input.shape), dtype=dtype or input.dtype, device=device or input.device, requires_grad=requires_grad)


def randn_like(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """``randn`` with the shape, dtype and device of ``input``."""
    return randn(tuple(input.shape), dtype=dtype or input.dtype, device=device or input.device, requires_grad=requires_grad)


def randint(low: int, high: Any = None, size: Any = None, *, generator: Any = None, dtype: Any = None, device: Any = None) -> Tensor:
    """Uniform integers in [low, high); ``randint(high, size)`` starts at 0."""
    if size is None:
        low, high, size = 0, low, high
    if not low < high:
        raise ArgumentError(f"randint expects low < high, got {low} and {high}")
    return _integers("randint", (low, high, shape_args((size,))), dtype, device, generator)


def randperm(n: int, *, generator: Any = None, dtype: Any = None, device: Any = None) -> Tensor:
    """A random order of 0 .. n - 1."""
    return _integers("randperm", (n,), dtype, device, generator)


def randint_like(input: Tensor, low: int, high: Any = None, *, generator: Any = None, dtype: Any = None, device: Any = None) -> Tensor:
    """``randint`` with the shape, dtype and device of ``input``."""
    low, high = (0, low) if high is None else (low, high)
    return randint(low, high, tuple(input.shape), generator=generator, dtype=dtype or input.dtype, device=device or input.device)


def _integers(kind: str, args: tuple, dtype: Any, device: Any, generator: Any) -> Tensor:
    place, wanted = devices.resolve(device if device is not None else (local.device or "cpu")), dtypes.as_dtype(dtype or dtypes.int64)
    if place.type == "meta":
        return Tensor._wrap(namespace.for_device("meta").empty(args[-1], dtype=wanted.np))
    source = generator if generator is not None else rng.default_generator(place)
    return Tensor._wrap(getattr(rng, kind)(*args, wanted, source))


def normal(mean: Any, std: Any = 1.0, size: Any = None, *, generator: Any = None, dtype: Any = None, device: Any = None) -> Tensor:
    """Normal numbers; ``mean`` and ``std`` are numbers (with ``size``) or tensors that broadcast."""
    if size is not None:
        return _draw("normal", shape_args((size,)), dtype, device, generator, False, mean, std)
    like = mean if isinstance(mean, Tensor) else std
    if not isinstance(like, Tensor):
        raise ArgumentError("normal expects a tensor for mean or std, or a size")
    both = like + 0 * mean if isinstance(mean, Tensor) and isinstance(std, Tensor) else like
    return randn(tuple(both.shape), generator=generator, dtype=like.dtype, device=like.device) * std + mean


def _fill(input: Tensor, generator: Any, draw: Callable[[Any], Any]) -> Tensor:
    """Write ``draw(generator)``, an array of the input's shape, into ``input``."""
    from dtrain.ops.convert import copy_

    drawn = Tensor._wrap(input._array if input.is_meta else draw(generator if generator is not None else rng.default_generator(input.device)))
    if input.is_contiguous() and input._base is None and not (input._rg and local.grad_enabled):
        namespace.of(input._array).copyto(input._array, drawn._array)
        input._vc[0] += 1
        return input
    return copy_(input, drawn)


def uniform_(input: Tensor, a: float = 0.0, b: float = 1.0, *, generator: Any = None) -> Tensor:
    """Fill with uniform numbers in [a, b)."""
    return _fill(input, generator, lambda source: rng.uniform(tuple(input.shape), input.dtype, a, b, source))


def normal_(input: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Any = None) -> Tensor:
    """Fill with normal numbers."""
    return _fill(input, generator, lambda source: rng.normal(tuple(input.shape), input.dtype, mean, std, source))


def exponential_(input: Tensor, lambd: float = 1.0, *, generator: Any = None) -> Tensor:
    """Fill with exponentially distributed numbers of mean 1 / lambd."""
    return _fill(input, generator, lambda source: rng.exponential(tuple(input.shape), input.dtype, lambd, source))


def random_(input: Tensor, low: Any = None, to: Any = None, *, generator: Any = None) -> Tensor:
    """Fill with integers: ``random_(to)`` of [0, to), ``random_(low, to)`` of [low, to), ``random_()`` of all the dtype counts exactly."""
    if low is None and to is None:
        return _fill(input, generator, lambda source: rng.random_integers(tuple(input.shape), input.dtype, source))
    low, to = (0, low) if to is None else (low or 0, to)
    return _fill(input, generator, lambda source: rng.randint(low, to, tuple(input.shape), input.dtype, source))


def bernoulli(input: Tensor, *, generator: Any = None) -> Tensor:
    """1 with the probability that ``input`` gives, else 0; in its dtype."""
    if input.is_meta:
        return Tensor._wrap(input._array)
    source = generator if generator is not None else rng.default_generator(input.device)
    return Tensor._wrap(rng.bernoulli(input._array, source)).to(input.dtype)  # type: ignore[attr-defined]


def bernoulli_(input: Tensor, p: Any = 0.5, *, generator: Any = None) -> Tensor:
    """Fill with 1 at probability ``p`` (a number or a tensor), else 0."""
    if isinstance(p, Tensor):
        p = expand(p, tuple(input.shape))
        return _fill(input, generator, lambda source: rng.bernoulli(p._array, source))
    return _fill(input, generator, lambda source: rng.bernoulli(p, source, tuple(input.shape)))


def multinomial(input: Tensor, num_samples: int, replacement: bool = False, *, generator: Any = None) -> Tensor:
    """Indices drawn with the (unnormalised) probabilities along the last dim; int64, (num_samples,) or (rows, num_samples)."""
    if input.ndim not in (1, 2):
        raise ShapeError(f"multinomial expects 1-D or 2-D probabilities, got shape {tuple(input.shape)}")
    if not replacement and num_samples > input.shape[-1]:
        raise ArgumentError(f"multinomial: cannot draw {num_samples} of {input.shape[-1]} categories without replacement")
    if input.is_meta:
        return Tensor._wrap(namespace.for_device("meta").empty((*input.shape[:-1], num_samples), dtype=dtypes.int64.np))
    source = generator if generator is not None else rng.default_generator(input.device)
    return Tensor._wrap(rng.multinomial(input._array, num_samples, replacement, source))
