"""The two phases of load_state_dict: what would be written, whether all of it fits, and the writing."""

from __future__ import annotations

import difflib
from typing import Any, Callable, NamedTuple

import numpy as np

from dtrain.autograd.tensor import Tensor
from dtrain.backend import dtypes
from dtrain.errors import DtypeError, StateDictError
from dtrain.nn.parameter import Parameter

_SUGGESTIONS = 30  # looking for near names costs (missing x unexpected); a long list is another model anyway


class Write(NamedTuple):
    """Value ``value`` of the dict goes into ``module``'s ``name``, which holds ``target``."""

    module: Any
    name: str
    key: str
    target: Tensor
    value: Any
    assign: bool

    def run(self) -> None:
        if not self.assign:
            self.target.copy_(self.value)
        elif isinstance(self.target, Parameter):
            same = isinstance(self.value, Parameter)
            self.module._parameters[self.name] = self.value if same else Parameter(self.value, self.target._rg)
        else:
            self.module._buffers[self.name] = self.value

    def undo(self) -> Callable[[], None]:
        """What puts the module back as it is now."""
        if self.assign:
            table = self.module._parameters if isinstance(self.target, Parameter) else self.module._buffers
            return lambda: table.__setitem__(self.name, self.target)
        before = self.target.detach().clone()
        return lambda: self.target.copy_(before)


class ExtraWrite(NamedTuple):
    """What get_extra_state returned goes back to ``module``."""

    module: Any
    state: Any

    def run(self) -> None:
        self.module.set_extra_state(self.state)

    def undo(self) -> Callable[[], None]:
        before = self.module.get_extra_state()
        return lambda: self.module.set_extra_state(before)


def plan(writes: list, errors: list, write: Write) -> None:
    """Add ``write`` to ``writes`` if the value fits, else the reason to ``errors``."""
    try:
        value = as_tensor(write.value)
    except (TypeError, ValueError, RuntimeError) as error:
        errors.append(f"{write.key}: {error}")
        return
    have, got = tuple(write.target.shape), tuple(value.shape)
    if have == () and got == (1,):  # how scalars were saved long ago
        value, got = value.reshape(()), ()  # type: ignore[attr-defined]
    if have != got:
        errors.append(f"size mismatch for {write.key}: the model has shape {have}, the state_dict {got}")
    elif not write.assign and write.target.is_meta != value.is_meta:
        where = "model is on the meta device" if write.target.is_meta else "state_dict holds a meta tensor"
        errors.append(f"{write.key}: the {where}, so there is nothing to copy; pass assign=True, or call to_empty(device=...) first")
    else:
        writes.append(write._replace(value=value))


def as_tensor(value: Any) -> Tensor:
    """``value`` as a Tensor that shares its memory, if that may be written to."""
    if isinstance(value, Tensor):
        return value
    if not hasattr(value, "__array__"):
        raise DtypeError(f"expected a Tensor or an array, got {type(value).__name__}")
    array = np.asarray(value)
    dtypes.from_numpy(array.dtype)
    return Tensor._wrap(array if array.flags.writeable else array.copy())


def write_all(writes: list) -> None:
    for write in writes:
        write.run()


class Load:
    """One call of load_state_dict: what its modules found."""

    def __init__(self, assign: bool) -> None:
        self.assign = assign
        self.missing: list[str] = []
        self.unexpected: list[str] = []
        self.errors: list[str] = []
        self.writes: list = []
        self.post_hooks: list[tuple[Any, Callable]] = []

    def finish(self, module: Any, strict: bool) -> Any:
        """Phase two: write if everything fits, else raise with the module untouched."""
        from dtrain.nn._state import IncompatibleKeys

        keys = IncompatibleKeys(self.missing, self.unexpected)
        misfit = strict and bool(self.missing or self.unexpected)
        if self.errors or (misfit and not self.post_hooks):
            raise StateDictError(self.explain(module, strict))
        # Post-hooks see the loaded module and may strike keys off the lists, so here the writing comes before the verdict.
        undo = [write.undo() for write in self.writes] if misfit else []
        write_all(self.writes)
        for owner, hook in self.post_hooks:
            hook(owner, keys)
        if strict and (self.missing or self.unexpected):
            for restore in undo:
                restore()
            raise StateDictError(self.explain(module, strict))
        return keys

    def explain(self, module: Any, strict: bool) -> str:
        lines = [f"this state_dict does not fit {type(module).__name__}; nothing was loaded"]
        if strict and self.unexpected:
            near = near_names(self.unexpected, self.missing)
            lines += [f"  unexpected key {key!r}" + (f" (did you mean {near[key]!r}?)" if key in near else "") for key in self.unexpected]
        if strict and self.missing:
            lines += [f"  missing key {key!r}" for key in self.missing]
        lines += [f"  {error}" for error in self.errors]
        if strict and self.unexpected and (hint := prefix_hint(self.missing, self.unexpected)):
            lines.append(hint)
        return "\n".join(lines)


def near_names(unexpected: list[str], missing: list[str]) -> dict[str, str]:
    """For each unexpected key the missing one it resembles."""
    found = {}
    for key in unexpected[:_SUGGESTIONS]:
        if close := difflib.get_close_matches(key, missing[:_SUGGESTIONS], 1):
            found[key] = close[0]
    return found


def prefix_hint(missing: list[str], unexpected: list[str]) -> str:
    """A remedy when all keys carry (or lack) one prefix, as those saved from inside a wrapper do."""
    if not missing or not unexpected:
        return ""
    for longer, shorter, remedy in (
        (unexpected, missing, "every key of the state_dict begins with {p!r}; strip it: {{k.removeprefix({p!r}): v for k, v in state.items()}}"),
        (missing, unexpected, "every key of the model begins with {p!r}; add it: {{{p!r} + k: v for k, v in state.items()}}"),
    ):
        p = next((key[: -len(shorter[0])] for key in longer if key.endswith("." + shorter[0])), "")
        prefixed = {p + key for key in shorter}  # a module may forgive one side's key, so either may hold the other
        if p and all(key.startswith(p) for key in longer) and (prefixed <= set(longer) or set(longer) <= prefixed):
            return remedy.format(p=p)
    return ""
