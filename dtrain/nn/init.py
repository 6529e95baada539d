"""Initial values of parameters, in place and outside the graph. On the CPU a seed gives PyTorch's numbers.

Every function returns the tensor it filled. ``generator`` is a dtrain.Generator; None means the default one.
"""

from __future__ import annotations

import functools
import math
import warnings
from typing import Any, Callable

import numpy as np

from dtrain.autograd.grad_mode import no_grad
from dtrain.autograd.tensor import Tensor
from dtrain.errors import ArgumentError, ShapeError

_UNIT_GAIN = frozenset("linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d sigmoid".split())
_GAINS = {"tanh": 5.0 / 3, "relu": math.sqrt(2.0), "selu": 3.0 / 4}


def _in_place(fill: Callable) -> Callable:
    """Run without recording, and return the tensor."""

    @functools.wraps(fill)
    def call(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        with no_grad():
            fill(tensor, *args, **kwargs)
        return tensor

    return call


@_in_place
def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Any = None) -> Tensor:
    """Uniform in [a, b)."""
    return tensor.uniform_(a, b, generator=generator)


@_in_place
def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> Tensor:
    """Normal with the given mean and standard deviation."""
    return tensor.normal_(mean, std, generator=generator)


@_in_place
def trunc_normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0, generator: Any = None) -> Tensor:
    """Normal, with values outside [a, b] drawn again."""
    if tensor.is_meta:
        return tensor
    if not a <= b:
        raise ArgumentError(f"trunc_normal_ needs a <= b, got a={a}, b={b}")
    if mean < a - 2 * std or mean > b + 2 * std:
        warnings.warn(f"trunc_normal_: mean {mean} is more than two std ({std}) outside [{a}, {b}]; expect values near the edge", stacklevel=3)
    inside = _normal_cdf((b - mean) / std) - _normal_cdf((a - mean) / std)
    redraw = _redraw_outside if inside > 0.3 else _redraw_by_density
    return redraw(tensor, mean, std, a, b, generator)


def _normal_cdf(x: float) -> float:
    return (1.0 + math.erf(x / math.sqrt(2.0))) / 2.0


def _redraw_outside(tensor: Tensor, mean: float, std: float, a: float, b: float, generator: Any) -> Tensor:
    """Draw from the normal until all lies in the interval: cheap when most of the mass is there."""
    low, high = (tensor.new_tensor(x, device="cpu").item() for x in (a, b))
    out = tensor.normal_(mean, std, generator=generator)
    while (outside := (out < low) | (out > high)).any():
        out = _where(outside, _like(out).normal_(mean, std, generator=generator), out)
    return out if out is tensor else tensor.copy_(out)


def _redraw_by_density(tensor: Tensor, mean: float, std: float, a: float, b: float, generator: Any) -> Tensor:
    """Draw uniformly in the interval and accept with the density's ratio to its peak there: for tails."""
    mode = max(a, min(mean, b))
    log_peak = -0.5 * ((mode - mean) / std) ** 2

    def refused(candidates: Tensor) -> Tensor:
        log_density = ((candidates - mean) / std).square() * -0.5 - log_peak
        return _like(tensor).uniform_(generator=generator).log().gt(log_density)

    tensor.uniform_(a, b, generator=generator)
    out, pending = tensor, refused(tensor)
    while pending.any():
        candidates = _like(tensor).uniform_(a, b, generator=generator)
        out = _where(pending, candidates, out)
        pending = _where(pending, refused(candidates), pending)
    return out if out is tensor else tensor.copy_(out)


def _where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    from dtrain.ops.elementwise import where

    return where(condition, a, b)


def _like(tensor: Tensor) -> Tensor:
    from dtrain.ops.creation import empty_like

    return empty_like(tensor)


@_in_place
def constant_(tensor: Tensor, val: float) -> Tensor:
    """All elements ``val``."""
    return tensor.fill_(val)


@_in_place
def ones_(tensor: Tensor) -> Tensor:
    """All ones."""
    return tensor.fill_(1.0)


@_in_place
def zeros_(tensor: Tensor) -> Tensor:
    """All zeros."""
    return tensor.zero_()


@_in_place
def eye_(tensor: Tensor) -> Tensor:
    """The identity, for a 2-D tensor: ones on the main diagonal."""
    if tensor.ndim != 2:
        raise ShapeError(f"eye_ fills 2-D tensors, got shape {tuple(tensor.shape)}")
    return _copy(tensor, np.eye(*tensor.shape))


