"""Autocast: a mode at the dispatch point that chooses each operation's precision, by PyTorch's lists.

Parameters that are cast are cast once a block: the copies, with their place in the graph, are kept until it ends.
"""

from __future__ import annotations

import functools
from typing import Any, Callable

from dtrain.autograd.dispatch import Cast, InPlace, apply
from dtrain.autograd.op import Op
from dtrain.autograd.tensor import Tensor
from dtrain.backend import dtypes
from dtrain.backend.state import local
from dtrain.errors import ArgumentError

# Operations by class name. Those in neither list run in the widest dtype of their inputs.
HALF = frozenset(
    """Linear Matmul Einsum Convolve ConvInput ConvWeight Attention""".split()
)
FLOAT32 = frozenset(
    """Softmax LogSoftmax CrossEntropy NllLoss SquaredError AbsoluteError HuberError BinaryCrossEntropy BinaryCrossEntropyWithLogits
    Divergence Standardize Exp Expm1 Log Log2 Log10 Log1p Pow Reciprocal Rsqrt Sum Prod Cumsum Norm2 LogSumExp Softplus Acos Asin Cosh
    Sinh Tan""".split()
)


class autocast:
    """``with autocast("cpu", dtype=dtrain.bfloat16):`` or as a decorator. Per thread; nests; ``enabled=False`` switches it off inside.

    The default dtype is bfloat16 on the CPU and float16 on CUDA, as in PyTorch. Raises ArgumentError for other dtypes or device types.
    """

    def __init__(self, device_type: str = "cpu", dtype: Any = None, enabled: bool = True, cache_enabled: bool | None = None) -> None:
        if device_type not in ("cpu", "cuda"):
            raise ArgumentError(f"autocast expects device_type 'cpu' or 'cuda', got {device_type!r}")
        self.device_type = device_type
        self.dtype = dtypes.as_dtype(dtype) if dtype is not None else (dtypes.float16 if device_type == "cuda" else dtypes.bfloat16)
        if self.dtype not in (dtypes.bfloat16, dtypes.float16):
            raise ArgumentError(f"autocast expects dtype bfloat16 or float16, got {self.dtype}")
        self.enabled = enabled
        self.cache_enabled = cache_enabled is not False
        self._cache: dict[int, tuple[Tensor, Tensor, int]] = {}  # id -> the copy, the weight (kept alive), its version then
        self._before: list[tuple[Any, list]] = []

    def __enter__(self) -> "autocast":
        self._before.append((local.autocast, local.modes))
        others = [mode for mode in local.modes if not isinstance(mode, autocast)]
        local.modes = [*others, self] if self.enabled else others
        local.autocast = self if self.enabled else None
        return self

    def __exit__(self, *exc: Any) -> None:
        local.autocast, local.modes = self._before.pop()
        if not self._before:
            self._cache.clear()

    def __call__(self, *args: Any) -> Any:
        """As a decorator (one function), or, at the dispatch point, as the mode (op, inputs, proceed)."""
        if len(args) == 3:
            return self._dispatch(*args)
        (function,) = args

        @functools.wraps(function)
        def call(*inner: Any, **kwargs: Any) -> Any:
            with autocast(self.device_type, self.dtype, self.enabled, self.cache_enabled):
                return function(*inner, **kwargs)

        return call

    def _dispatch(self, op: Op, inputs: tuple, proceed: Callable) -> Any:
        name = type(op).__name__
        if isinstance(op, (InPlace, Cast)) or not any(_is_float(x) for x in inputs):
            return proceed(op, inputs)
        if name in HALF:
            inputs = tuple([self._cast(x, self.dtype) for x in inputs])
        elif name in FLOAT32:
            inputs = tuple([self._cast(x, dtypes.float32) for x in inputs])
        elif not op.promotes:
            inputs = self._widest(inputs)
        return proceed(op, inputs)

    def _widest(self, inputs: tuple) -> tuple:
        """Inputs of an operation without its own promotion, in one dtype: float32 if any is."""
        kinds = {x._array.dtype for x in inputs if _is_float(x)}
        if len(kinds) < 2:
            return inputs
        wanted = dtypes.float32 if any(k.itemsize == 4 for k in kinds) else self.dtype
        return tuple([self._cast(x, wanted) for x in inputs])

    def _cast(self, x: Any, wanted: dtypes.dtype) -> Any:
        if not _is_float(x) or x._array.dtype == wanted.np:
            return x
        if not (self.cache_enabled and x._rg and x._node is None and wanted is self.dtype):
            return apply(Cast(wanted.np), x)
        found = self._cache.get(id(x))
        if found is None or found[2] != x._vc[0] or (local.grad_enabled and not found[0]._rg):
            found = self._cache[id(x)] = (apply(Cast(wanted.np), x), x, x._vc[0])
        return found[0]


def _is_float(x: Any) -> bool:
    """A floating Tensor that autocast may cast: float64 keeps its precision."""
    return isinstance(x, Tensor) and x._array.dtype.itemsize <= 4 and x._array.dtype.kind in "fV"


def is_autocast_enabled(device_type: str | None = None) -> bool:
    """Whether an autocast block is active in this thread (for ``device_type``, if given)."""
    active = local.autocast
    return active is not None and (device_type is None or active.device_type == device_type)
