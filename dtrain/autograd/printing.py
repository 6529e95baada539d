"""How tensors print: the values, then shape, dtype, device and grad_fn."""

from __future__ import annotations

from typing import Any

import numpy as np

from dtrain.backend import dtypes

options: dict[str, Any] = {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80, "sci_mode": None}


def set_printoptions(precision: int | None = None, threshold: int | None = None, edgeitems: int | None = None,
                     linewidth: int | None = None, profile: str | None = None, sci_mode: bool | None = None) -> None:
    """Change how tensors print, as ``torch.set_printoptions``."""
    profiles = {"default": (4, 1000, 3, 80), "short": (2, 1000, 2, 80), "full": (4, 1 << 60, 3, 80)}
    if profile is not None:
        options.update(zip(("precision", "threshold", "edgeitems", "linewidth"), profiles[profile]))
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    options.update({k: v for k, v in given.items() if v is not None}, sci_mode=sci_mode)


def show(tensor: Any) -> str:
    if tensor.is_meta:
        body = "..."
    else:
        body = _values(tensor.detach().cpu()._array)
    parts = [body, f"shape={tuple(tensor.shape)}"]
    if tensor.dtype not in (dtypes.get_default_dtype(), dtypes.int64, dtypes.bool):
        parts.append(f"dtype={tensor.dtype}")
    if tensor.device.type != "cpu":
        parts.append(f"device='{tensor.device}'")
    node = tensor.grad_fn
    if node is not None:
        parts.append(f"grad_fn=<{node.name()}>")
    elif tensor._rg:
        parts.append("requires_grad=True")
    name = type(tensor).__name__
    if name == "Parameter":
        return f"Parameter containing:\ntensor({', '.join(parts)})"
    return f"tensor({', '.join(parts)})"


def _values(array: np.ndarray) -> str:
    if array.dtype.kind == "V":
        array = array.astype(np.float32)
    whole = array.dtype.kind == "f" and array.size and np.isfinite(array).all() and (array == np.round(array)).all()
    return np.array2string(
        array,
        precision=options["precision"],
        threshold=options["threshold"],
        edgeitems=options["edgeitems"],
        max_line_width=options["linewidth"],
        separator=", ",
        prefix="tensor(",
        floatmode="unique" if whole else "fixed",
        suppress_small=options["sci_mode"] is False,
    )
