"""Leave nothing behind: end every process of a job on this host, and remove the job's folder.

A job's processes are known by ``DTRAIN_RUN_ID`` in the environment they were started with, which forks and grandchildren (loader
workers, shells) carry along whatever session or group they have moved to.
"""

from __future__ import annotations

import os
import signal
import time

# Shared memory of MPI libraries in /dev/shm, which outlives ranks that were killed; nobody else's files are touched.
_SEGMENTS = ("sm_segment.", "vader_segment.", "mpich_shm_", "psm2_shm", "psm3_shm")


def processes_of(run_id: str) -> list[int]:
    """Process ids on this host whose environment carries the job's id; this process is never among them."""
    mark = f"DTRAIN_RUN_ID={run_id}".encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid() and _carries(name, mark):
            found.append(int(name))
    return found


def _carries(pid: str, mark: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            return mark in file.read().split(b"\0")
    except OSError:  # ended meanwhile, or another user's
        return False


def end_processes(run_id: str, seconds: float = 2.0) -> list[int]:
    """Kill what is left of the job; returns the ids that outlived ``seconds``, which only a kernel in trouble leaves."""
    mark = f"DTRAIN_RUN_ID={run_id}".encode()
    end = time.monotonic() + seconds
    while left := processes_of(run_id):
        for pid in left:
            _kill(pid, mark)
        if time.monotonic() > end:
            break
        time.sleep(0.01)
    return left


def adopt_orphans() -> None:
    """Become the parent of the job's orphans: a process whose own parent was killed is then waited for here, not left defunct."""
    import ctypes

    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def reap(seconds: float = 0.5) -> None:
    """Wait for adopted processes that were killed."""
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.005)
    except ChildProcessError:  # none is left
        pass


def remove_segments(since: float) -> None:
    """Delete what MPI libraries of this user left in /dev/shm after ``since`` (seconds of the epoch) and no process maps any more."""
    left = {path for path in _segments() if _made_by_me(path, since, time.time() - 0.05)}
    if left:  # a segment younger than that may belong to a job that is just about to map it
        for pid in filter(str.isdigit, os.listdir("/proc")):
            left -= _mapped(pid)
    for path in left:
        _quietly(os.unlink, path)


def _segments() -> list[str]:
    try:
        return [f"/dev/shm/{name}" for name in os.listdir("/dev/shm") if name.startswith(_SEGMENTS)]
    except OSError:
        return []


def _made_by_me(path: str, since: float, until: float) -> bool:
    try:
        stat = os.stat(path)
    except OSError:
        return False
    return stat.st_uid == os.geteuid() and since <= stat.st_ctime <= until


def _mapped(pid: str) -> set[str]:
    try:
        with open(f"/proc/{pid}/maps") as file:
            return {line.split()[-1] for line in file if "/dev/shm/" in line}
    except OSError:
        return set()


def _kill(pid: int, mark: bytes) -> None:
    """SIGKILL ``pid`` if it is still the process that was found: the handle is taken first, then the look repeated."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if _carries(str(pid), mark):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except OSError:
        pass
    finally:
        os.close(handle)


def remove_folder(path: str) -> None:
    """Delete a folder of the job's and all in it; files that are already gone are no error."""
    for folder, folders, files in os.walk(path, topdown=False):
        for name in files:
            _quietly(os.unlink, os.path.join(folder, name))
        for name in folders:
            inner = os.path.join(folder, name)
            _quietly(os.unlink if os.path.islink(inner) else os.rmdir, inner)
    _quietly(os.rmdir, path)


def _quietly(action, path: str) -> None:
    try:
        action(path)
    except OSError:
        pass
