"""``TCPStore`` with PyTorch's signature."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from dtrain.comm import store
from dtrain.comm.rendezvous import run_id
from dtrain.comm.work import seconds


class TCPStore(store.TCPStore):
    """A key-value store at ``host_name:port``, served by the process with ``is_master``."""

    def __init__(self, host_name: str, port: int, world_size: int | None = None, is_master: bool = False,
                 timeout: timedelta | float = 300.0, wait_for_workers: bool = True, multi_tenant: bool = False,
                 master_listen_fd: Any = None, use_libuv: bool = True) -> None:
        super().__init__(host_name, port, is_master, float(seconds(timeout) or 300.0), run_id())
        if wait_for_workers and world_size:
            if self.add("dtrain/joined", 1) == world_size:
                self.set("dtrain/all", b"1")
            self.get("dtrain/all")
