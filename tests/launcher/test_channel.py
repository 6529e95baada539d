"""The channel: frames, greetings and what a stranger can do with it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from dtrain.launcher import sweep, wire
from dtrain.launcher.links import Link, address_towards, free_port
from dtrain.launcher.output import Screen
from dtrain.launcher.spec import Host, LaunchSpec

SPEC = LaunchSpec("t.py", hosts=(Host("h", 2),), prefix=True)
GREETING = {"rank": 1, "local_rank": 1, "host": "h", "pid": 5}


@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_frames_survive_any_cut(piece):
    stream = wire.frame(1, b"abc") + wire.frame(2) + wire.frame(3, b"x" * 500)
    reader = wire.FrameReader()
    found = [frame for start in range(0, len(stream), piece) for frame in reader.feed(stream[start : start + piece])]
    assert found == [(1, b"abc"), (2, b""), (3, b"x" * 500)]


def test_a_frame_that_is_too_long_is_refused_before_it_is_held():
    with pytest.raises(wire.WireError, match="2000000 bytes"):
        wire.FrameReader().feed(wire.HEADER.pack(1, 2_000_000))


@pytest.fixture
def link_and_peer():
    ours, theirs = socket.socketpair()
    written: list[bytes] = []
    screen = Screen(written.append, False)
    link = Link(ours, "")
    yield link, theirs, lambda: (link.receive(SPEC, (screen, screen)), b"".join(written))
    ours.close()
    theirs.close()


def send(peer, *frames):
    for kind, payload in frames:
        peer.sendall(wire.frame(kind, payload if isinstance(payload, bytes) else json.dumps(payload).encode()))


def test_a_rank_s_life(link_and_peer):
    link, peer, receive = link_and_peer
    status = {"code": 0, "signal": 9, "asked": False, "orphaned": False, "time": 1.0}
    send(peer, (wire.HELLO, GREETING), (wire.STDOUT, b"hi\nunfinished"), (wire.STATUS, status))
    failures, shown = receive()
    assert shown == b"[rank 1] hi\n[rank 1] unfinished\n"
    assert [(failure.rank, failure.kind, failure.signal) for failure in failures] == [(1, "killed", 9)]
    assert link.done


def test_a_connection_that_closes_without_a_word(link_and_peer):
    link, peer, receive = link_and_peer
    send(peer, (wire.HELLO, GREETING))
    assert receive()[0] == []
    peer.close()
    assert receive()[0][0].kind == "lost"
    assert link.closed and link.done


def test_a_report_counts_once_and_its_status_no_more(link_and_peer):
    _, peer, receive = link_and_peer
    report = {"type": "ValueError", "message": "m", "traceback": "t", "code": 1, "time": 1.0}
    send(peer, (wire.HELLO, GREETING), (wire.REPORT, report), (wire.STATUS, {"code": 1, "signal": 0, "asked": False, "time": 2.0}))
    assert [failure.type for failure in receive()[0]] == ["ValueError"]


@pytest.mark.parametrize(
    "bytes_sent",
    [b"GET / HTTP/1.1\r\n\r\n", os.urandom(64), wire.frame(wire.HELLO, b"not json"), wire.frame(wire.HELLO, b'{"rank": 7}'), wire.frame(wire.STATUS, b"{}"),
     wire.frame(wire.HELLO, b"[]"), wire.frame(wire.HELLO, b'{"rank": 0}')],
)  # fmt: skip
def test_a_stranger_is_cut_off_and_is_no_failure(link_and_peer, bytes_sent):
    link, peer, receive = link_and_peer
    peer.sendall(bytes_sent)
    peer.shutdown(socket.SHUT_WR)
    while not link.closed:
        failures, shown = receive()
        assert failures == [] and shown == b""
    assert link.rank is None


def test_between_hosts_a_rank_proves_that_it_has_the_key():
    for key, accepted in (("right", True), ("wrong", False)):
        ours, theirs = socket.socketpair()
        link = Link(ours, "right")
        kind, nonce = wire.read_frame(theirs)
        assert kind == wire.NONCE
        send(theirs, (wire.HELLO, GREETING | {"proof": wire.proof(key, nonce, 1)}))
        link.receive(SPEC, (None, None))
        assert (link.rank == 1, link.closed) == (accepted, not accepted)
        ours.close()
        theirs.close()


def test_a_proof_is_for_one_rank_and_one_challenge():
    proofs = {wire.proof(key, nonce, rank) for key in ("a", "b") for nonce in (b"1", b"2") for rank in (0, 1)}
    assert len(proofs) == 8


def test_listen_and_connect(tmp_path):
    for path, address in ((str(tmp_path / "s"), None), (None, "127.0.0.1")):
        server, name = wire.listen(path, address)
        client = wire.connect(name, timeout=5)
        server.setblocking(True)
        accepted, _ = server.accept()
        client.sendall(wire.frame(7, b"x"))
        assert wire.read_frame(accepted) == (7, b"x")
        client.close()
        with pytest.raises(wire.WireError, match="closed"):
            wire.read_frame(accepted)
        accepted.close()
        server.close()


def test_addresses_and_ports():
    assert address_towards("127.0.0.1") == "127.0.0.1"
    assert 0 < free_port() < 65536


# ---------------------------------------------------------------------------------------------------------------- sweep


def test_the_sweep_ends_the_job_s_processes_and_no_others():
    command = [sys.executable, "-c", "import subprocess, time; subprocess.Popen(['sleep', '60'], start_new_session=True); time.sleep(60)"]
    mine = subprocess.Popen(command, env=os.environ | {"DTRAIN_RUN_ID": "sweep-test-a"})
    other = subprocess.Popen(["sleep", "60"], env=os.environ | {"DTRAIN_RUN_ID": "sweep-test-ab"})
    try:
        end = time.monotonic() + 10
        while len(sweep.processes_of("sweep-test-a")) < 2 and time.monotonic() < end:
            time.sleep(0.02)
        assert len(sweep.processes_of("sweep-test-a")) == 2
        assert sweep.end_processes("sweep-test-a") == []
        assert mine.wait(5) == -9 and other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_folders_are_removed_with_links_but_not_what_they_lead_to(tmp_path):
    (tmp_path / "kept").write_text("x")
    job = tmp_path / "job"
    (job / "a/b").mkdir(parents=True)
    (job / "a/b/file").write_text("x")
    (job / "a/link").symlink_to(tmp_path / "kept")
    (job / "folderlink").symlink_to(tmp_path)
    sweep.remove_folder(str(job))
    assert not job.exists() and (tmp_path / "kept").exists()
    sweep.remove_folder(str(job))  # gone already


def test_segments_are_removed_only_if_they_are_old_enough_and_unused(tmp_path, monkeypatch):
    names = ("mpich_shm_1", "mpich_shm_2", "psm2_shm_3", "mydata")
    paths = [str(tmp_path / name) for name in names]
    monkeypatch.setattr(sweep, "_segments", lambda: [path for path in paths if os.path.basename(path).startswith(sweep._SEGMENTS)])
    monkeypatch.setattr(sweep, "_mapped", lambda pid: {paths[1]})
    began = time.time() - 1
    for path in paths:
        open(path, "w").close()
    sweep.remove_segments(began)
    assert [os.path.exists(path) for path in paths] == [True] * 4  # too young
    time.sleep(0.1)
    sweep.remove_segments(time.time())
    assert [os.path.exists(path) for path in paths] == [True] * 4  # older than the job
    sweep.remove_segments(began)
    assert [os.path.exists(path) for path in paths] == [False, True, False, True]
