"""Operations, one family a file, each with its gradient beside it. Importing this attaches them to Tensor."""

from __future__ import annotations

import warnings

from dtrain.backend import memory
from dtrain.ops import namespace as _namespace  # noqa: F401  (gives the engine its namespace of Tensor operations)
from dtrain.ops import table

functions = table.register()
globals().update(functions)

# log(-1) is NaN and 1/0 is infinite without a word, as in PyTorch; NumPy's own users keep their warnings.
warnings.filterwarnings("ignore", r"(invalid value|divide by zero|overflow|underflow) encountered", RuntimeWarning, r"dtrain\..*")

memory.reuse_freed_memory()  # results live for one step: their pages must not be given back and cleared anew each time
