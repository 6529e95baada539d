"""An optimizer's state_dict: parameters become numbers, and numbers parameters."""

from __future__ import annotations

import copy
from collections import defaultdict
from typing import Any

import numpy as np

from dtrain.autograd.tensor import Tensor
from dtrain.errors import StateDictError


def pack(state: dict, groups: list[dict[str, Any]]) -> dict[str, Any]:
    """State and groups with a number in place of every parameter."""
    numbers: dict[Tensor, int] = {}
    for i, p in enumerate(p for group in groups for p in group["params"]):
        numbers.setdefault(p, i)
    packed = [{**{k: v for k, v in group.items() if k != "params"}, "params": [numbers[p] for p in group["params"]]} for group in groups]
    return {"state": {numbers.get(key, key) if isinstance(key, Tensor) else key: value for key, value in state.items()}, "param_groups": packed}


def unpack(saved: dict[str, Any], groups: list[dict[str, Any]], like_params: tuple[str, ...]) -> tuple[dict, list[dict[str, Any]]]:
    """State by parameter, copied to its dtype and device, and the groups, with saved options and present parameters.

    Raises StateDictError where numbers of groups or parameters, or the shapes of ``like_params``, differ.
    """
    saved_groups = [{k: (v if k == "params" else copy.deepcopy(v)) for k, v in group.items()} for group in saved["param_groups"]]
    _check_sizes([len(g["params"]) for g in groups], [len(g["params"]) for g in saved_groups])
    by_number = {n: p for new, old in zip(groups, saved_groups) for n, p in zip(old["params"], new["params"])}
    _check_shapes(saved["state"], by_number, like_params)
    state: dict = defaultdict(dict)
    for key, value in saved["state"].items():
        param = by_number.get(key)
        state[key if param is None else param] = value if param is None else _converted(value, param, None)
    for group, old in zip(groups, saved_groups):
        old["params"] = group["params"]
        if "param_names" in group:
            old.setdefault("param_names", group["param_names"])
    return state, saved_groups


def _check_sizes(have: list[int], got: list[int]) -> None:
    if len(have) != len(got):
        raise StateDictError(f"the optimizer has {len(have)} parameter groups, the state_dict {len(got)}; nothing was loaded")
    if have != got:
        raise StateDictError(
            f"the optimizer's groups hold {have} parameters, the state_dict's {got}; is it of another model? Nothing was loaded"
        )


def _check_shapes(state: dict, by_number: dict, like_params: tuple[str, ...]) -> None:
    wrong = [
        f"  parameter {number}: {name!r} has shape {tuple(values[name].shape)}, the parameter {tuple(by_number[number].shape)}"
        for number, values in state.items()
        if number in by_number
        for name in like_params
        if values.get(name) is not None and tuple(values[name].shape) != tuple(by_number[number].shape)
    ]
    if wrong:
        raise StateDictError("this state_dict does not fit the optimizer's parameters; nothing was loaded\n" + "\n".join(wrong))


def _converted(value: Any, param: Tensor, name: Any) -> Any:
    """A copy of ``value``; floating state takes the parameter's dtype and device, but ``step`` stays as it is."""
    if isinstance(value, np.ndarray):
        value = Tensor._wrap(value)
    if isinstance(value, Tensor):
        if name == "step":
            return value.detach().clone()  # type: ignore[attr-defined]
        dtype = param.dtype if param.is_floating_point() and value.is_floating_point() else None
        return value.detach().to(device=param.device, dtype=dtype, copy=True)  # type: ignore[attr-defined]
    if isinstance(value, dict):
        return {key: _converted(item, param, key) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)([_converted(item, param, None) for item in value])
    return copy.deepcopy(value)
