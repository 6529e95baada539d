"""From the ends of many ranks to one cause, in words."""

from __future__ import annotations

import signal

import pytest

from dtrain.launcher.failures import Failure, describe, from_report, from_status, root_cause


def raised(rank, time, type="ValueError", message="boom"):
    return Failure(rank, "h", 10 + rank, time, "raised", type=type, message=message)


def killed(rank, time, number=9):
    return Failure(rank, "h", 10 + rank, time, "killed", signal=number)


def test_the_first_is_the_cause():
    assert root_cause([raised(0, 2.0), killed(1, 1.0), raised(2, 3.0)]).rank == 1
    assert root_cause([]) is None


@pytest.mark.parametrize("echo", ["PeerLost", "dtrain.errors.PeerLost", "dtrain.errors.CollectiveTimeout", "ConnectionResetError", "mpi4py.MPI.Exception"])
def test_an_echo_is_the_cause_only_where_nothing_else_is(echo):
    assert root_cause([raised(0, 1.0, echo), killed(1, 2.0)]).rank == 1
    assert root_cause([raised(0, 2.0, echo), raised(1, 1.0, echo)]).rank == 1


@pytest.mark.parametrize(
    "failure, line",
    [
        (killed(1, 0), "rank 1 (h, pid 11) was killed by signal 9 (SIGKILL)"),
        (killed(1, 0, 15), "rank 1 (h, pid 11) was killed by signal 15 (SIGTERM)"),
        (killed(1, 0, 11), "rank 1 (h, pid 11) was killed by signal 11 (SIGSEGV)"),
        (raised(0, 0), "rank 0 (h, pid 10) raised ValueError: boom"),
        (raised(0, 0, message=""), "rank 0 (h, pid 10) raised ValueError"),
        (raised(0, 0, message="one\ntwo"), "rank 0 (h, pid 10) raised ValueError: one [...]"),
        (raised(0, 0, "KeyboardInterrupt"), "rank 0 (h, pid 10) was interrupted (SIGINT)"),
        (Failure(2, "h", 5, 0, "exited", 3), "rank 2 (h, pid 5) exited with code 3"),
        (Failure(2, "h", 5, 0, "exited", 1, message="no data"), "rank 2 (h, pid 5) exited with code 1: no data"),
        (Failure(2, "h", 5, 0, "lost"), "rank 2 (h, pid 5) vanished without a word"),
        (Failure(2, "h", 5, 0, "orphaned"), "rank 2 (h, pid 5) was ended because the process of mpirun above it died"),
    ],
)
def test_words(failure, line):
    assert describe(failure).startswith(line)


@pytest.mark.parametrize("failure, code", [(killed(0, 0), 137), (killed(0, 0, 11), 139), (raised(0, 0), 1), (Failure(0, "h", 1, 0, "exited", 3), 3)])
def test_exit_codes(failure, code):
    assert failure.exit_code == code


def status(code=0, number=0, asked=False):
    return from_status(0, "h", 1, {"code": code, "signal": number, "asked": asked, "orphaned": False, "time": 1.0})


def test_what_a_status_means():
    assert status() is None
    assert status(code=3).exit_code == 3
    assert status(number=9).signal == 9
    assert status(number=signal.SIGTERM, asked=True) is None  # it did as it was told
    assert status(number=signal.SIGSEGV, asked=True).signal == signal.SIGSEGV  # that is not what it was told
    assert status(code=1, asked=True) is None


def test_what_a_report_means():
    values = {"type": "ValueError", "message": "boom", "traceback": "Traceback ...", "code": 1, "time": 2.0}
    assert from_report(3, "h", 9, values) == Failure(3, "h", 9, 2.0, "raised", 1, type="ValueError", message="boom", traceback="Traceback ...")
    assert from_report(3, "h", 9, values | {"type": "SystemExit", "code": 4}).kind == "exited"
