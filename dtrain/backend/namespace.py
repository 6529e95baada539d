"""The closed list of array functions that operations may call, as one object per backend.

``FUNCTIONS`` is what forward and backward may use, ``FORWARD_ONLY`` what only forward may. ``autograd`` adds a third
namespace with the same ``FUNCTIONS`` that works on Tensors, so that one ``backward`` serves first and higher order.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Callable

import numpy as np

from dtrain.backend import fast_numpy

FUNCTIONS: tuple[str, ...] = tuple(
    """abs add arccos arcsin arctan broadcast_to clip concatenate cos cosh cumsum exp expand_dims
    expm1 flip floor_divide log log1p matmul maximum mean minimum moveaxis multiply negative power reshape
    sign sin sinh sqrt square squeeze stack subtract sum swapaxes take_along_axis tan tanh transpose tril triu true_divide
    where zeros_like ones_like""".split()
)

FORWARD_ONLY: tuple[str, ...] = tuple(
    """all any arange argmax argmin argsort array ascontiguousarray asarray bitwise_and bitwise_or bitwise_xor ceil copysign copyto cumprod
    diagonal einsum empty empty_like equal eye floor fmod full full_like greater greater_equal invert isfinite isinf isnan less
    less_equal linspace log10 log2 logaddexp logical_and logical_not logical_or logical_xor max min meshgrid nan_to_num nonzero not_equal ones pad
    partition prod put_along_axis remainder repeat rint roll round searchsorted sort split std take tensordot tile trunc unique var
    zeros cbrt exp2 reciprocal minimum maximum isclose allclose array_equal""".split()
)


class Namespace:
    """One backend's functions. ``name`` is numpy, cupy or meta; ``ndarray`` its array class."""

    builds_graph = False

    def __init__(self, name: str, ndarray: type, lookup: Callable[[str], Any]) -> None:
        self.name = name
        self.ndarray = ndarray
        self.is_cuda = name == "cupy"
        self.native_half = False  # CuPy's bfloat16 times a Python scalar is float32, and sums of halves round at every step
        for function in FUNCTIONS + FORWARD_ONLY:
            setattr(self, function, lookup(function))

    def run(self, op: Any, *arrays: Any) -> Any:
        """Another operation's forward, for a backward that is itself an operation."""
        out = op.forward(self, *arrays)
        return self.asarray(out) if isinstance(out, (np.generic, int, float)) else out

    def scatter_add(self, target: Any, index: Any, values: Any) -> None:
        """``target[index] += values`` with repeated indices adding up."""
        fast_numpy.scatter_add(target, index, values)

    def cast(self, array: Any, dtype: Any) -> Any:
        return array.astype(dtype, copy=False)

    def constant(self, value: Any) -> Any:
        """A value that carries no gradient: the raw array itself here."""
        return value

    def __repr__(self) -> str:
        return f"<namespace {self.name}>"


numpy = Namespace("numpy", np.ndarray, lambda name: fast_numpy.OVERRIDES.get(name) or getattr(np, name))
by_type: dict[type, Namespace] = {np.ndarray: numpy}


def of(array: Any) -> Namespace:
    """The namespace of a raw array; CuPy's and meta's are made when first met."""
    found = by_type.get(type(array))
    return found if found is not None else _register(type(array), array)


def _register(kind: type, array: Any) -> Namespace:
    from dtrain.backend import meta

    if isinstance(array, meta.MetaArray):
        made = _meta_namespace()
    elif kind.__module__.split(".")[0] == "cupy":
        made = _cupy_namespace()
    elif isinstance(array, np.ndarray):
        made = numpy
    else:
        raise TypeError(f"expected an array, got {kind.__name__}")
    by_type[kind] = made
    return made


def _meta_namespace() -> Namespace:
    from dtrain.backend import meta

    found = by_type.get(meta.MetaArray)
    if found is None:
        found = by_type[meta.MetaArray] = Namespace("meta", meta.MetaArray, meta.functions.__getitem__)
        found.scatter_add = lambda target, index, values: None  # type: ignore[method-assign]
    return found


def _cupy_namespace() -> Namespace:
    from dtrain.backend import cuda, cuda_functions

    cupy = cuda.cupy()
    found = by_type.get(cupy.ndarray)
    if found is None:
        found = by_type[cupy.ndarray] = Namespace("cupy", cupy.ndarray, lambda name: cuda_functions.lookup(cupy, name))
        found.scatter_add = partial(cuda_functions.scatter_add, cupy)  # type: ignore[method-assign]
    return found


def for_device(kind: str) -> Namespace:
    """The namespace of a device type: ``cpu``, ``cuda`` or ``meta``."""
    if kind == "cpu":
        return numpy
    return _meta_namespace() if kind == "meta" else _cupy_namespace()
