"""Tensor: a raw array, its place in the graph, and PyTorch's surface. Operations are attached by ``ops/table.py``."""

from __future__ import annotations

from typing import Any, Callable, Iterator

import numpy as np

from dtrain.backend import device as devices
from dtrain.backend import dtypes
from dtrain.backend.state import local
from dtrain.errors import DeviceError, GraphError, ShapeError, UnsupportedError

Size = tuple


class Tensor:
    """A multi-dimensional array on one device that autograd follows. Make one with ``dtrain.tensor`` and its kin."""

    __slots__ = (
        "_array",  # the raw array: NumPy, CuPy or meta
        "_vc",  # version counter, a one-element list that views share
        "_rg",  # requires grad
        "_grad",
        "_node",  # the Op that made it, None for leaves
        "_port",  # which output of that Op
        "_base",  # the tensor whose memory it shares, for differentiable views
        "_chain",  # the view operations from the base
        "_seen",  # version of the base at which _node was made
        "_more",  # hooks, gradient slot: a dict, or None
        "__dict__",
        "__weakref__",
    )
    __array_priority__ = 1000
    __array_ufunc__ = None

    def __new__(cls, *args: Any, **kwargs: Any) -> "Tensor":
        self = object.__new__(cls)
        self._vc = [0]
        self._rg = False
        self._grad = self._node = self._base = self._chain = self._more = None
        self._port = self._seen = 0
        return self

    def __init__(self, data: Any = (), *, dtype: Any = None, device: Any = None) -> None:
        self._array = as_array(data, dtype or dtypes.get_default_dtype(), device)

    @classmethod
    def _wrap(cls, array: Any) -> "Tensor":
        """A tensor of ``array`` itself, without a copy, outside the graph."""
        self = object.__new__(cls)
        self._array = array
        self._vc = [0]
        self._rg = False
        self._grad = self._node = self._base = self._chain = self._more = None
        self._port = self._seen = 0
        return self

    # -- what it is -------------------------------------------------------------------------------------------------
    @property
    def shape(self) -> Size:
        return self._array.shape

    @property
    def dtype(self) -> dtypes.dtype:
        return dtypes.from_numpy(self._array.dtype)

    @property
    def device(self) -> devices.device:
        return devices.device_of(self._array)

    @property
    def ndim(self) -> int:
        return self._array.ndim

    @property
    def is_leaf(self) -> bool:
        return self.grad_fn is None

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def is_meta(self) -> bool:
        return self.device.type == "meta"

    @property
    def itemsize(self) -> int:
        return self._array.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self._array.size * self._array.dtype.itemsize

    @property
    def _version(self) -> int:
        return self._vc[0]

    @property
    def grad_fn(self) -> Any:
        if self._base is not None and self.requires_grad:
            from dtrain.autograd import views

            views.refresh(self)
        return self._node

    def size(self, dim: int | None = None) -> Any:
        return self._array.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        return self._array.ndim

    ndimension = dim

    def numel(self) -> int:
        return self._array.size

    nelement = numel

    def element_size(self) -> int:
        return self._array.dtype.itemsize

    def stride(self, dim: int | None = None) -> Any:
        size = self._array.dtype.itemsize
        strides = tuple(s // size for s in self._array.strides)
        return strides if dim is None else strides[dim]

    def is_contiguous(self) -> bool:
        return bool(self._array.flags.c_contiguous)

    def is_floating_point(self) -> bool:
        return self.dtype.is_floating_point

    def is_complex(self) -> bool:
        return self.dtype.is_complex

    def data_ptr(self) -> int:
        array = self._array
        return array.data.ptr if self.is_cuda else array.__array_interface__["data"][0]

    # -- autograd ---------------------------------------------------------------------------------------------------
    @property
    def requires_grad(self) -> bool:
        if self._base is not None and not self._rg:
            from dtrain.autograd import views

            return views.awakened(self)
        return self._rg

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> "Tensor":
        """Start (or stop) recording operations on this leaf. Raises GraphError for integers and for non-leaves."""
        if self._node is not None:
            if requires_grad:
                return self
            raise GraphError("only leaf tensors can stop requiring a gradient; use .detach() for a tensor without history")
        if requires_grad and not (self.dtype.is_floating_point or self.dtype.is_complex):
            raise GraphError(f"only floating point tensors can require gradients, got {self.dtype}; convert with .float() first")
        self._rg = bool(requires_grad)
        return self

    @property
    def grad(self) -> "Tensor | None":
        return self._grad

    @grad.setter
    def grad(self, value: "Tensor | None") -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise TypeError(f"grad must be a Tensor or None, got {type(value).__name__}")
            if value.shape != self.shape:
                raise ShapeError(f"grad of shape {tuple(value.shape)} assigned to a tensor of shape {tuple(self.shape)}")
        self._grad = value

    def backward(self, gradient: Any = None, retain_graph: bool | None = None, create_graph: bool = False, inputs: Any = None) -> None:
        """Add d(self)/d(leaf) to ``.grad`` of every leaf. ``gradient`` (same shape) is needed unless self has one element."""
        from dtrain.autograd import engine

        engine.backward(self, gradient, retain_graph, create_graph, inputs)

    def retain_grad(self) -> None:
        """Keep ``.grad`` of this non-leaf tensor in the next backward."""
        from dtrain.autograd import hooks

        hooks.retain_grad(self)

    @property
    def retains_grad(self) -> bool:
        return bool(self._more and self._more.get("retains"))

    def register_hook(self, hook: Callable) -> Any:
        """Call ``hook(grad)`` when the gradient of this tensor is computed; what it returns replaces the gradient."""
        from dtrain.autograd import hooks

        return hooks.register(self, hook)

    def register_post_accumulate_grad_hook(self, hook: Callable) -> Any:
        """Call ``hook(self)`` as soon as a backward has completed this leaf's ``.grad``."""
        from dtrain.autograd import hooks

        return hooks.register_post(self, hook)

    def detach(self) -> "Tensor":
        """The same memory outside the graph; writes to either are seen by both."""
        out = Tensor._wrap(self._array)
        out._vc = self._vc
        return out

    def detach_(self) -> "Tensor":
        self._node, self._rg, self._port = None, False, 0
        self._base = self._chain = None
        return self

    @property
    def data(self) -> "Tensor":
        return Tensor._wrap(self._array)

    @data.setter
    def data(self, value: "Tensor") -> None:
        self._array = value._array

    # -- leaving dtrain ---------------------------------------------------------------------------------------------
    def item(self) -> Any:
        """The value of a one-element tensor as a Python number."""
        if self._array.size != 1:
            raise ShapeError(f"item() needs a tensor of one element, got shape {tuple(self.shape)}; use tolist()")
        value = self._array.item()
        return float(value) if self._array.dtype.kind == "V" else value

    def tolist(self) -> Any:
        array = self.detach().cpu()._array
        return (array.astype(np.float32) if array.dtype.kind == "V" else array).tolist()

    def numpy(self, *, force: bool = False) -> np.ndarray:
        """A NumPy array that shares this CPU tensor's memory; ``force`` detaches and copies from other devices."""
        if self._rg and not force:
            raise GraphError("numpy() on a tensor that requires grad would leave the graph; use .detach().numpy()")
        if type(self._array) is not np.ndarray:
            if not force:
                raise DeviceError(f"numpy() on a tensor on {self.device}; use .cpu().numpy()")
            return self.detach().cpu()._array
        return self._array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy()
        return np.array(array, dtype=dtype, copy=copy)

    def __dlpack__(self, **kwargs: Any) -> Any:
        if self._rg:
            raise BufferError("a tensor that requires grad cannot be exported; use .detach()")
        return self._array.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()

    # -- Python protocols -------------------------------------------------------------------------------------------
    def __len__(self) -> int:
        if self._array.ndim == 0:
            raise TypeError("len() of a 0-dim tensor")
        return self._array.shape[0]

    def __iter__(self) -> Iterator["Tensor"]:
        if self._array.ndim == 0:
            raise TypeError("iteration over a 0-dim tensor; use .item()")
        return iter(self.unbind(0))  # type: ignore[attr-defined]

    def __bool__(self) -> bool:
        if self._array.size != 1:
            raise ShapeError(
                f"the truth value of a tensor of shape {tuple(self.shape)} is ambiguous; use .any() or .all()"
            )
        return bool(self._array)

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if not np.issubdtype(self._array.dtype, np.integer):
            raise TypeError(f"only integer tensors of one element can be an index, got {self.dtype}")
        return int(self.item())

    def __complex__(self) -> complex:
        return complex(self.item())

    __hash__ = object.__hash__

    def __contains__(self, value: Any) -> bool:
        return bool((self == value).any())  # type: ignore[attr-defined]

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self._array.ndim == 0 and spec else str(self)

    def __repr__(self) -> str:
        from dtrain.autograd import printing

        return printing.show(self)

    def __deepcopy__(self, memo: dict) -> "Tensor":
        if self._node is not None:
            raise GraphError("only leaf tensors can be deep-copied; use .detach().clone()")
        if id(self) in memo:
            return memo[id(self)]
        out = type(self)._wrap(self._array.copy())
        out._rg = self._rg
        memo[id(self)] = out
        if self._grad is not None:
            out._grad = self._grad.__deepcopy__(memo)
        return out

    def __reduce_ex__(self, protocol: int) -> Any:
        if self._node is not None:
            raise GraphError("only leaf tensors can be pickled; use .detach() first")
        return _rebuild, (type(self), np.asarray(self.detach().cpu()._array, order="C"), str(self.device), self._rg)

    def __setstate__(self, state: Any) -> None:
        raise UnsupportedError("tensors are rebuilt by their constructor, not from a state")


def _rebuild(kind: type, array: np.ndarray, device: str, requires_grad: bool) -> Tensor:
    out = kind._wrap(devices.move(array, devices.device(device)))  # type: ignore[attr-defined]
    out._rg = requires_grad
    return out


def as_array(data: Any, dtype: Any = None, device: Any = None) -> Any:
    """A new raw array of ``data`` (numbers, nested lists, arrays, Tensors) on ``device``, with PyTorch's default dtypes."""
    if isinstance(data, Tensor):
        array = data._array.copy()
        place = device if device is not None else data.device
    else:
        array = np.array(_unwrap_nested(data)) if not hasattr(data, "__cuda_array_interface__") else data
        place = device if device is not None else (local.device or "cpu")
        if isinstance(array, np.ndarray):
            array = _default_precision(array, data)
    if dtype is not None:
        array = array.astype(dtypes.as_dtype(dtype).np, copy=False)
    return devices.move(array, devices.device(place))


def _default_precision(array: np.ndarray, data: Any) -> np.ndarray:
    dtypes.from_numpy(array.dtype)  # refuses strings, objects and the like by name
    if array.dtype == np.float64 and not hasattr(data, "dtype") and not _holds_float64(data):
        return array.astype(dtypes.get_default_dtype().np)
    return array


def _holds_float64(data: Any) -> bool:
    while isinstance(data, (list, tuple)) and data:
        data = data[0]
    return isinstance(data, (np.float64, np.ndarray, Tensor)) and getattr(data, "dtype", None) in (np.float64, dtypes.float64)


def _unwrap_nested(data: Any) -> Any:
    if isinstance(data, (list, tuple)):
        return [_unwrap_nested(x) for x in data]
    return data.detach().cpu()._array if isinstance(data, Tensor) else data
