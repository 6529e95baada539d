"""Which operations are methods and operators of Tensor. This table is the one place that says so."""

from __future__ import annotations

from typing import Any, Callable

from dtrain.autograd.dispatch import apply
from dtrain.autograd.tensor import Tensor
from dtrain.ops import convert, creation, elementwise, gather, index, join, matmul, order, piecewise, random, reduce, shape, softmax, special, unary

# module -> names that are functions of the package and methods of Tensor alike
METHODS: dict[Any, str] = {
    elementwise: """add sub mul div floor_divide remainder pow maximum minimum lerp addcmul addcdiv eq ne lt le gt ge
        logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor""",
    unary: " ".join(unary.FUNCTIONS),
    reduce: """sum mean var std prod amax amin max min argmax argmin any all count_nonzero cumsum logsumexp norm""",
    shape: "reshape permute transpose t movedim squeeze unsqueeze flatten unflatten narrow select flip tril triu ravel clone broadcast_to",
    join: "split chunk unbind roll tile repeat_interleave",
    gather: "gather scatter scatter_add take_along_dim",
    index: "index_select index_put index_add masked_fill masked_select",
    order: "nonzero argsort sort topk",
    matmul: "matmul mm bmm mv dot outer addmm baddbmm",
    random: "bernoulli multinomial",
    softmax: "softmax log_softmax",
    special: "erf erfc",
    piecewise: "relu",
    convert: "equal isclose allclose",
}
# methods only
METHODS_ONLY: dict[Any, str] = {
    shape: "view view_as reshape_as expand expand_as contiguous",
    join: "repeat",
    creation: "new_zeros new_ones new_empty new_full new_tensor",
    convert: "to float double half bfloat16 long int short bool type_as cpu cuda copy_ fill_ zero_",
    random: "uniform_ normal_ bernoulli_ exponential_ random_",
    elementwise: "add_ sub_",
    piecewise: "relu_",
    index: "index_put_",
}
# functions of the package only
FUNCTIONS: dict[Any, str] = {
    creation: """tensor as_tensor from_numpy from_dlpack empty zeros ones full empty_like zeros_like ones_like full_like arange linspace eye
        tril_indices triu_indices""",
    random: "rand randn rand_like randn_like randint randint_like randperm normal",
    join: "cat stack meshgrid",
    matmul: "einsum",
    elementwise: "where",
    reduce: "var_mean",
}
ALIASES = {
    "absolute": "abs", "subtract": "sub", "multiply": "mul", "divide": "div", "true_divide": "div", "negative": "neg", "greater": "gt",
    "greater_equal": "ge", "less": "lt", "less_equal": "le", "not_equal": "ne", "clip": "clamp", "swapaxes": "transpose",
    "swapdims": "transpose", "moveaxis": "movedim", "arcsin": "asin", "arccos": "acos", "arctan": "atan", "concat": "cat", "concatenate": "cat",
}  # fmt: skip
OPERATORS: dict[str, Callable] = {
    "__add__": lambda a, b: apply(elementwise.Add(), a, b),
    "__radd__": lambda a, b: apply(elementwise.Add(), a, b),
    "__sub__": lambda a, b: apply(elementwise.Sub(), a, b),
    "__rsub__": lambda a, b: apply(elementwise.Sub(), b, a),
    "__mul__": lambda a, b: apply(elementwise.Mul(), a, b),
    "__rmul__": lambda a, b: apply(elementwise.Mul(), a, b),
    "__truediv__": lambda a, b: apply(elementwise.Div(), a, b),
    "__rtruediv__": lambda a, b: apply(elementwise.Div(), b, a),
    "__floordiv__": elementwise.floor_divide,
    "__rfloordiv__": lambda a, b: elementwise.floor_divide(b, a),
    "__mod__": elementwise.remainder,
    "__rmod__": lambda a, b: elementwise.remainder(b, a),
    "__pow__": elementwise.pow,
    "__rpow__": lambda a, b: elementwise.pow(b, a),
    "__matmul__": matmul.matmul,
    "__rmatmul__": lambda a, b: matmul.matmul(b, a),
    "__neg__": unary.neg,
    "__pos__": lambda a: a,
    "__abs__": unary.abs,
    "__invert__": unary.bitwise_not,
    "__and__": elementwise.bitwise_and,
    "__rand__": elementwise.bitwise_and,
    "__or__": elementwise.bitwise_or,
    "__ror__": elementwise.bitwise_or,
    "__xor__": elementwise.bitwise_xor,
    "__rxor__": elementwise.bitwise_xor,
    "__eq__": elementwise.eq,
    "__ne__": elementwise.ne,
    "__lt__": elementwise.lt,
    "__le__": elementwise.le,
    "__gt__": elementwise.gt,
    "__ge__": elementwise.ge,
    "__getitem__": index.getitem,
    "__setitem__": index.setitem,
}
# in-place methods: name -> function that is traced for the result, written into the tensor
IN_PLACE = """mul div pow remainder floor_divide lerp addcmul addcdiv clamp clamp_min clamp_max neg abs exp log sqrt rsqrt reciprocal sigmoid tanh
    floor ceil round trunc sign square masked_fill scatter scatter_add index_add tril triu logical_and logical_or logical_not bitwise_and
    bitwise_or eq ne lt le gt ge""".split()
