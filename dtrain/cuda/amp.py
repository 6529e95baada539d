"""PyTorch's older ``torch.cuda.amp``: autocast with the device type filled in."""

from __future__ import annotations

from typing import Any

from dtrain import amp


class autocast(amp.autocast):
    """``dtrain.autocast("cuda", ...)``; the default dtype is float16."""

    def __init__(self, enabled: bool = True, dtype: Any = None, cache_enabled: bool = True) -> None:
        super().__init__("cuda", dtype, enabled, cache_enabled)
