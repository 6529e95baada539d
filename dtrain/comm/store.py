"""A small key-value store over TCP, where processes that do not know each other yet meet. Rank 0 serves it.

Frames are a length, a JSON head and raw bytes: nothing that arrives is executed or unpickled. The server binds
the one address it was given, and talks only to clients that name its run. It holds addresses and short notes, no data.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import threading
import time
from typing import Any

from dtrain.errors import ConfigError, DistributedError

_LENGTHS = struct.Struct("!IQ")         # bytes of head, bytes of value
_MAX_HEAD, _MAX_VALUE = 64 * 1024, 64 * 2**20
_MAGIC = "dtrain-store-1"


class Store:
    """Keys to bytes, shared by the ranks: what rendezvous needs of any store."""

    timeout: float

    def set(self, key: str, value: bytes | str) -> None:
        """Store ``value`` under ``key`` and wake those who wait for it."""
        self._call({"op": "set", "key": key}, value.encode() if isinstance(value, str) else value)

    def get(self, key: str, timeout: float | None = None) -> bytes:
        """The value of ``key``; waits for it until the timeout, then raises DistributedError."""
        return self._wait_for(key, self.timeout if timeout is None else timeout)

    def add(self, key: str, amount: int) -> int:
        """Add to a counter, which starts at 0; returns the new value."""
        return int(self._call({"op": "add", "key": key, "amount": amount})[1])

    def check(self, keys: list[str]) -> bool:
        """Whether all ``keys`` are set."""
        return all(self._call({"op": "peek", "key": key})[0]["found"] for key in keys)

    def wait(self, keys: list[str], timeout: float | None = None) -> None:
        """Return when all ``keys`` are set."""
        for key in keys:
            self.get(key, timeout)

    def delete_key(self, key: str) -> bool:
        """Forget ``key``; whether it was set."""
        return bool(self._call({"op": "delete", "key": key})[0]["found"])

    def close(self) -> None:
        """Give up the connection."""

    def _wait_for(self, key: str, timeout: float) -> bytes:
        head, value = self._call({"op": "get", "key": key, "timeout": timeout}, wait=timeout)
        if not head["found"]:
            raise DistributedError(f"nobody set {key!r} in the store within {timeout:g} s")
        return value

    def _call(self, head: dict[str, Any], value: bytes = b"", wait: float = 0.0) -> tuple[dict[str, Any], bytes]:
        raise AssertionError("a Store implements _call")


class Table:
    """The contents of a store, and the meaning of its requests."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}
        self._changed = threading.Condition()

    def answer(self, head: dict[str, Any], value: bytes) -> tuple[dict[str, Any], bytes]:
        """Reply to one request."""
        op, key = head.get("op"), str(head.get("key"))
        with self._changed:
            if op == "set":
                self._values[key] = value
            elif op == "add":
                self._values[key] = str(int(self._values.get(key, b"0")) + int(head["amount"])).encode()
            elif op == "delete":
                return {"found": self._values.pop(key, None) is not None}, b""
            elif op == "get":
                self._changed.wait_for(lambda: key in self._values, float(head["timeout"]))
            elif op != "peek":
                raise ValueError(f"unknown request {op!r}")
            self._changed.notify_all()
            return {"found": key in self._values}, self._values.get(key, b"")


class HashStore(Store):
    """A store inside one process."""

    def __init__(self, timeout: float = 300.0) -> None:
        self.timeout, self._table = timeout, Table()

    def _call(self, head: dict[str, Any], value: bytes = b"", wait: float = 0.0) -> tuple[dict[str, Any], bytes]:
        return self._table.answer(head, value)


class PrefixStore(Store):
    """``store`` with ``prefix/`` before every key."""

    def __init__(self, prefix: str, store: Store) -> None:
        self._prefix, self._store, self.timeout = prefix, store, store.timeout

    def _call(self, head: dict[str, Any], value: bytes = b"", wait: float = 0.0) -> tuple[dict[str, Any], bytes]:
        return self._store._call({**head, "key": f"{self._prefix}/{head['key']}"}, value, wait)


