"""The runs before the recorded one: at which sizes, and with which values.

Sizes are halved rather than changed by one, for x.shape[1] // 2 or a stride of 2 to show; different axes change by
different factors, for a size that is the difference of two to show; one run is smaller and one larger, where the model
takes that, for a size rounded up to a multiple to show. 1 is avoided, since code treats it specially.
"""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

from dtrain.autograd.dispatch import InPlace
from dtrain.autograd.tensor import Tensor
from dtrain.backend import namespace
from dtrain.backend.state import local
from dtrain.errors import ArgumentError, UnsupportedError

Axes = list[dict[int, str]]  # per argument: its dynamic axes and their names


def sizes_of(args: tuple, axes: Axes) -> dict[str, int]:
    """The size of each named axis in ``args``. Raises ArgumentError if one name has two."""
    sizes: dict[str, int] = {}
    for tensor, dynamic in zip(args, axes):
        for axis, name in dynamic.items():
            n = tensor._array.shape[axis]
            if sizes.setdefault(name, n) != n:
                raise ArgumentError(f"dynamic_axes calls axes of sizes {sizes[name]} and {n} both {name!r}; give them two names")
    return sizes


def candidates(sizes: dict[str, int]) -> list[dict[str, int]]:
    """Other sizes, those first that show most; a model may refuse some (a context limit, a multiple of a patch)."""
    changes: list[Callable[[int, bool], int]] = [  # of a size, and whether the axis is an odd one
        lambda n, odd: n // 2 if not odd else n // 4 if n > 7 else 2 if n > 5 else n - 1,
        lambda n, odd: 2 * n if odd else n + (n + 1) // 2,
        lambda n, odd: n * 3 // 4,
        lambda n, odd: n // 2,
        lambda n, odd: 2 * n,
        lambda n, odd: n - 1,
        lambda n, odd: n + 1,
        lambda n, odd: n + 2,
    ]
    out: list[dict[str, int]] = []
    for change in changes:
        other = {name: _distinct(n, change(n, i % 2 == 1)) for i, (name, n) in enumerate(sizes.items())}
        if other not in out:
            out.append(other)
    return out


def _distinct(n: int, m: int) -> int:
    """m, or a size near n: at least 2 and not n."""
    if m > 1 and m != n:
        return m
    return n // 2 if n > 3 else n - 1 if n > 2 else n + 1


def resized(args: tuple, axes: Axes, sizes: dict[str, int], other_values: bool) -> tuple[Tensor, ...]:
    """Copies of ``args`` with the named axes in these sizes: values repeated or left out, and changed if wanted."""
    return tuple([Tensor._wrap(_resized(t._array, dynamic, sizes, other_values)) for t, dynamic in zip(args, axes)])


def _resized(array: Any, dynamic: dict[int, str], sizes: dict[str, int], other_values: bool) -> Any:
    xp = namespace.of(array)
    for axis, name in dynamic.items():
        n = array.shape[axis]
        if n == 0:
            raise ArgumentError(f"export needs example inputs without empty dynamic axes; {name!r} has size 0")
        array = xp.take(array, xp.asarray(np.arange(sizes[name]) % n), axis=axis)
    return changed(xp, array) if other_values else array.copy()


def changed(xp: Any, array: Any) -> Any:
    """Other values that a model takes as well: from the array's own range, in another order."""
    flat = array.reshape(-1)[::-1]
    kind = array.dtype.kind
    if kind == "b":
        turn = xp.asarray(np.arange(array.size) % 2 == 1)
        return xp.not_equal(flat, turn).reshape(array.shape)
    if kind in "iu":
        return (xp.where(flat > 0, flat - 1, flat) if array.size else flat).astype(array.dtype).reshape(array.shape)
    return (flat * array.dtype.type(0.75)).astype(array.dtype).reshape(array.shape)


def other_runs(model: Callable, state: "State", args: tuple, axes: Axes, sizes: dict[str, int]) -> list[tuple[Tensor, ...]]:
    """Arguments of other values, at two other sizes if any are dynamic: the first that the model takes.

    Raises UnsupportedError if it takes none. The model has then run at all of these sizes: tables that it makes when it
    first needs them are there.
    """
    found: list[tuple[Tensor, ...]] = []
    tried = candidates(sizes) if sizes else [{}]
    error: Exception | None = None
    for other in tried:
        for other_values in (True, False):
            try:
                state.guarded(model, resized(args, axes, other, other_values))
            except Exception as e:
                error = e
                continue
            found.append(resized(args, axes, other, other_values))
            break
        if len(found) == (2 if sizes else 1):
            return found
    if found:
        return found
    assert error is not None
    if not sizes:
        raise error
    raise UnsupportedError(
        f"the model runs at the example's sizes {sizes} but at none of {tried}, so that its dynamic axes cannot be followed; "
        f"give an example of another size. The last error was: {error}"
    ) from error


class State:
    """A model's parameters and buffers, which a run may not change."""

    def __init__(self, model: Any) -> None:
        self.buffers = list(model.named_buffers()) if hasattr(model, "named_buffers") else []
        named = [*model.named_parameters(), *self.buffers] if hasattr(model, "named_parameters") else []
        self.names = {id(t._vc): name for name, t in named}
        self.before = [(t, t._vc[0], t._array.copy()) for _, t in self.buffers]

    def __call__(self, op: Any, inputs: tuple, proceed: Callable) -> Any:
        """As a mode: refuse to write."""
        if isinstance(op, InPlace) and id(inputs[0]._vc) in self.names:
            raise UnsupportedError(
                f"the model writes into {self.names[id(inputs[0]._vc)]} in place ({op.name()}), as in training; an exported graph has no "
                "state to change. Call eval() before the export"
            )
        return proceed(op, inputs)

    def check(self) -> None:
        """Put buffers that were changed all the same back, and raise UnsupportedError naming them."""
        changed_ = []
        for (name, _), (tensor, version, array) in zip(self.buffers, self.before):
            if tensor._vc[0] != version:
                namespace.of(array).copyto(tensor._array, array)
                changed_.append(name)
        if changed_:
            raise UnsupportedError(f"running the model changes its buffers {changed_}, as in training; call eval() before the export")

    def guarded(self, model: Callable, args: tuple) -> Any:
        """The model's output, unrecorded. The state is as before, or an error says that it would not be."""
        before, grad = local.modes, local.grad_enabled
        local.modes, local.grad_enabled = [self, *before], False
        try:
            return model(*args)
        finally:
            local.modes, local.grad_enabled = before, grad
            self.check()
