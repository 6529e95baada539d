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


class Graph:
    """An ONNX graph under construction. Tensors are found by identity; those it has not seen become initializers."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.nodes: list = []
        self.initializers: list = []
        self._names: dict[int, str] = {}
        self._kept: list[Tensor] = []  # named tensors stay alive: ids must not be reused
        self._constants: dict[tuple, str] = {}
        self._sizes: dict[tuple, str] = {}
        self._count = 0

    def fresh(self, hint: str) -> str:
        self._count += 1
        return f"{hint}_{self._count}"

    def bind(self, tensor: Tensor, name: str) -> None:
        """From here on ``tensor`` is the value called ``name``."""
        self._names[id(tensor)] = name
        self._kept.append(tensor)

    def initializer(self, name: str, array: Any) -> str:
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def value(self, x: Any) -> str:
        """The name of a tensor's value; weights and constants are added on first use."""
        found = self._names.get(id(x))
        if found is None:
            found = self.initializer(self.fresh("constant"), x.detach().cpu()._array)
            self.bind(x, found)
        return found

    def constant(self, array: Any, dtype: Any = np.int64) -> str:
        """The name of a constant array."""
        array = np.asarray(array, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.initializer(self.fresh("constant"), array)
        return self._constants[key]

    def node(self, op_type: str, *inputs: str, count: int = 1, **attributes: Any) -> Any:
        """Add a node; the name of its output, or a list of names for several."""
        outputs = [self.fresh(op_type.lower()) for _ in range(count)]
        self.nodes.append(helper.make_node(op_type, list(inputs), outputs, **attributes))
        return outputs[0] if count == 1 else outputs

    # -- sizes ------------------------------------------------------------------------------------------------------
    def size(self, n: int) -> str:
        """A size as a 1-element int64 tensor."""
        if not isinstance(n, Dim):
            return self.constant([int(n)])
        kind, a, b = n.expr
        if kind == "dim":
            key = (id(a), b)
            if key not in self._sizes:
                self._sizes[key] = self.node("Gather", self.node("Shape", self.value(a)), self.constant([b]), axis=0)
            return self._sizes[key]
        return self.node(kind, self.size(a), self.size(b))

    def scalar(self, n: int) -> str:
        """A size as a 0-dim int64 tensor."""
        return self.node("Squeeze", self.size(n), self.constant([0]))

    def sizes(self, shape: Sequence[int]) -> str:
        """A shape as a 1-D int64 tensor."""
        if not is_dynamic(list(shape)):
            return self.constant([int(n) for n in shape])
        return self.node("Concat", *[self.size(n) for n in shape], axis=0)

    # -- dtypes -----------------------------------------------------------------------------------------------------
    def cast(self, name: str, to: dtypes.dtype) -> str:
        return self.node("Cast", name, to=TYPES[to])

    def operand(self, x: Any, dtype: dtypes.dtype) -> str:
        """A tensor or number as a value of ``dtype``."""
        if not isinstance(x, Tensor):
            return self.constant(int(x) if dtype is dtypes.int64 and not isinstance(x, bool) else x, dtype.np)
        return self.value(x) if x.dtype is dtype else self.cast(self.value(x), dtype)

    def describe(self, name: str, tensor: Tensor, axes: dict[int, str]) -> Any:
        """The type of an input or output, with its dynamic axes by name."""
        if tensor.dtype not in TYPES:
            raise UnsupportedError(f"{tensor.dtype} cannot be an input or output of an ONNX model")
        shape = [axes.get(i, n) for i, n in enumerate(tensor._array.shape)]
        return helper.make_tensor_value_info(name, TYPES[tensor.dtype], [s if isinstance(s, str) else int(s) for s in shape])

    def model(self, inputs: list, outputs: list, ir_version: int) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "dtrain", inputs, outputs, self.initializers)
        return helper.make_model(
            graph, producer_name="dtrain", ir_version=ir_version, opset_imports=[helper.make_opsetid("", self.opset)]
        )
