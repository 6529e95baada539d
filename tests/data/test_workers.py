"""Worker processes: errors, deaths, seeds, shared memory, and that none is left behind."""

import faulthandler
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest

import dtrain
from dtrain.data import DataLoader, Dataset, IterableDataset, get_worker_info, segments
from dtrain.errors import ArgumentError, DataError

CHILD = os.path.join(os.path.dirname(__file__), "loader_child.py")


class Ask(Dataset):
    """Sample i is ``function(i)``."""

    def __init__(self, function, n=20):
        self.function, self.n = function, n

    def __getitem__(self, i):
        return self.function(i)

    def __len__(self):
        return self.n


def loader(function, n=20, workers=2, **options):
    return DataLoader(Ask(function, n), num_workers=workers, multiprocessing_context="fork", **options)


def workers_of(pid=None):
    return psutil.Process(pid).children()


@pytest.fixture(autouse=True)
def nothing_left():
    before = set(workers_of())
    yield
    gc.collect()
    deadline = time.monotonic() + 5
    while set(workers_of()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert set(workers_of()) <= before


class Twofold(Exception):
    def __init__(self, a, b):
        super().__init__(a, b)


def raising(error):
    def function(i):
        if i == 5:
            raise error
        return i
    return function


@pytest.mark.parametrize("error, kind, lines", [
    (ValueError("bad row"), ValueError, "ValueError: bad row"),
    (KeyError("name"), KeyError, "KeyError: 'name'"),
    (ArgumentError("dtrain's"), ArgumentError, "ArgumentError: dtrain's"),
    (Twofold(1, 2), RuntimeError, "Twofold: \\(1, 2\\)"),
    (StopIteration("no end"), RuntimeError, "StopIteration: no end"),
    (type("Local", (Exception,), {})("made here"), RuntimeError, "Local: made here"),
])
def test_an_exception_is_raised_here_with_the_traceback_there(error, kind, lines):
    it = iter(loader(raising(error)))
    assert [next(it).item() for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(kind, match=rf"(?s)Caught .* in DataLoader worker process 1.\nOriginal Traceback.*in function\n.*{lines}") as caught:
        next(it)
    assert "\\n" not in str(caught.value)
    assert [b.item() for b in it] == list(range(6, 20))             # the others go on


def test_an_exception_of_worker_init_fn():
    def init(worker):
        if worker == 0:
            raise OSError("no such share")

    with pytest.raises(OSError, match="no such share"):
        next(iter(loader(int, worker_init_fn=init)))


def test_a_batch_that_cannot_be_pickled():
    with pytest.raises((TypeError, AttributeError, Exception), match="(?s)sending a function.*pickle"):
        next(iter(loader(lambda i: lambda: i, batch_size=None, collate_fn=lambda x: x)))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_killed_worker_is_noticed_at_once_and_named(number):
    def function(i):
        if i == 7:
            faulthandler.disable()                                    # no stack of the test run for the SIGSEGV
            os.kill(os.getpid(), number)
        time.sleep(0.02)
        return os.getpid()

    it = iter(loader(function))
    pids = [next(it).item() for _ in range(4)]
    start = time.monotonic()
    with pytest.raises(DataError, match=rf"worker 1 \(pid {pids[1]}\) was killed by {number.name}"):
        list(it)
    assert time.monotonic() - start < 2
    with pytest.raises(DataError, match="have ended"):
        next(it)


def test_a_worker_that_exits():
    with pytest.raises(DataError, match="worker 0 .* ended with exit code 3"):
        list(loader(lambda i: os._exit(3) if i == 4 else i))


def test_a_worker_killed_while_the_loader_is_busy_elsewhere():
    it = iter(loader(lambda i: os.getpid(), n=1000))
    os.kill(next(it).item(), signal.SIGKILL)
    time.sleep(0.1)
    with pytest.raises(DataError, match="worker 0 .* SIGKILL; the system kills .* memory"):
        list(it)


def test_timeout():
    it = iter(loader(lambda i: time.sleep(60 * (i == 2)) or i, timeout=0.3))
    next(it)
    pids = [w.pid for w in workers_of()]
    start = time.monotonic()
    with pytest.raises(DataError, match=f"timed out: no batch came within 0.3 seconds .*{pids[0]}"):
        list(it)
    assert time.monotonic() - start < 3                               # the one that sleeps is not waited for


def test_order_is_kept_whoever_is_faster():
    slow_first = loader(lambda i: time.sleep(0.03 * (i % 2 == 0)) or i, prefetch_factor=4)
    assert [b.item() for b in slow_first] == list(range(20))
    any_order = [b.item() for b in loader(lambda i: time.sleep(0.3 * (i == 0)) or i, in_order=False)]
    assert any_order[0] != 0 and sorted(any_order) == list(range(20))


def test_seeds_differ_between_workers_and_epochs():
    def draw(i):
        return [os.getpid() % 1000, random.random(), np.random.rand(), dtrain.rand(1).item()]

    dtrain.manual_seed(5)
    loading = loader(draw, n=8)
    epochs = [[[v.item() for v in batch][1:] for batch in loading] for _ in range(2)]
    flat = [x for epoch in epochs for row in epoch for x in row]
    assert len(set(flat)) == len(flat)
    dtrain.manual_seed(5)
    assert [[v.item() for v in batch][1:] for batch in loader(draw, n=8)] == epochs[0]


def test_worker_info():
    def report(i):
        info = get_worker_info()
        return [info.id, info.num_workers, info.seed - info.id, info.dataset.n]

    assert get_worker_info() is None
    rows = [[int(v) for v in row] for row in loader(report, n=4)]
    assert [r[:2] + r[3:] for r in rows] == [[0, 2, 4], [1, 2, 4]] * 2 and len({r[2] for r in rows}) == 1


def test_workers_leave_the_training_process_alone():
    """No signal handlers, process group or Ctrl-C of the training in a worker."""
    def report(i):
        handlers = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
        return [handlers == [signal.SIG_DFL, signal.SIG_IGN], dtrain.backend.state.local.rank.group is None]

    before = signal.signal(signal.SIGTERM, lambda *a: None)
    dtrain.backend.state.local.rank.group, group = "a group", dtrain.backend.state.local.rank.group
    try:
        assert [[bool(v) for v in row] for row in loader(report, n=2)] == [[True, True]] * 2
        assert dtrain.backend.state.local.rank.group == "a group"
    finally:
        dtrain.backend.state.local.rank.group = group
        signal.signal(signal.SIGTERM, before)


def test_workers_use_one_thread():
    """A product in a worker takes no more CPU time in the process than in its one thread."""
    def report(i):
        a = dtrain.ones(500, 500)
        time.sleep(0.3)                                               # OpenBLAS's idle thread spins for a while after a fork
        process, thread = time.process_time(), time.thread_time()
        for _ in range(10):
            a @ a
        return [dtrain.get_num_threads(), (time.process_time() - process) / (time.thread_time() - thread)]

    a = dtrain.ones(500, 500)
    a @ a                                                             # the training's BLAS has started its threads
    before = dtrain.get_num_threads()
    rows = [[v.item() for v in row] for row in loader(report, n=3, workers=1)]
    assert [threads for threads, _ in rows] == [1, 1, 1] and min(ratio for _, ratio in rows) < 1.3
    assert dtrain.get_num_threads() == before


def test_persistent_workers_are_kept():
    loading = loader(lambda i: os.getpid(), n=8, persistent_workers=True)
    epochs = [{b.item() for b in loading} for _ in range(3)]
    assert epochs[0] == epochs[1] == epochs[2] and len(epochs[0]) == 2
    it = iter(loading)
    next(it)
    assert len(list(loading)) == 8
    os.kill(min(epochs[0]), signal.SIGKILL)
    with pytest.raises(DataError, match="SIGKILL"):
        list(loading)
    assert len({b.item() for b in loading} - epochs[0]) == 2           # and they are replaced


def test_a_pass_that_is_broken_off_leaves_nothing_to_the_next():
    """Batches of the first pass that were on their way are not handed out in the second, nor are they still made."""
    calls = []

    def function(i):
        time.sleep(0.01)
        calls.append(i)
        return [i, len(calls)]

    loading = loader(function, n=100, workers=1, persistent_workers=True, prefetch_factor=50, shuffle=True)
    next(iter(loading))
    rows = [(i.item(), made.item()) for i, made in loading]
    assert sorted(i for i, _ in rows) == list(range(100)) and rows[0][1] < 10


def test_other_workers_are_new_each_time():
    loading = loader(lambda i: os.getpid(), n=4)
    assert not {b.item() for b in loading} & {b.item() for b in loading}


class Share(IterableDataset):
    def __init__(self, sizes):
        self.sizes = sizes

    def __iter__(self):
        return iter([(get_worker_info().id, i) for i in range(self.sizes[get_worker_info().id])])


@pytest.mark.parametrize("sizes", [(3, 3), (0, 5), (5, 0), (1, 7), (0, 0), (9,)])
@pytest.mark.parametrize("prefetch", [1, 3])
@pytest.mark.parametrize("persistent", [False, True])
def test_iterable_shares_end_at_different_times(sizes, prefetch, persistent):
    loading = DataLoader(Share(sizes), 2, num_workers=len(sizes), prefetch_factor=prefetch, persistent_workers=persistent,
                         multiprocessing_context="fork")
    for _ in range(2):
        seen = [list(zip(w.tolist(), i.tolist())) for w, i in loading]
        for worker, size in enumerate(sizes):
            mine = [pair for batch in seen for pair in batch if pair[0] == worker]
            assert mine == [(worker, i) for i in range(size)]


def big(i):
    return np.full((64, 64), i, np.float32)


def mappings():
    """How many segments are mapped in this process."""
    with open("/proc/self/maps") as f:
        return sum("dtrain-loader" in line for line in f)


def test_batches_kept_by_the_user_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(segments, "MAX_LENT", 5)                     # from here on they are copied out
    kept = list(loader(big, n=60, batch_size=3))
    assert all((b[:, 0, 0] == dtrain.arange(3 * k, 3 * k + 3)).all() for k, b in enumerate(kept))
    assert 0 < mappings() <= 2 * 5


def test_memory_is_used_again():
    """The mappings do not grow with the number of batches, as long as the user lets go of them."""
    counts = []
    for batch in loader(big, n=400, batch_size=4):
        counts.append(mappings())
        del batch
    assert 0 < max(counts) <= 12 and counts[-1] <= counts[20]


def test_memory_is_used_again_for_changing_sizes():
    growing = loader(lambda i: np.full((i + 1) * 2000, i, np.float32), n=300, batch_size=None)
    most = max(mappings() for _ in growing)
    assert most < 2 * (segments.KEEP + 6)


def test_memory_of_batches_that_are_not_sent_is_used_again():
    def collate(samples):
        return dtrain.data.default_collate(samples).sum().item(), mappings()

    counts = [count for _, count in loader(big, n=100, workers=1, batch_size=2, collate_fn=collate)]
    assert counts == [1] * 50


def test_what_a_worker_keeps_is_not_overwritten():
    """A worker that hands out the same batch twice, or keeps one, sends what it holds."""
    def run():
        kept = []

        def collate(samples):
            batch = dtrain.data.default_collate(samples)
            kept.append(batch)
            return kept[len(kept) // 2]

        return collate

    values = [int(b[0, 0, 0]) for b in loader(big, n=40, workers=1, batch_size=2, collate_fn=run())]
    assert values == [2 * ((k + 1) // 2) for k in range(20)]


def test_file_descriptors_do_not_pile_up():
    loading = loader(big, n=40, batch_size=2)
    list(loading)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        list(loading)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_large_indices_and_deep_prefetching_do_not_lock_up():
    sampler = [[100_000 + i] * 20_000 for i in range(6)]
    batches = DataLoader(Ask(int, 6), batch_sampler=sampler, num_workers=1, prefetch_factor=6, multiprocessing_context="fork",
                         collate_fn=lambda samples: list(map(str, samples)))
    assert [b[0] for b in batches] == [str(100_000 + i) for i in range(6)]


def test_both_directions_of_a_socket_may_be_full():
    """The worker, blocked on its results, still takes the tasks that the loader is blocked on."""
    def slowly():
        for _ in range(600):
            time.sleep(0.0005)                                        # so that results pile up while tasks are sent
            yield [0] * 500

    def lock_up(*_):
        raise TimeoutError("the loader and its worker wait for each other")

    loading = DataLoader(Ask(int, 1), batch_sampler=slowly(), num_workers=1, prefetch_factor=600, multiprocessing_context="fork",
                         collate_fn=lambda samples: "x" * 900)
    before = signal.signal(signal.SIGALRM, lock_up)
    signal.alarm(20)
    try:
        assert list(loading) == ["x" * 900] * 600
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_a_loop_that_is_left_early_ends_its_workers():
    for batch in loader(big, n=1000):
        break
    it = iter(loader(big))
    next(it)
    assert len(workers_of()) >= 2
    del it


def test_a_slow_worker_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr("dtrain.data.pool.GRACE", 0.2)
    it = iter(loader(lambda i: time.sleep(60 * (i > 1)) or i))
    next(it)
    start = time.monotonic()
    del it
    assert time.monotonic() - start < 5


def alive(pid):
    """Running; where nobody reaps orphans a dead one stays as a zombie."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_all_workers_are_told_to_end_at_once(monkeypatch):
    """A worker need not wait for a slow one, which was forked later and inherited its socket."""
    monkeypatch.setattr("dtrain.data.pool.GRACE", 30.0)
    began, begins = os.pipe()

    def second_is_slow(i):
        if i == 1:
            os.write(begins, b".")
            time.sleep(60)
        return i

    it = iter(loader(second_is_slow))
    next(it)
    os.read(began, 1)                                                 # or it might not have taken its task yet
    os.close(began), os.close(begins)
    first, second = (member.process.pid for member in it._pool._members)
    ending = threading.Thread(target=it._pool.close)
    ending.start()
    while alive(first):
        time.sleep(0.01)
    assert alive(second)
    os.kill(second, signal.SIGKILL)                                   # nobody need wait until it has slept enough
    ending.join()


def run_child(case, **kw):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(["."] + os.environ.get("PYTHONPATH", "").split(os.pathsep))}
    return subprocess.Popen([sys.executable, CHILD, *case.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, **kw)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_start_methods(method):
    out, err = run_child(method).communicate(timeout=60)
    assert out == "ok True\n" and err == ""


@pytest.mark.parametrize("case, code", [("exit", 0), ("exit persistent", 0), ("raise", 1), ("killed", -9), ("terminated", 0)])
def test_no_worker_outlives_the_script(case, code):
    child = run_child(case)
    out, err = child.communicate(timeout=30)                          # ends only when the workers, which share the pipe, have ended
    assert child.returncode == code and len(out.split()) == 2
    assert ("the script failed" in err) == (case == "raise") and "Exception ignored" not in err
    assert not any(alive(int(pid)) for pid in out.split())


def test_ctrl_c_shows_one_traceback():
    # a test run started in the background ignores SIGINT, and its children would too
    child = run_child("interrupted", start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    pids = child.stdout.readline().split()
    os.killpg(child.pid, signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert child.returncode == -signal.SIGINT and err.count("Traceback") == 1 and "KeyboardInterrupt" in err
    assert not any(alive(int(pid)) for pid in pids)


def test_a_forked_copy_of_the_process_does_not_end_the_workers():
    it = iter(loader(int))
    next(it)
    pid = os.fork()
    if pid == 0:
        sys.unraisablehook = lambda _: os._exit(1)
        del it
        gc.collect()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert [b.item() for b in it] == list(range(1, 20))
