"""An operation is one class, forward and backward side by side; its instance is the node of the graph.

``forward`` gets raw arrays and the array namespace ``xp``. What backward needs is put into ``self.saved``: inputs,
outputs or constants, never an intermediate that depends on an input (a second derivative would silently lose it).
``backward`` gets a namespace too: the raw one in a first-order pass, one of Tensor operations under
``create_graph``. It uses only that namespace, operators, ``shape``, ``dtype`` and ``reshape``, and writes nothing in place.
"""

from __future__ import annotations

from itertools import count
from typing import Any, Callable, ClassVar

from dtrain.errors import GraphError

_order = count()
EMPTY: tuple = ()


class Op:
    """Base of all operations. Class attributes say how the dispatch point treats one."""

    promotes: ClassVar[bool] = False  # bring the inputs to one dtype by our table
    floats: ClassVar[bool] = False  # integer and bool inputs become the default floating dtype
    half_as_float: ClassVar[bool] = True  # float16/bfloat16 inputs compute in float32, the result is cast back
    is_view: ClassVar[bool] = False  # the output shares memory with input 0 (checked, for reshape)
    differentiable: ClassVar[bool] = True
    num_outputs: ClassVar[int] = 1
    kernels: ClassVar[dict[str, Callable[..., Any]]] = {}  # namespace name -> fused forward; it returns None to decline

    saved: Any = EMPTY
    edges: Any = EMPTY  # per input: the Op or the leaf Tensor its gradient goes to, or None
    ports: Any = None  # per input: which output of that Op; None when all are 0
    marks: Any = EMPTY  # per saved value: input number, -1 - output number, or None for a constant
    versions: Any = EMPTY  # per saved value: (version counter, version when saved) or None
    hooks: Any = None  # output number -> hooks of the tensor it made
    outputs: Any = None  # (shape, dtype, namespace) of each output of an operation with several
    order: int = -1
    freed: bool = False
    site: Any = None  # where it was made, under anomaly detection

    def forward(self, xp: Any, *arrays: Any) -> Any:
        raise AssertionError(f"{self.name()} has no forward")

    def backward(self, xp: Any, *grads: Any) -> Any:
        raise GraphError(f"the derivative of {self.name()} is not defined")

    def needs(self, i: int) -> bool:
        """Whether the gradient of input ``i`` is wanted."""
        return self.edges[i] is not None

    def unpack(self, xp: Any) -> Any:
        """What forward saved: raw arrays, or Tensors with their history when a graph of the backward is built."""
        if self.freed:
            raise GraphError(freed_message(self))
        for entry in self.versions:
            if entry is not None and entry[0][0] != entry[1]:
                raise GraphError(changed_message(self, entry))
        return xp.with_history(self) if xp.builds_graph else self.saved

    def release(self) -> None:
        self.saved = EMPTY
        self.freed = True

    def fresh(self) -> "Op":
        """The same operation with the same parameters and no history, to apply again."""
        other = object.__new__(type(self))
        other.__dict__.update((k, v) for k, v in self.__dict__.items() if k not in _GRAPH_FIELDS)
        return other

    @classmethod
    def name(cls) -> str:
        return cls.__name__

    @property
    def next_functions(self) -> tuple:
        """``((Op or leaf, output number), ...)`` of the inputs that need a gradient, as ``grad_fn`` shows it."""
        ports = self.ports or (0,) * len(self.edges)
        return tuple((edge, port) for edge, port in zip(self.edges, ports) if edge is not None)

    def __repr__(self) -> str:
        return f"<{self.name()}>"


_GRAPH_FIELDS = frozenset("saved edges ports marks versions hooks outputs order freed site".split())




def _shapes(op: Op) -> str:
    shapes = [getattr(value, "shape", None) for value in op.saved]
    return f" (saved shapes {[tuple(s) for s in shapes if s is not None]})" if shapes else ""


def freed_message(op: Op) -> str:
    return (
        f"backward reached {op.name()} whose saved values an earlier backward has freed. Usually a value is carried over "
        "from one step to the next: call .detach() on it. To go through one graph twice, pass retain_graph=True the first time."
    )


def changed_message(op: Op, entry: tuple) -> str:
    made = f" made at {op.site}" if op.site else ""
    return (
        f"a value that {op.name()}{_shapes(op)}{made} needs for its gradient was modified in place after it was used "
        f"(version {entry[1]} then, {entry[0][0]} now). Use the out-of-place form of that change, or .clone() the value first."
    )
