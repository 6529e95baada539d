"""When a rank dies, raises, leaves, is late or forks: the others learn of it at once, by name, and nothing is left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dtrain.comm.shm.segment import Segment
from tests.comm.jobs import run_local, run_mpi

TRY = """
began = time.monotonic()
try:
    while True:
        group.all_reduce(a)
except DistributedError as error:
    print(type(error).__name__, round(time.monotonic() - began, 3), error, flush=True)
"""


def test_a_killed_rank_is_named_within_a_second(tmp_path: Path) -> None:
    ended = run_local(tmp_path, """
for _ in range(20): group.all_reduce(a)
if rank == 1: os.kill(os.getpid(), signal.SIGKILL)
""" + TRY)
    assert ended[1].code == -9
    for r in (0, 2):
        kind, seconds, text = ended[r].out.split(None, 2)
        assert kind == "PeerLost" and float(seconds) < 1.0 and "rank 1 died" in text and "all_reduce sum float64 (5,)" in text


def test_a_killed_rank_wakes_who_waits_for_its_message(tmp_path: Path) -> None:
    ended = run_local(tmp_path, """
group.barrier()
if rank == 1: os.kill(os.getpid(), signal.SIGKILL)
try: group.recv(a, 1)
except PeerLost as error: print(error)
""")
    assert "rank 1 died" in ended[0].out and "rank 1 died" in ended[2].out


def test_a_killed_rank_fails_asynchronous_work(tmp_path: Path) -> None:
    ended = run_local(tmp_path, """
group.barrier()
works = [group.all_reduce(a, async_op=True) for _ in range(3)]
for w in works: w.wait()
if rank == 1: os.kill(os.getpid(), signal.SIGKILL)
works = [group.all_reduce(a, async_op=True) for _ in range(3)]
for w in works:
    try: w.wait()
    except PeerLost as error: print(error)
""")
    assert ended[0].out.count("rank 1 died") == 3


def test_a_killed_rank_ends_an_mpi_job(tmp_path: Path) -> None:
    ended = run_mpi(tmp_path, "group.barrier()\nif rank == 1: os.kill(os.getpid(), signal.SIGKILL)" + TRY)
    assert ended.code != 0 and ended.seconds < 8


@pytest.mark.parametrize("where", ["main", "thread"])
def test_an_exception_ends_the_job_and_its_cause_is_printed_once(tmp_path: Path, where: str) -> None:
    body = """
def fail(): raise ValueError("the cause")
if rank == 1:
    import threading
    threading.Thread(target=fail).start() if "%s" == "thread" else fail()
    time.sleep(30)
while True: group.all_reduce(a)
""" % where
    ended = run_local(tmp_path, body)
    assert [e.code for e in ended] == [1, 1, 1]
    assert "Traceback" in ended[1].err and "ValueError: the cause" in ended[1].err
    for r in (0, 2):
        assert "Traceback" not in ended[r].err and f"rank {r} stops" in ended[r].err
        assert "rank 1 failed with ValueError: the cause" in ended[r].err


@pytest.mark.parametrize("backend", ["mpi", "mpi-messages"])
def test_an_exception_ends_an_mpi_job(tmp_path: Path, backend: str) -> None:
    ended = run_mpi(tmp_path, """
if rank == 1: raise ValueError("the cause")
while True: group.all_reduce(a)
""", backend=backend)
    assert ended.code != 0 and ended.seconds < 8 and ended.err.count("ValueError: the cause") >= 1
    assert ended.err.count("Traceback") == 1


def test_exit_leaves_the_group(tmp_path: Path) -> None:
    ended = run_local(tmp_path, "import atexit; atexit.register(group.close)\nif rank == 1: sys.exit(3)" + TRY)
    assert ended[1].code == 3 and "rank 1 has left the group" in ended[0].out


def test_interrupted_inside_a_collective(tmp_path: Path) -> None:
    ended = run_local(tmp_path, """
if rank == 1:
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
if rank == 0: time.sleep(5)
else:
    try: group.all_reduce(a)
    except KeyboardInterrupt: print("interrupted")
    except PeerLost as error: print(error)
""", size=3)
    assert ended[1].out == "interrupted\n" and "rank 1 left #1 all_reduce" in ended[2].out and "KeyboardInterrupt" in ended[2].out


def test_forked_children_are_told_off(tmp_path: Path) -> None:
    ended = run_local(tmp_path, """
group.all_reduce(a)
child = os.fork()
if child == 0:
    try: group.all_reduce(a)
    except DistributedError as error: print(error, flush=True)
    group.close()                   # harmless
    os._exit(0)
os.waitpid(child, 0)
group.all_reduce(a)
print("parents go on")
group.barrier()
""", size=2)
    assert all("forked child" in e.out and "parents go on" in e.out and e.code == 0 for e in ended)


def test_late_ranks_are_named_with_their_last_call(tmp_path: Path) -> None:
    ended = run_local(tmp_path, """
group.broadcast(a, 0)
group.timeout = 0.3
if rank == 1: time.sleep(1.5)
try: group.all_reduce(a)
except CollectiveTimeout as error: print(error)
""")
    for e in ended:
        assert "for rank 1 (last call: #1 broadcast from 0 float64 (5,) at " in e.out and "job.py:" in e.out


def test_shared_memory_has_no_name_to_be_left_behind() -> None:
    segment = Segment.shared(4096)
    assert os.fstat(segment.fd).st_nlink == 0
    segment.unlink()
    assert segment.fd == -1


def test_groups_give_back_descriptors_threads_and_memory(tmp_path: Path) -> None:
    ended = run_local(tmp_path, """
import gc, threading
def used():
    gc.collect()
    mapped = sum("memfd:dtrain" in line for line in open("/proc/self/maps"))
    return len(os.listdir("/proc/self/fd")), threading.active_count(), mapped
def once():
    sub = group.new_group()
    sub.all_reduce(a, async_op=True).wait()
    w = sub.irecv(np.empty(3), (rank + 1) % group.size); sub.send(np.ones(3), (rank - 1) % group.size); w.wait()
    sub.barrier(); sub.close()
once()
before = used()
for _ in range(5): once()
print(before == used(), before, used())
group.barrier()
""", size=2)
    assert all(e.out.startswith("True") for e in ended), [e.out for e in ended]


def test_leaving_with_work_under_way(tmp_path: Path) -> None:
    ended = run_local(tmp_path, """
if rank == 1:
    group.all_reduce(a, async_op=True)
    group.close(timeout=0.2)
else:
    time.sleep(0.6)
    try: group.all_reduce(a)
    except PeerLost as error: print(error)
""", size=2)
    assert "rank 1 left group 'world' while asynchronous collectives were under way" in ended[0].out
