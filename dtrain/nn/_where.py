"""Where in a model an error arose: every module an exception passes through adds its own name to it.

A module does not know its name, its parent does. So an exception carries the module it last left, and the parent looks
it up among its descendants. Nothing of this runs unless something raises.
"""

from __future__ import annotations

from typing import Any

from dtrain.errors import DtrainError


def add(error: Exception, module: Any) -> None:
    """``error`` leaves ``module``: note its place, inside out. DtrainErrors show it in their text, others in a note."""
    inner = error.__dict__.get("_left")
    where = error.where if isinstance(error, DtrainError) else error.__dict__.setdefault("_where", [])
    if inner is None:
        where.append(describe(module))
    else:
        name = _name_in(module, inner)
        if name and len(where) == 1 and "_named" not in error.__dict__:
            where[0] = f"{name} {where[0]}"
            error._named = True  # type: ignore[attr-defined]
        elif name:
            where.append(name)
    error._left = module  # type: ignore[attr-defined]
    if not isinstance(error, DtrainError):
        _rewrite_note(error, where)


def describe(module: Any) -> str:
    """The module's class, with its settings where they fit on one line: ``Linear(in_features=9, out_features=2, bias=True)``."""
    extra = module.extra_repr()
    return f"{module._get_name()}({extra})" if extra and "\n" not in extra else module._get_name()


def _name_in(parent: Any, child: Any) -> str:
    return next((name for name, module in parent.named_modules() if module is child), "")


def _rewrite_note(error: Exception, where: list[str]) -> None:
    before = error.__dict__.get("_note")
    note = f"in {'.'.join(reversed(where))}"
    if before is not None:
        error.__notes__.remove(before)
    error.add_note(note)
    error._note = note  # type: ignore[attr-defined]