@_in_place
def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """A convolution's weight (3-D to 5-D) that passes its input channels through, in each of ``groups``."""
    if tensor.ndim not in (3, 4, 5):
        raise ShapeError(f"dirac_ fills weights of convolutions (3-D to 5-D), got shape {tuple(tensor.shape)}")
    out_channels, per_group = tensor.shape[0], tensor.shape[1]
    if out_channels % groups:
        raise ArgumentError(f"dirac_: {out_channels} output channels do not divide into {groups} groups")
    values = np.zeros(tuple(tensor.shape))
    centre = tuple(n // 2 for n in tensor.shape[2:])
    size = out_channels // groups
    for row in range(out_channels):
        if row % size < per_group:
            values[(row, row % size, *centre)] = 1
    return _copy(tensor, values)


def _copy(tensor: Tensor, values: np.ndarray) -> Tensor:
    return tensor if tensor.is_meta else tensor.copy_(Tensor._wrap(values))


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which a layer before this nonlinearity ("relu", "leaky_relu" with slope ``param``, ...) widens its weights."""
    if nonlinearity in _UNIT_GAIN:
        return 1
    if nonlinearity in _GAINS:
        return _GAINS[nonlinearity]
    if nonlinearity != "leaky_relu":
        raise ArgumentError(f"no gain is known for {nonlinearity!r}; there are {', '.join(sorted(_UNIT_GAIN | {*_GAINS, 'leaky_relu'}))}")
    if param is not None and (isinstance(param, bool) or not isinstance(param, (int, float))):
        raise ArgumentError(f"the slope of leaky_relu is a number, got {param!r}")
    return math.sqrt(2.0 / (1 + (0.01 if param is None else param) ** 2))


def _calculate_fan_in_and_fan_out(tensor: Tensor) -> tuple[int, int]:
    """Connections into and out of one unit of a weight, (out, in, *kernel)."""
    if tensor.ndim < 2:
        raise ShapeError(f"fan in and fan out need a weight of at least 2 dimensions, got shape {tuple(tensor.shape)}")
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def _calculate_correct_fan(tensor: Tensor, mode: str) -> int:
    modes = ("fan_in", "fan_out")
    if mode.lower() not in modes:
        raise ArgumentError(f"mode is one of {', '.join(modes)}, got {mode!r}")
    return _calculate_fan_in_and_fan_out(tensor)[modes.index(mode.lower())]


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Uniform with variance 2 gain^2 / (fan_in + fan_out). Glorot and Bengio 2010."""
    bound = math.sqrt(3.0) * gain * math.sqrt(2.0 / float(sum(_calculate_fan_in_and_fan_out(tensor))))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Normal with variance 2 gain^2 / (fan_in + fan_out). Glorot and Bengio 2010."""
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / float(sum(_calculate_fan_in_and_fan_out(tensor)))), generator)


def kaiming_uniform_(tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: Any = None) -> Tensor:
    """Uniform with variance gain^2 / fan; ``a`` is the slope of leaky_relu. He et al. 2015."""
    if _is_empty(tensor):
        return tensor
    bound = math.sqrt(3.0) * (calculate_gain(nonlinearity, a) / math.sqrt(_calculate_correct_fan(tensor, mode)))
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: Any = None) -> Tensor:
    """Normal with variance gain^2 / fan; ``a`` is the slope of leaky_relu. He et al. 2015."""
    if _is_empty(tensor):
        return tensor
    return normal_(tensor, 0.0, calculate_gain(nonlinearity, a) / math.sqrt(_calculate_correct_fan(tensor, mode)), generator)


def _is_empty(tensor: Tensor) -> bool:
    if 0 not in tensor.shape:
        return False
    warnings.warn(f"initialising a tensor without elements, shape {tuple(tensor.shape)}, does nothing", stacklevel=3)
    return True


@_in_place
def orthogonal_(tensor: Tensor, gain: float = 1, generator: Any = None) -> Tensor:
    """A (semi-)orthogonal matrix times ``gain``, trailing dims flattened. Saxe et al. 2013."""
    if tensor.ndim < 2:
        raise ShapeError(f"orthogonal_ fills tensors of 2 or more dimensions, got shape {tuple(tensor.shape)}")
    if tensor.is_meta or not tensor.numel():
        return tensor
    rows = tensor.shape[0]
    drawn = tensor.new_empty(rows, tensor.numel() // rows).normal_(0, 1, generator=generator)
    flat = drawn.cpu().numpy()
    wide = flat.shape[0] < flat.shape[1]
    work = np.float64 if flat.dtype == np.float64 else np.float32
    q, r = np.linalg.qr((flat.T if wide else flat).astype(work))
    q *= np.sign(np.diag(r))
    return tensor.copy_(Tensor._wrap(np.ascontiguousarray(q.T if wide else q).reshape(tensor.shape) * work(gain)))


@_in_place
def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Any = None) -> Tensor:
    """Normal, with the fraction ``sparsity`` of every column (of a 2-D tensor) zero. Martens 2010."""
    from dtrain.ops.random import randperm

    if tensor.ndim != 2:
        raise ShapeError(f"sparse_ fills 2-D tensors, got shape {tuple(tensor.shape)}")
    if tensor.is_meta:
        return tensor
    rows, columns = tensor.shape
    tensor.normal_(0, std, generator=generator)
    kept = np.ones((rows, columns))
    for column in range(columns):
        kept[randperm(rows).numpy()[: math.ceil(sparsity * rows)], column] = 0
    return tensor.mul_(tensor.new_tensor(kept))
