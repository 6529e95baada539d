"""Messages between a loader and a worker over a socket pair; arrays go through shared memory.

A message is pickled with its arrays out of band (PEP 574). Those already in the worker's arena are named, the others and a
large pickle are copied once into a segment. So frames on the socket are small, and the loader's arrays are views.
"""

from __future__ import annotations

import io
import os
import pickle
import select
import socket
import struct
from collections import deque
from typing import Any

import numpy as np

from dtrain.data.segments import LARGE, Arena, Inbox

_FRAME = struct.Struct("<Bqqq")
_NEW, _DROP, _INLINE, _SEGMENT = range(4)
_INLINE_MAX = 1024
_HERE = -1                                              # in a message's table: the segment that the message itself is in
_ALIGN = 64
_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class Closed(Exception):
    """The other side has gone."""


class _Pickler(pickle.Pickler):
    """Pickles plain arrays, and Tensors made of them, out of band."""

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is np.ndarray and obj.nbytes >= LARGE and not obj.dtype.hasobject:
            data = np.asarray(obj, order="C")
            return _array, (pickle.PickleBuffer(data.reshape(-1).view(np.uint8)), obj.dtype, obj.shape)
        if type(getattr(obj, "_array", None)) is np.ndarray and kind.__name__ == "Tensor" and not obj.requires_grad:
            return _tensor, (obj._array,)
        return NotImplemented


def _array(data: Any, dtype: np.dtype, shape: tuple) -> np.ndarray:
    return np.frombuffer(data, dtype).reshape(shape)


def _tensor(array: np.ndarray) -> Any:
    import dtrain

    return dtrain.from_numpy(array)


def _read(sock: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        try:
            count = sock.recv_into(view)
        except ConnectionError:
            count = 0
        if not count:
            raise Closed
        view = view[count:]
    return data


class WorkerEnd:
    """The worker's end: takes tasks, sends results, and never blocks on one while the other waits."""

    def __init__(self, sock: socket.socket, arena: Arena, parent: int) -> None:
        """``parent`` is a descriptor that becomes readable when the loader's process ends."""
        self._sock, self._arena, self._parent = sock, arena, parent
        self.tasks: deque[Any] = deque()

    def poll(self, wait: bool) -> None:
        """Take in the messages that are there, if ``wait`` at least one; Closed when the loader has gone."""
        while self._ready(select.POLLIN, wait):
            self._receive()
            wait = False

    def _ready(self, events: int, wait: bool) -> int:
        """Which of ``events`` the socket is ready for; Closed if the loader's process has ended."""
        poller = select.poll()
        poller.register(self._sock, events)
        poller.register(self._parent, select.POLLIN)
        found = dict(poller.poll(None if wait else 0))
        if self._parent in found:
            raise Closed
        return found.get(self._sock.fileno(), 0)

    def _receive(self) -> None:
        (size,) = struct.unpack("<q", _read(self._sock, 8))
        message, returned = pickle.loads(_read(self._sock, size))
        self._arena.give_back(returned)
        self.tasks.append(message)

    def send(self, message: Any) -> None:
        """Send ``message``; what cannot be pickled raises before anything is sent."""
        frame, body = self._pack(message)
        for number in self._arena.dropped:
            self._send(_FRAME.pack(_DROP, number, 0, 0))
        self._arena.dropped.clear()
        for segment in self._arena.new:
            self._send(_FRAME.pack(_NEW, segment.id, segment.size, 0), segment.fd)
            os.close(segment.fd)
        self._arena.new.clear()
        self._send(frame + body)

    def _send(self, data: bytes, fd: int | None = None) -> None:
        while self._ready(select.POLLIN | select.POLLOUT, wait=True) & ~select.POLLOUT:
            self._receive()                               # the loader may be blocked until we do
        try:
            sent = self._sock.send(data) if fd is None else socket.send_fds(self._sock, [data], [fd])
            self._sock.sendall(data[sent:])
        except OSError:
            raise Closed from None

    def _pack(self, message: Any) -> tuple[bytes, bytes]:
        """The frame and what follows it, with everything large in segments."""
        table: list[tuple[int, int, int]] = []            # (segment, offset, size) of each out-of-band buffer
        copies: list[tuple[int, np.ndarray]] = []
        end = 0

        def out_of_band(buffer: pickle.PickleBuffer) -> bool:
            nonlocal end
            raw = buffer.raw()
            if raw.nbytes < LARGE:
                return True
            data = np.frombuffer(raw, np.uint8)
            found = self._arena.find(data)
            if found is None:
                copies.append((end, data))
                table.append((_HERE, end, data.nbytes))
                end += -(-data.nbytes // _ALIGN) * _ALIGN
            else:
                table.append((found, 0, data.nbytes))
            return False

        stream = io.BytesIO()
        try:
            _Pickler(stream, 5, buffer_callback=out_of_band).dump(message)
        except BaseException:
            self._arena.message_done(set())
            raise
        self._arena.message_done({number for number, _, _ in table})
        body = pickle.dumps((stream.getvalue(), table), 5)
        if not copies and len(body) <= _INLINE_MAX:
            return _FRAME.pack(_INLINE, len(body), 0, 0), body
        segment = self._arena.take(end + len(body))
        memory = np.frombuffer(segment.memory, np.uint8)
        for offset, data in copies:
            memory[offset: offset + data.nbytes] = data
        memory[end: end + len(body)] = np.frombuffer(body, np.uint8)
        return _FRAME.pack(_SEGMENT, segment.id, end, len(body)), b""


class LoaderEnd:
    """The loader's end: sends tasks, receives results as views of the worker's segments."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self._inbox = sock, Inbox()

    def send(self, message: Any) -> None:
        """Send a task, and with it the segments no longer used; Closed if the worker has gone."""
        data = pickle.dumps((message, self._inbox.take_returned()), 5)
        try:
            self.sock.sendall(struct.pack("<q", len(data)) + data)
        except OSError:
            raise Closed from None

    def receive(self) -> list[Any]:
        """Take one frame in, which must be there; a list of its message, empty if it only concerned segments."""
        try:
            head, fds, _, _ = socket.recv_fds(self.sock, _FRAME.size, 1, _CLOEXEC)
            if not head:
                raise Closed
            kind, a, b, c = _FRAME.unpack(head + _read(self.sock, _FRAME.size - len(head)))
            if kind == _INLINE:
                return [self._unpack(_read(self.sock, a), None)]
        except ConnectionError:
            raise Closed from None
        if kind == _SEGMENT:
            whole = self._inbox.open(a)
            return [self._unpack(whole[b: b + c], whole)]
        if kind == _NEW:
            self._inbox.add(a, b, fds[0])
        else:
            self._inbox.drop(a)
        return []

    def _unpack(self, body: Any, here: np.ndarray | None) -> Any:
        payload, table = pickle.loads(body)
        opened = {_HERE: here}
        for number in {n for n, _, _ in table} - {_HERE}:
            opened[number] = self._inbox.open(number)
        return pickle.loads(payload, buffers=[np.frombuffer(opened[n], np.uint8, size, offset) for n, offset, size in table])