OPERATORS_IN_PLACE = {
    "__iadd__": "add_", "__isub__": "sub_", "__imul__": "mul_", "__itruediv__": "div_", "__ipow__": "pow_",
    "__imod__": "remainder_", "__ifloordiv__": "floor_divide_", "__iand__": "bitwise_and_", "__ior__": "bitwise_or_",
}  # fmt: skip


def in_place(name: str, function: Callable) -> Callable[..., Tensor]:
    """The in-place form of a function: its result is copied into the first operand, and the graph follows."""

    def call(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        from dtrain.autograd import inplace

        return inplace.write(name, input, function, args, kwargs)

    call.__name__ = call.__qualname__ = name + "_"
    call.__doc__ = f"``{name}`` in place: the result replaces the tensor's values."
    return call


def operator(function: Callable) -> Callable:
    """An operator of Tensor: operands it cannot take are left to the other side."""

    def call(a: Tensor, b: Any) -> Any:
        kind = b.__class__
        if kind is float or kind is int or isinstance(b, Tensor):
            return function(a, b)
        b = as_operand(a, b)
        return b if b is NotImplemented else function(a, b)

    call.__doc__ = function.__doc__
    return call


def as_operand(a: Tensor, b: Any) -> Any:
    """NumPy arrays and scalars as tensors, numbers as they are, others refused."""
    import numpy as np

    if isinstance(b, (int, complex)):
        return b
    if isinstance(b, (np.ndarray, np.generic)):
        return creation.tensor(b, device=a.device)
    return NotImplemented


def register() -> dict[str, Callable]:
    """Attach methods and operators to Tensor; return the functions that belong to the package."""
    functions: dict[str, Callable] = {}
    for table, on_tensor, on_package in ((METHODS, True, True), (METHODS_ONLY, True, False), (FUNCTIONS, False, True)):
        for module, names in table.items():
            for name in names.split():
                if on_tensor:
                    setattr(Tensor, name, getattr(module, name))
                if on_package:
                    functions[name] = getattr(module, name)
    for alias, name in ALIASES.items():
        if name in functions:
            functions[alias] = functions[name]
        if hasattr(Tensor, name):
            setattr(Tensor, alias, getattr(Tensor, name))
    _register_operators(functions)
    return functions


def _register_operators(functions: dict[str, Callable]) -> None:
    for name in IN_PLACE:
        setattr(Tensor, name + "_", in_place(name, functions[name]))
    Tensor.clip_ = Tensor.clamp_  # type: ignore[attr-defined]
    single = {"__neg__", "__pos__", "__abs__", "__invert__", "__getitem__", "__setitem__"}
    for name, function in OPERATORS.items():
        setattr(Tensor, name, function if name in single else operator(function))
    Tensor.__hash__ = object.__hash__  # type: ignore[method-assign]  # by identity, and in C: the engine's tables are keyed by tensor
    for name, method in OPERATORS_IN_PLACE.items():
        setattr(Tensor, name, getattr(Tensor, method))
    for name, dims in (("T", None), ("mT", (-1, -2))):
        setattr(Tensor, name, property(_transposed(dims)))


def _transposed(dims: Any) -> Callable:
    if dims is None:
        return lambda self: shape.permute(self, tuple(range(self.ndim))[::-1])
    return lambda self: shape.transpose(self, *dims)
