"""Operations, one family a file, each with its gradient beside it. Importing this attaches them to Tensor."""

from __future__ import annotations

from dtrain.ops import namespace as _namespace  # noqa: F401  (gives the engine its namespace of Tensor operations)
from dtrain.ops import table

functions = table.register()
globals().update(functions)
