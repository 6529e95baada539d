"""Export to ONNX, ``torch.onnx.export``'s way: by running the model once."""

from __future__ import annotations

from dtrain.onnx.export import export

__all__ = ["export"]
