"""Building the ONNX graph: names, constants, nodes; and sizes computed inside the graph."""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dtrain.autograd.tensor import Tensor
from dtrain.backend import dtypes
from dtrain.errors import UnsupportedError
from dtrain.onnx.sizes import Dim, is_dynamic

TYPES = {
    dtypes.float32: TensorProto.FLOAT, dtypes.float64: TensorProto.DOUBLE, dtypes.float16: TensorProto.FLOAT16,
    dtypes.bfloat16: TensorProto.BFLOAT16, dtypes.int64: TensorProto.INT64, dtypes.int32: TensorProto.INT32,
    dtypes.int16: TensorProto.INT16, dtypes.int8: TensorProto.INT8, dtypes.uint8: TensorProto.UINT8, dtypes.bool: TensorProto.BOOL,
}  # fmt: skip
_SMALL = 1 << 16  # bytes; constants up to here are stored once for equal values


class Graph:
    """An ONNX graph under construction. Tensors are found by identity; those it has not seen are constants.

    All nodes are pure, so that asking twice for the same node gives the first one's output.
    """

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.nodes: list = []
        self.initializers: list = []
        self._names: dict[int, tuple[str, Tensor, int]] = {}  # id -> name, the tensor (kept alive), its version
        self._weights: dict[int, tuple[str, Any]] = {}  # id of the array -> name, the array
        self._made: dict[tuple, Any] = {}
        self._used: set[str] = set()

    # -- names ------------------------------------------------------------------------------------------------------
    def reserve(self, names: Sequence[str]) -> None:
        """Keep names for inputs and outputs."""
        self._used.update(names)

    def fresh(self, hint: str, plain: bool = False) -> str:
        """A name not used so far: the hint itself (if ``plain``), or with a number."""
        name, count = hint, 0
        while name in self._used or not (plain or count):
            count += 1
            name = f"{hint}_{count}"
        self._used.add(name)
        return name

    def bind(self, tensor: Tensor, name: str) -> None:
        """From here on ``tensor`` is the value called ``name``."""
        self._names[id(tensor)] = name, tensor, tensor._vc[0]

    def weight(self, name: str, tensor: Tensor) -> None:
        """Remember a parameter or buffer; it becomes an initializer of this name when it is used."""
        self._weights.setdefault(id(tensor._array), (name, tensor._array))

    def value(self, x: Tensor) -> str:
        """The name of a tensor's value; weights and constants are added on first use."""
        found = self._names.get(id(x))
        if found is None or found[2] != x._vc[0]:
            self.bind(x, self._weight_or_constant(x._array))
            found = self._names[id(x)]
        return found[0]

    def _weight_or_constant(self, array: Any) -> str:
        if id(array) not in self._weights:
            return self.constant(on_host(array))
        hint, _ = self._weights[id(array)]
        key = ("weight", id(array))
        if key not in self._made:
            self._made[key] = self._store(self.fresh(hint, plain=True), on_host(array))
        return self._made[key]

    def _store(self, name: str, array: np.ndarray) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def constant(self, array: Any, dtype: Any = None) -> str:
        """The name of a constant array (int64 from Python ints)."""
        array = np.asarray(array, dtype)
        if array.nbytes > _SMALL:
            return self._store(self.fresh("constant"), array)
        key = ("constant", array.dtype.name, array.shape, array.tobytes())
        if key not in self._made:
            self._made[key] = self._store(self.fresh("constant"), array)
        return self._made[key]

    def node(self, op_type: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; the name of its output, or a list of names for several."""
        key = (op_type, inputs, outputs, repr(sorted(attributes.items())))
        if key not in self._made:
            names = [self.fresh(op_type.lower()) for _ in range(outputs)]
            self.nodes.append(helper.make_node(op_type, list(inputs), names, **attributes))
            self._made[key] = names[0] if outputs == 1 else names
        return self._made[key]

    # -- sizes ------------------------------------------------------------------------------------------------------
    def size(self, n: int) -> str:
        """A size as a 1-element int64 tensor."""
        if not isinstance(n, Dim):
            return self.constant([int(n)])
        kind, a, b = n.expr
        if kind == "dim":
            return self.node("Shape", self.value(a), start=b, end=b + 1)
        x, y = self.size(a), self.size(b)
        if kind == "Div":  # ONNX rounds towards 0, Python down
            x = self.node("Sub", x, self.node("Mod", x, y))
        return self.node(kind, x, y)

    def sizes(self, shape: Sequence[int]) -> str:
        """A shape as a 1-D int64 tensor."""
        if not is_dynamic(list(shape)):
            return self.constant([int(n) for n in shape], np.int64)
        return self.node("Concat", *[self.size(n) for n in shape], axis=0) if len(shape) > 1 else self.size(shape[0])

    def number(self, n: Any, dtype: dtypes.dtype) -> str:
        """A Python number or a size as a 0-dim value of ``dtype``."""
        if isinstance(n, Dim):
            scalar = self.node("Squeeze", self.size(n), self.constant([0]))
            return scalar if dtype is dtypes.int64 else self.cast(scalar, dtype)
        return self.constant(np.asarray(n).astype(dtype.np))

    # -- dtypes -----------------------------------------------------------------------------------------------------
    def cast(self, name: str, to: dtypes.dtype) -> str:
        return self.node("Cast", name, to=TYPES[to])

    def operand(self, x: Any, dtype: dtypes.dtype) -> str:
        """A tensor, number or size as a value of ``dtype``."""
        if not isinstance(x, Tensor):
            return self.number(x, dtype)
        return self.value(x) if x.dtype is dtype else self.cast(self.value(x), dtype)

    # -- the whole --------------------------------------------------------------------------------------------------
    def input(self, name: str, tensor: Tensor, axes: dict[int, str]) -> Any:
        self.bind(tensor, name)
        return self._describe(name, tensor, axes)

    def output(self, name: str, tensor: Tensor, axes: dict[int, str]) -> Any:
        self.nodes.append(helper.make_node("Identity", [self.value(tensor)], [name]))
        return self._describe(name, tensor, axes)

    def _describe(self, name: str, tensor: Tensor, axes: dict[int, str]) -> Any:
        """The type of an input or output, with its dynamic axes by name."""
        if tensor.dtype not in TYPES:
            raise UnsupportedError(f"{name} has dtype {tensor.dtype}, which ONNX models do not take; expected one of {', '.join(map(str, TYPES))}")
        shape = [axes.get(i, n) for i, n in enumerate(tensor._array.shape)]
        return helper.make_tensor_value_info(name, TYPES[tensor.dtype], shape)

    def model(self, inputs: list, outputs: list, ir_version: int) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "dtrain", inputs, outputs, self.initializers)
        return helper.make_model(graph, producer_name="dtrain", ir_version=ir_version, opset_imports=[helper.make_opsetid("", self.opset)])


def on_host(array: Any) -> np.ndarray:
    """A raw array of any device as a NumPy array."""
    return Tensor._wrap(array).cpu()._array  # type: ignore[attr-defined]