class TCPStore(Store):
    """The store at ``host:port``; ``is_master`` also serves it (port 0: any free one, then in ``port``).

    ``run_id`` must be the same on all sides. Clients keep trying until ``timeout`` seconds have passed. ``at_file`` is the
    file that says where the store is, removed when its server closes.
    """

    def __init__(self, host: str, port: int, is_master: bool = False, timeout: float = 300.0, run_id: str = "",
                 at_file: str | None = None) -> None:
        self.host, self.port, self.timeout, self._file = host, port, timeout, at_file
        self._server = Server(host, port, run_id) if is_master else None
        if self._server is not None:
            self.port = self._server.port
        self._lock = threading.Lock()
        self._socket = connect(host, self.port, run_id, timeout)

    def _call(self, head: dict[str, Any], value: bytes = b"", wait: float = 0.0) -> tuple[dict[str, Any], bytes]:
        with self._lock:
            try:
                self._socket.settimeout(wait + 30.0)
                send_frame(self._socket, head, value)
                return receive_frame(self._socket)
            except (OSError, ValueError) as error:
                raise DistributedError(f"lost the store of rank 0 at {self.host}:{self.port}: {error}") from None

    def close(self) -> None:
        self._socket.close()
        if self._server is not None:
            self._server.close()
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._file)


class Server:
    """Serves a table at one address, with a thread for each client."""

    def __init__(self, host: str, port: int, run_id: str) -> None:
        self._run_id, self._table, self._open = run_id, Table(), set[socket.socket]()
        family, address = _resolve(host, port)
        self._listener = socket.socket(family, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._listener.bind(address)
        except OSError as error:
            self._listener.close()
            raise DistributedError(
                f"rank 0 cannot listen at {host}:{port} ({error.strerror}); MASTER_ADDR must be an address of the host that "
                "rank 0 runs on, and MASTER_PORT a free port there"
            ) from None
        self._listener.listen(1024)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="dtrain-store", daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:             # closed
                return
            threading.Thread(target=self._serve, args=(client,), name="dtrain-store-client", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """Answer one client until it leaves; whoever does not speak the protocol is shown out."""
        self._open.add(client)
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError), client:
            client.settimeout(10.0)
            head, _ = receive_frame(client)
            from hmac import compare_digest

            same = compare_digest(str(head.get("run")).encode(), self._run_id.encode())
            send_frame(client, {"magic": _MAGIC, "welcome": same and head.get("magic") == _MAGIC})
            if not same:
                return
            client.settimeout(None)
            while True:
                send_frame(client, *self._table.answer(*receive_frame(client)))
        self._open.discard(client)

    def close(self) -> None:
        """Stop listening and hang up on everybody."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for client in list(self._open):
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)


def connect(host: str, port: int, run_id: str, timeout: float) -> socket.socket:
    """A connection that was welcomed; retries until ``timeout``, then says what went wrong last."""
    family, address = _resolve(host, port)
    deadline, reason = time.monotonic() + timeout, "nobody listens there"
    while True:
        client = socket.socket(family, socket.SOCK_STREAM)
        client.settimeout(max(min(10.0, deadline - time.monotonic()), 0.1))
        try:
            client.connect(address)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            send_frame(client, {"magic": _MAGIC, "run": run_id})
            head, _ = receive_frame(client)
            if head.get("welcome"):
                return client
            reason = "the store there serves another run"
        except ConnectionRefusedError:
            reason = "nobody listens there"
        except (OSError, ValueError) as error:
            reason = f"what listens there is not a dtrain store, or is busy ({error})"
        client.close()
        if time.monotonic() > deadline:
            raise DistributedError(
                f"cannot meet rank 0 at {host}:{port} within {timeout:g} s: {reason}; check that rank 0 was started and that "
                "all ranks have the same MASTER_ADDR and MASTER_PORT"
            )
        time.sleep(0.02)


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"cannot resolve the address {host!r}, port {port}, of rank 0: {error}") from None
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return found[0][0], found[0][4]


def send_frame(sock: socket.socket, head: dict[str, Any], value: bytes = b"") -> None:
    """Send one frame."""
    text = json.dumps(head).encode()
    sock.sendall(_LENGTHS.pack(len(text), len(value)) + text + value)


def receive_frame(sock: socket.socket) -> tuple[dict[str, Any], bytes]:
    """Receive one frame; ValueError if it is not one, OSError if the connection ends."""
    text_size, value_size = _LENGTHS.unpack(_exactly(sock, _LENGTHS.size))
    if text_size > _MAX_HEAD or value_size > _MAX_VALUE:
        raise ValueError("not a frame of this protocol")
    head = json.loads(_exactly(sock, text_size))
    if not isinstance(head, dict):
        raise ValueError("not a frame of this protocol")
    return head, _exactly(sock, value_size)


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = sock.recv(min(size - len(data), 2**20))
        if not piece:
            raise ConnectionError("the connection was closed")
        data += piece
    return bytes(data)
