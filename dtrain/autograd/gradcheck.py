"""Gradients against finite differences, element by element, as ``torch.autograd.gradcheck``."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

from dtrain.autograd import engine
from dtrain.autograd.tensor import Tensor
from dtrain.errors import GraphError


def _outputs(out: Any) -> list[Tensor]:
    outs = [out] if isinstance(out, Tensor) else list(out)
    return [t for t in outs if isinstance(t, Tensor) and t.is_floating_point()]


def _numerical(func: Callable, inputs: tuple, x: Tensor, eps: float) -> list[np.ndarray]:
    """Columns of the Jacobian of every output with respect to ``x``, by central differences."""
    flat = x._array.reshape(-1)
    columns: list[list] = []
    for i in range(flat.size):
        was = flat[i].item()
        flat[i] = was + eps
        high = [t.detach().cpu().numpy().copy() for t in _outputs(func(*inputs))]
        flat[i] = was - eps
        low = [t.detach().cpu().numpy().copy() for t in _outputs(func(*inputs))]
        flat[i] = was
        columns.append([(h - l).reshape(-1) / (2 * eps) for h, l in zip(high, low)])
    return [np.stack([c[k] for c in columns]) for k in range(len(columns[0]))] if columns else []


def _analytical(func: Callable, inputs: tuple, x: Tensor) -> list[np.ndarray]:
    """The same Jacobians through backward, one row of outputs at a time."""
    out = []
    for y in _outputs(func(*inputs)):
        jacobian = np.zeros((x.numel(), y.numel()))
        for j in range(y.numel()):
            seed = np.zeros(y.numel())
            seed[j] = 1
            like = y.new_tensor(seed.reshape(tuple(y.shape)))  # type: ignore[attr-defined]
            (g,) = engine.grad(y, x, like, retain_graph=True, allow_unused=True) if y._rg else (None,)
            if g is not None:
                jacobian[:, j] = g.detach().cpu().numpy().reshape(-1)
        out.append(jacobian)
    return out


def gradcheck(
    func: Callable, inputs: Any, *, eps: float = 1e-6, atol: float = 1e-5, rtol: float = 1e-3, raise_exception: bool = True, **_: Any
) -> bool:
    """Compare backward with central differences for every float64 input that requires grad.

    Returns True, or raises GraphError (or returns False without ``raise_exception``) naming the input and the largest difference.
    """
    inputs = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    checked = [(i, x) for i, x in enumerate(inputs) if isinstance(x, Tensor) and x._rg]
    if not checked:
        raise GraphError("gradcheck needs at least one input that requires grad")
    for i, x in checked:
        if x._array.dtype != np.float64 or not x.is_contiguous():
            raise GraphError(f"gradcheck needs contiguous float64 inputs, input {i} is {x.dtype}; finite differences drown in rounding otherwise")
        for k, (a, n) in enumerate(zip(_analytical(func, inputs, x), _numerical(func, inputs, x, eps))):
            if not np.allclose(a, n, rtol, atol):
                if not raise_exception:
                    return False
                worst = np.unravel_index(np.abs(a - n).argmax(), a.shape)
                raise GraphError(
                    f"gradient of output {k} with respect to input {i} differs: backward gives {a[worst]:.8g}, finite differences "
                    f"{n[worst]:.8g} at element {worst[0]} of the input and {worst[1]} of the output"
                )
    return True


def gradgradcheck(func: Callable, inputs: Any, grad_outputs: Any = None, **options: Any) -> bool:
    """gradcheck of the gradient: second derivatives against finite differences of the first."""
    inputs = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    outs = _outputs(func(*inputs))
    rng = np.random.default_rng(0)
    if grad_outputs is None:
        grad_outputs = [y.new_tensor(rng.standard_normal(tuple(y.shape))).requires_grad_() for y in outs]  # type: ignore[attr-defined]
    grad_outputs = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs)
    count = len(inputs)
    wanted = [i for i, x in enumerate(inputs) if isinstance(x, Tensor) and x._rg]

    def first(*args: Any) -> tuple:
        ys = _outputs(func(*args[:count]))
        grads = engine.grad(ys, [args[i] for i in wanted], args[count:], create_graph=True, allow_unused=True)
        return tuple(g for g in grads if g is not None)

    return gradcheck(first, (*inputs, *grad_outputs), **options)
