"""All laws on all backends: threads of 1, 2, 3, 4 and 8 ranks; processes of 2, 3 and 4; tiny chunks, to cross many borders."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from dtrain.comm import Group, run_threads, single_group
from tests.comm.laws import LAWS
from tests.comm.pool import pool, stop_all

THREADS = [1, 2, 3, 4, 8]
PROCESSES = [("local", 2), ("local", 3), ("local", 4), ("mpi", 2), ("mpi", 3), ("mpi", 4), ("mpi-messages", 2), ("mpi-messages", 3)]


@pytest.fixture(scope="module", autouse=True)
def pools() -> Iterator[None]:
    yield
    stop_all()


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_single(law: Callable[[Group], None]) -> None:
    group = single_group()
    law(group)
    group.close()


@pytest.mark.parametrize("size", THREADS)
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_threads(law: Callable[[Group], None], size: int) -> None:
    run_threads(law, size, timeout=30)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_threads_with_tiny_chunks(law: Callable[[Group], None], size: int) -> None:
    run_threads(law, size, timeout=60, chunk=4160)


@pytest.mark.parametrize("backend, size", PROCESSES)
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_processes(law: Callable[[Group], None], backend: str, size: int) -> None:
    pool(backend, size).run(law)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_mpi_messages_in_small_pieces(law: Callable[[Group], None]) -> None:
    pool("mpi-messages", 2, chunk=5003).run(law)
