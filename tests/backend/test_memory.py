"""Memory figures follow what is allocated, and the allocator takes its settings."""

import subprocess
import sys

import numpy as np

from dtrain.backend import memory

MB = 1 << 20


def test_rss_and_peak_follow_an_allocation():
    before = memory.rss()
    block = np.ones(64 * MB, np.uint8)
    assert memory.rss() - before > 32 * MB and memory.peak_rss() >= memory.rss() - MB
    del block
    assert memory.peak_rss() >= before + 32 * MB
    assert set(memory.figures()) >= {"rss", "peak_rss"}


def test_peak_can_start_anew():
    np.ones(64 * MB, np.uint8)
    peak = memory.peak_rss()
    if memory.reset_peak_rss():
        assert memory.peak_rss() < peak - 32 * MB
    else:
        assert memory.peak_rss() >= peak


REUSE = """
import os
import numpy as np
from dtrain.backend import memory
print(memory.reuse_freed_memory())
arrays = [np.ones(16 << 20, np.uint8) for _ in range(8)]
del arrays
kept = memory.rss()
memory.release_unused()
print(kept - memory.rss() > 64 << 20)
os.environ["MALLOC_TOP_PAD_"] = "1"
print(memory.reuse_freed_memory())
"""


def test_freed_memory_is_kept_until_released_and_users_settings_win():
    out = subprocess.run([sys.executable, "-c", REUSE], capture_output=True, text=True, check=True).stdout.split()
    assert out == (["True", "True", "False"] if memory._glibc() else ["False", "False", "False"])
