"""Products of matrices: matmul and its kin, linear, einsum."""

from __future__ import annotations

from typing import Any

from dtrain.autograd.dispatch import apply
from dtrain.autograd.op import Op
from dtrain.autograd.tensor import Tensor
from dtrain.errors import ShapeError
from dtrain.ops._shape import one_dtype, unbroadcast
from dtrain.ops.shape import squeeze, unsqueeze


class Matmul(Op):
    """y = a @ b, batched over leading dims; both at least 2-D."""

    def forward(self, xp: Any, a: Any, b: Any) -> Any:
        self.saved = (a, b)
        return xp.matmul(a, b)

    def backward(self, xp: Any, g: Any) -> tuple:
        a, b = self.unpack(xp)
        ga = unbroadcast(xp, xp.matmul(g, xp.swapaxes(b, -1, -2)), a.shape) if self.needs(0) else None
        gb = unbroadcast(xp, xp.matmul(xp.swapaxes(a, -1, -2), g), b.shape) if self.needs(1) else None
        return ga, gb


class Linear(Op):
    """y = x @ w.T + b over the last dim of x; w is (out, in)."""

    def forward(self, xp: Any, x: Any, w: Any, b: Any = None) -> Any:
        self.saved = (x, w)
        flat = x if x.ndim == 2 else x.reshape(-1, x.shape[-1])
        y = xp.matmul(flat, w.T)
        if b is not None:
            y += b
        return y if x.ndim == 2 else y.reshape(*x.shape[:-1], w.shape[0])

    def backward(self, xp: Any, g: Any) -> tuple:
        x, w = self.unpack(xp)
        edges = self.edges
        if len(x.shape) != 2:
            flat_g, flat_x = xp.reshape(g, (-1, w.shape[0])), xp.reshape(x, (-1, w.shape[1]))
        else:
            flat_g, flat_x = g, x
        gx = gw = gb = None
        if edges[0] is not None:
            gx = xp.matmul(flat_g, w)
            if flat_g is not g:
                gx = xp.reshape(gx, x.shape)
        if edges[1] is not None:
            gw = xp.matmul(xp.transpose(flat_g), flat_x)
        if len(edges) > 2 and edges[2] is not None:
            gb = xp.sum(flat_g, axis=0)
        return gx, gw, gb


class Einsum(Op):
    """Einstein summation; the equation holds letters only and names its output."""

    def __init__(self, inputs: tuple[str, ...], output: str) -> None:
        self.inputs, self.output = inputs, output

    def forward(self, xp: Any, *xs: Any) -> Any:
        self.saved = xs
        return xp.einsum(f"{','.join(self.inputs)}->{self.output}", *xs, **({"optimize": True} if len(xs) > 1 else {}))

    def backward(self, xp: Any, g: Any) -> tuple:
        xs = self.unpack(xp)
        return tuple(self._grad(xp, g, xs, i) if self.needs(i) else None for i in range(len(xs)))

    def _grad(self, xp: Any, g: Any, xs: tuple, i: int) -> Any:
        """The product of the gradient and the other operands, over this operand's letters."""
        mine = self.inputs[i]
        others = [(s, x) for k, (s, x) in enumerate(zip(self.inputs, xs)) if k != i]
        known = set(self.output).union(*[s for s, _ in others]) if others else set(self.output)
        letters = "".join(c for c in mine if c in known)
        out = xp.run(Einsum((self.output, *[s for s, _ in others]), letters), g, *[x for _, x in others])
        shape = tuple(n if c in known else 1 for c, n in zip(mine, xs[i].shape))
        return xp.broadcast_to(xp.reshape(out, shape), tuple(xs[i].shape))


def matmul(input: Tensor, other: Tensor) -> Tensor:
    """The matrix product, batched and broadcast over leading dims; 1-D operands as in PyTorch."""
    one_dtype("matmul", input, other)
    if not input.ndim or not other.ndim:
        raise ShapeError(f"matmul expects at least 1-D operands, got shapes {tuple(input.shape)} and {tuple(other.shape)}")
    rows, columns = input.ndim == 1, other.ndim == 1
    a = unsqueeze(input, 0) if rows else input
    b = unsqueeze(other, 1) if columns else other
    if a.shape[-1] != b.shape[-2]:
        raise ShapeError(
            f"matmul of shapes {tuple(input.shape)} and {tuple(other.shape)}: {a.shape[-1]} columns do not meet {b.shape[-2]} rows"
        )
    out = apply(Matmul(), a, b)
    if rows:
        out = squeeze(out, -1 if columns else -2)
        return squeeze(out, -1) if columns and out.ndim else out
    return squeeze(out, -1) if columns else out


