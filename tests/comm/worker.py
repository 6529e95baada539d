"""One rank of a pool: joins the group, then runs what the tests send."""

from __future__ import annotations

import ast
import faulthandler
import os
import signal
import sys
import traceback
from multiprocessing.connection import Client

from dtrain.comm.group import Group


def join(backend: str, options: dict) -> Group:
    """The world group of this process."""
    if backend == "local":
        from dtrain.comm.local import local_group

        where = ("127.0.0.1", int(os.environ["MASTER_PORT"]))
        return local_group(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), address=where, timeout=15, **options)
    from dtrain.comm.mpi import mpi_group

    return mpi_group(timeout=15, shared_memory=backend == "mpi", backend=backend, **options)


def main(backend: str, address: str, folder: str, options: str) -> None:
    group = join(backend, ast.literal_eval(options))
    stderr = os.open(os.path.join(folder, f"stderr.{group.rank}"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(stderr, 2)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    connection = Client(address, authkey=b"pool")
    connection.send((group.rank, os.getpid()))
    while True:
        try:
            fn, args = connection.recv()
        except EOFError:
            break
        try:
            connection.send((fn(group, *args), "", ""))
        except BaseException as error:
            connection.send((None, type(error).__name__, traceback.format_exc()))
    group.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
