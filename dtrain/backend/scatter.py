"""Adding rows into a table at indices that repeat: the gradient of a lookup.

``np.add.at`` adds one row after the other, ten times slower than memory. Here rows of one index are brought side by side by
sorting and then added pair by pair, halving their number each round, until every index has one row: whole-array operations,
a deterministic result, and an error that grows with the logarithm of the count.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_LEAST_WIDTH = 32  # narrower rows cost more to bring together than to add one by one


def sum_rows(xp: Any, count: int, index: Any, rows: Any) -> Any:
    """A table (count, width) of zeros with ``rows`` (n, width) added at ``index`` (n,), in the dtype of the rows."""
    out = xp.zeros((count, rows.shape[1]), rows.dtype)
    if xp.name != "numpy" or rows.shape[1] < _LEAST_WIDTH:
        xp.scatter_add(out, index, rows)
    elif index.size:
        _add_pairs(out, index, rows)
    return out


def _add_pairs(out: np.ndarray, index: np.ndarray, rows: np.ndarray) -> None:
    source = np.argsort(index, kind="stable")  # where the rows of the sorted index are
    index = index[source]
    while True:
        starts = np.flatnonzero(np.concatenate([[True], index[1:] != index[:-1]]))
        if len(starts) == len(index):
            out[index] = rows[source]
            return
        runs = np.diff(starts, append=len(index))
        place = np.arange(len(index)) - np.repeat(starts, runs)  # within the run of its index
        left = np.flatnonzero(place % 2 == 0)
        has_right = place.take(left + 1, mode="clip") % 2 == 1
        summed = rows[source[left]]
        summed[has_right] += rows[source[left[has_right] + 1]]
        rows, index, source = summed, index[left], np.arange(len(left))
