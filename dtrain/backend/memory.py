"""Memory figures of this process and its GPUs, and the C allocator's habits.

Results of operations are large blocks that live for one step. glibc gives such blocks back to the system when they are
freed, and every step then pays to have the same pages cleared and mapped again; `reuse_freed_memory` has them kept.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from functools import lru_cache

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3      # mallopt's parameters (malloc.h)


def rss() -> int:
    """Bytes of physical memory this process uses now."""
    found = _status("VmRSS")
    if found is not None:
        return found
    import psutil

    return psutil.Process().memory_info().rss


def peak_rss() -> int:
    """The most bytes of physical memory this process used, since its start or `reset_peak_rss`."""
    found = _status("VmHWM")
    if found is not None:
        return found
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak_rss() -> bool:
    """Start the peak anew; False where the system does not allow it (then the peak stays that of the whole run)."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        return True
    except OSError:
        return False


def figures() -> dict[str, int]:
    """Bytes by name: rss, peak_rss and, once CUDA is used, cuda:N.allocated, .reserved and .max_allocated."""
    found = {"rss": rss(), "peak_rss": peak_rss()}
    cuda = sys.modules.get("dtrain.backend.cuda")
    if cuda is not None and cuda.is_initialized():
        from dtrain.backend import cuda_memory

        for i in range(cuda.device_count()):
            found[f"cuda:{i}.allocated"] = cuda_memory.memory_allocated(i)
            found[f"cuda:{i}.reserved"] = cuda_memory.memory_reserved(i)
            found[f"cuda:{i}.max_allocated"] = cuda_memory.max_memory_allocated(i)
    return found


def reuse_freed_memory() -> bool:
    """Have freed blocks up to 32 MiB kept for the next ones. False without glibc, or when the user tuned it already."""
    libc = _glibc()
    tuned = "GLIBC_TUNABLES" in os.environ or any(name.startswith("MALLOC_") and name.endswith("_") for name in os.environ)
    if libc is None or tuned:
        return False
    options = {_MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: (1 << 31) - 1, _TOP_PAD: 64 << 20}
    return all([libc.mallopt(name, value) for name, value in options.items()])


def release_unused() -> bool:
    """Give the memory that the C allocator keeps for reuse back to the system; whether there was any."""
    libc = _glibc()
    return libc is not None and bool(libc.malloc_trim(0))


@lru_cache(maxsize=1)
def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    if not (hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim")):
        return None                                          # musl has neither
    libc.malloc_trim.argtypes = [ctypes.c_size_t]
    return libc


def _status(field: str) -> int | None:
    """A field of /proc/self/status in bytes, None where there is no such thing."""
    try:
        with open("/proc/self/status") as file:
            found = re.search(rf"^{field}:\s+(\d+) kB", file.read(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
