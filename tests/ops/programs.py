"""Random programs of views, in-place writes and plain operations on a few tensors that share memory.

``run(module, seed, operands)`` gives the live tensors at the end and what was done; the module is dtrain or PyTorch.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np

VIEWS = {
    "transpose": lambda t: t.transpose(0, -1) if t.ndim else None,
    "slice": lambda t: t[1:] if t.ndim else None,
    "step": lambda t: t[..., ::2] if t.ndim else None,
    "select": lambda t: t[..., 0] if t.ndim else None,
    "unsqueeze": lambda t: t.unsqueeze(0),
    "reshape": lambda t: t.reshape(-1),
    "permute": lambda t: t.permute(*reversed(range(t.ndim))) if t.ndim else None,
    "expand": lambda t: t.expand(2, *t.shape),
    "split": lambda t: t.split(1)[0] if t.ndim else None,
    "squeeze": lambda t: t.squeeze(),
}


def _assign(key: Any, value: Any) -> Any:
    def write(t: Any, b: Any, c: Any) -> None:
        if t.ndim:
            t[key] = value(t, b, c)

    return write


WRITES = {
    "add number": lambda t, b, c: t.add_(2.0),
    "multiply by number": lambda t, b, c: t.mul_(1.5),
    "add tensor": lambda t, b, c: t.add_(b[0]),
    "multiply by tensor": lambda t, b, c: t.mul_(c.sum()),
    "divide": lambda t, b, c: t.div_(b[0] * b[0] + 1),
    "zero": lambda t, b, c: t.zero_(),
    "fill": lambda t, b, c: t.fill_(0.5),
    "copy": lambda t, b, c: t.copy_(c.mean()),
    "exp": lambda t, b, c: t.mul_(0.1).exp_(),
    "tanh": lambda t, b, c: t.tanh_(),
    "assign number": _assign(0, lambda t, b, c: 3.0),
    "assign tensor": _assign(-1, lambda t, b, c: b[1] * 2),
    "assign at index": _assign([0], lambda t, b, c: b[0]),
    "add to column": _assign((..., -1), lambda t, b, c: t[..., -1] + b[3]),
    "assign at mask": lambda t, b, c: t.__setitem__(t.detach() > 0, b[2]),
    "masked_fill": lambda t, b, c: t.masked_fill_(t.detach() < 0, 0.25),
}
RESULTS = {
    "square": lambda t, b, c: t * t,
    "sin": lambda t, b, c: t.sin(),
    "product": lambda t, b, c: (t * b[0]).sum(),
    "clone": lambda t, b, c: t.clone(),
}


def operands() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape) for shape in ((3, 4), (4,), (3, 1))]


def run(m: Any, seed: int, a: Any, b: Any, c: Any) -> tuple[list, list[str]]:
    """The tensors alive at the end of program ``seed`` on tensors a (3, 4), b (4,) and c (3, 1), and its steps."""
    rng, steps = random.Random(seed), []
    live = [a * 1.5, m.tensor(np.random.default_rng(seed).standard_normal((3, 4))), b * b]
    for _ in range(rng.randrange(2, 9)):
        i = rng.randrange(len(live))
        kind = rng.choice([VIEWS, VIEWS, WRITES, WRITES, RESULTS])
        name = rng.choice(sorted(kind))
        steps.append(f"{i}: {name}")
        new = kind[name](live[i]) if kind is VIEWS else kind[name](live[i], b, c)
        if kind is not WRITES and new is not None:
            live.append(new)
    return live, steps


def loss(m: Any, live: list) -> Any:
    """Every live tensor, weighted."""
    weights = [m.tensor(np.asarray(np.random.default_rng(n).standard_normal(tuple(t.shape)))) for n, t in enumerate(live)]
    return sum((t * w).sum() for t, w in zip(live, weights))
