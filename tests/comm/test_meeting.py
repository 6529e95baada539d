"""How ranks meet: the store, the address, the file; and what goes wrong there."""

from __future__ import annotations

import json
import os
import random
import socket
import threading
import time
from pathlib import Path

import pytest

from dtrain.comm.local import local_group
from dtrain.comm.rendezvous import meet_at_file, node_id, run_id, same_node
from dtrain.comm.shm.segment import Layout, Segment
from dtrain.comm.store import HashStore, TCPStore
from dtrain.errors import ConfigError, DistributedError
from tests.comm.pool import free_port


@pytest.fixture(params=["tcp", "hash"])
def stores(request):
    if request.param == "hash":
        one = HashStore(5)
        yield one, one
        return
    server = TCPStore("127.0.0.1", 0, True, 5)
    client = TCPStore("127.0.0.1", server.port, False, 5)
    yield server, client
    client.close()
    server.close()


def test_store(stores) -> None:
    one, other = stores
    one.set("a", b"\x00bytes")
    assert other.get("a") == b"\x00bytes" and other.check(["a"]) and not other.check(["a", "b"])
    assert [one.add("n", 2), other.add("n", 3)] == [2, 5]
    threading.Timer(0.05, lambda: one.set("late", "text")).start()
    assert other.get("late") == b"text"
    other.wait(["a", "late"])
    assert one.delete_key("a") and not one.delete_key("a")
    with pytest.raises(DistributedError, match="nobody set 'never'"):
        other.get("never", 0.05)


def test_a_store_of_another_run_is_refused() -> None:
    server = TCPStore("127.0.0.1", 0, True, 5, "run-1")
    with pytest.raises(DistributedError, match="serves another run"):
        TCPStore("127.0.0.1", server.port, False, 0.2, "run-2")
    server.close()


def test_nobody_there() -> None:
    with pytest.raises(DistributedError, match="nobody listens there; check that rank 0 was started"):
        TCPStore("127.0.0.1", free_port(), False, 0.1)
    with pytest.raises(ConfigError, match="cannot resolve"):
        TCPStore("no-such-host.invalid", 1, False, 0.1)


def test_the_port_is_taken_or_the_address_is_not_ours() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(DistributedError, match="MASTER_PORT a free port"):
            TCPStore("127.0.0.1", other.getsockname()[1], True, 0.2)
    with pytest.raises(DistributedError, match="MASTER_ADDR must be an address of the host"):
        TCPStore("192.0.2.1", free_port(), True, 0.2)


def test_the_server_listens_at_its_address_only() -> None:
    server = TCPStore("127.0.0.1", 0, True, 5)
    with socket.socket() as other, pytest.raises(OSError):
        other.settimeout(0.2)
        other.connect(("127.0.0.2", server.port))
    server.close()


def test_garbage_harms_nobody() -> None:
    server = TCPStore("127.0.0.1", 0, True, 5)
    for seed in range(30):
        with socket.create_connection(("127.0.0.1", server.port)) as other:
            other.sendall(random.Random(seed).randbytes(200))
    with socket.create_connection(("127.0.0.1", server.port)) as other:
        other.sendall(b"\xff" * 12)             # claims to be four gigabytes
    server.set("a", b"1")
    assert TCPStore("127.0.0.1", server.port, False, 5).get("a") == b"1"
    server.close()


def test_a_stale_file_does_no_harm(tmp_path: Path) -> None:
    path = str(tmp_path / "meet")
    stale = {"host": "127.0.0.1", "port": free_port(), "token": "old", "node": node_id()}
    Path(path).write_text(json.dumps(stale))
    found = []
    thread = threading.Thread(target=lambda: found.append(meet_at_file(path, 1, 5).get("a")))
    thread.start()
    time.sleep(0.05)
    store = meet_at_file(path, 0, 5)
    store.set("a", b"1")
    assert os.stat(path).st_mode & 0o777 == 0o600
    thread.join(5)
    store.close()
    assert found == [b"1"] and not os.path.exists(path)


def test_file_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot write the meeting file"):
        meet_at_file(str(tmp_path / "absent" / "meet"), 0, 1)
    with pytest.raises(DistributedError, match="rank 1 did not find rank 0 through the file"):
        meet_at_file(str(tmp_path / "nobody"), 1, 0.1)


def test_another_node_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one node only.*mpirun"):
        same_node("elsewhere|x|y|0", "there")
    path = tmp_path / "meet"
    path.write_text(json.dumps({"host": "127.0.0.1", "port": 1, "token": "t", "node": "elsewhere|x|y|0"}))
    with pytest.raises(ConfigError, match="one node only"):
        meet_at_file(str(path), 1, 1)


def test_the_missing_rank_is_named() -> None:
    store = HashStore(5)
    outcome: list[BaseException] = []

    def join(rank: int) -> None:
        try:
            local_group(rank, 3, store=store, timeout=0.3)
        except DistributedError as error:
            outcome.append(error)

    threads = [threading.Thread(target=join, args=(r,)) for r in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert len(outcome) == 2 and all("for rank 2" in str(error) for error in outcome)


def test_wrong_sizes_and_twins() -> None:
    store = HashStore(5)
    thread = threading.Thread(target=lambda: pytest.raises(DistributedError, local_group, 0, 2, store=store, timeout=0.5))
    thread.start()
    with pytest.raises(DistributedError, match="rank 0 expects 2 ranks, but rank 1 was told there are 3"):
        local_group(1, 3, store=store, timeout=1)
    store.add("dtrain/rank/1", 1)
    with pytest.raises(DistributedError, match="two processes say that they are rank 1"):
        local_group(1, 2, store=store, timeout=1)
    thread.join(5)


def test_a_full_memory_is_an_error_on_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    store = HashStore(5)
    for rank in (0, 1):
        with pytest.raises(DistributedError, match=r"no room for \d+ MiB of shared memory.*No space left"):
            local_group(rank, 2, store=store, timeout=1)


def test_memory_of_another_job_is_refused() -> None:
    segment = Segment.shared(Layout.default(2).total)
    with pytest.raises(DistributedError, match="belongs to another job"):
        Segment.attach({**segment.handle, "token": "00" * 16})
    with pytest.raises(DistributedError, match="another size"):
        Segment.attach({**segment.handle, "size": 4096})
    segment.unlink()
    with pytest.raises(DistributedError, match="cannot open the shared memory"):
        Segment.attach(segment.handle)


def test_layout_has_no_overlaps() -> None:
    for size, chunk in ((1, None), (2, None), (3, 64), (8, 1000), (64, None)):
        layout = Layout.default(size, chunk)
        spans = [(0, layout.texts)]
        for r in range(size):
            spans.append((layout.text(r), 512))
            for p in (0, 1):
                spans += [(layout.header(r, p), 1024), (layout.slot(r, p), layout.chunk), (layout.result(r, p), layout.result_stride)]
            for d in range(size):
                spans += [(layout.channel_words(r, d), 256), (layout.channel_data(r, d), layout.channel)]
        spans.sort()
        assert all(a + length <= b for (a, length), (b, _) in zip(spans, spans[1:]))
        assert sum(spans[-1]) <= layout.total and all(start % 8 == 0 for start, _ in spans)


def test_run_id() -> None:
    assert run_id({"DTRAIN_RUN_ID": "a", "TORCHELASTIC_RUN_ID": "b"}) == "a"
    assert run_id({"TORCHELASTIC_RUN_ID": "b"}) == "b" and run_id({}) == ""