def _ndim(name: str, expected: int, *tensors: Tensor) -> None:
    for i, x in enumerate(tensors):
        if x.ndim != expected:
            raise ShapeError(f"{name} expects {expected}-D tensors, operand {i} has shape {tuple(x.shape)}")


def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """The product of two matrices."""
    _ndim("mm", 2, input, mat2)
    return matmul(input, mat2)


def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """The product of two batches of matrices, (b, n, m) @ (b, m, p)."""
    _ndim("bmm", 3, input, mat2)
    if input.shape[0] != mat2.shape[0]:
        raise ShapeError(f"bmm expects equal batch sizes, got shapes {tuple(input.shape)} and {tuple(mat2.shape)}")
    return matmul(input, mat2)


def mv(input: Tensor, vec: Tensor) -> Tensor:
    """A matrix times a vector."""
    _ndim("mv", 2, input)
    _ndim("mv", 1, vec)
    return matmul(input, vec)


def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """The inner product of two vectors."""
    _ndim("dot", 1, input, tensor)
    return matmul(input, tensor)


def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """The outer product of two vectors."""
    _ndim("outer", 1, input, vec2)
    return unsqueeze(input, 1) * unsqueeze(vec2, 0)


def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """``beta * input + alpha * (mat1 @ mat2)``."""
    product = mm(mat1, mat2)
    product = product if alpha == 1 else product * alpha
    return product if beta == 0 else product + (input if beta == 1 else input * beta)


def baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """``beta * input + alpha * (batch1 @ batch2)``."""
    product = bmm(batch1, batch2)
    product = product if alpha == 1 else product * alpha
    return product if beta == 0 else product + (input if beta == 1 else input * beta)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``input @ weight.T + bias`` over the last dim; weight (out, in), bias (out,)."""
    x, w = input._array, weight._array
    if w.ndim != 2 or not x.ndim or x.shape[-1] != w.shape[1]:
        if w.ndim == 1 and x.ndim and x.shape[-1] == w.shape[0]:
            out = matmul(input, weight)
            return out if bias is None else out + bias
        raise ShapeError(
            f"linear: expected the last dim of the input to be {w.shape[-1] if w.ndim else '?'}, got shape {tuple(x.shape)} "
            f"with a weight of shape {tuple(w.shape)}"
        )
    if x.dtype is not w.dtype:
        one_dtype("linear", input, weight)
    if x.ndim == 1:
        return squeeze(apply(Linear(), unsqueeze(input, 0), weight, bias), 0)
    return apply(Linear(), input, weight, bias)


def einsum(equation: str, *operands: Any) -> Tensor:
    """Einstein summation, with ``...`` and implicit outputs."""
    xs = list(operands[0]) if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else list(operands)
    inputs, output = _letters(equation.replace(" ", ""), xs)
    for i, term in enumerate(inputs):
        while len(set(term)) != len(term):
            xs[i], term = _diagonal(xs[i], term)
        inputs[i] = term
    return apply(Einsum(tuple(inputs), output), *xs)


def _diagonal(x: Tensor, term: str) -> tuple[Tensor, str]:
    """A repeated letter becomes the diagonal of its two dims."""
    from dtrain.ops.index import getitem

    import numpy as np

    letter = next(c for c in term if term.count(c) > 1)
    first = term.index(letter)
    second = term.index(letter, first + 1)
    moved = x.movedim((first, second), (0, 1))  # type: ignore[attr-defined]
    order = np.arange(x.shape[first])
    return getitem(moved, (order, order)), letter + "".join(c for d, c in enumerate(term) if d not in (first, second))


def _letters(equation: str, xs: list[Tensor]) -> tuple[list[str], str]:
    """The equation's terms in plain letters: ``...`` spelled out, the output made explicit."""
    left, arrow, output = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(xs):
        raise ShapeError(f"einsum '{equation}' names {len(terms)} operands, got {len(xs)}")
    free = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" if c not in equation]
    extra = max((x.ndim - len(t.replace("...", "")) for t, x in zip(terms, xs) if "..." in t), default=0)
    dots = "".join(free[:extra])
    for i, (term, x) in enumerate(zip(terms, xs)):
        span = x.ndim - len(term.replace("...", "")) if "..." in term else 0
        terms[i] = term.replace("...", dots[len(dots) - span :])
        if len(terms[i]) != x.ndim:
            raise ShapeError(f"einsum '{equation}': term '{term}' has {len(terms[i])} letters for shape {tuple(x.shape)}")
    if not arrow:
        every = "".join(terms)
        output = "..." + "".join(sorted(c for c in set(every) if every.count(c) == 1 and c not in dots))
    return terms, output.replace("...", dots)
