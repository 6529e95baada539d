"""The channel between the launcher and the ranks' parents: length-prefixed frames over one stream socket a rank.

mpirun's own forwarding merges the ranks' output and cuts it where its buffers end, so lines tear and nothing says which rank
wrote what. A socket of our own keeps ranks apart and carries how each of them ended. On one host it is a Unix socket
in a folder that only this user can enter; between hosts it is TCP, where each rank proves that it has the job's key.
"""

from __future__ import annotations

import socket
import struct

HEADER = struct.Struct("!BI")
LIMIT = 1 << 20  # a frame is at most 1 MiB: a peer gone wild cannot make us hold more

# Rank to launcher: who I am (JSON), bytes of its two streams, why it failed (JSON), how it ended (JSON).
HELLO, STDOUT, STDERR, REPORT, STATUS = 1, 2, 3, 4, 5
# Launcher to rank: a challenge to answer in HELLO, a signal to pass on (one byte), permission to leave.
NONCE, SIGNAL, LEAVE = 16, 17, 18


class WireError(Exception):
    """Bytes that are no frame of ours."""


class FrameReader:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The frames, as (kind, payload), that ``data`` completes. Raises WireError on one that is too long."""
        self._held += data
        frames = []
        while len(self._held) >= HEADER.size:
            kind, length = HEADER.unpack_from(self._held)
            if length > LIMIT:
                raise WireError(f"a frame of {length} bytes; at most {LIMIT} are taken")
            end = HEADER.size + length
            if len(self._held) < end:
                break
            frames.append((kind, self._held[HEADER.size : end]))
            self._held = self._held[end:]
        return frames


def frame(kind: int, payload: bytes = b"") -> bytes:
    assert len(payload) <= LIMIT
    return HEADER.pack(kind, len(payload)) + payload


def read_frame(sock: socket.socket) -> tuple[int, bytes]:
    """One frame from a blocking socket, and not a byte more."""
    kind, length = HEADER.unpack(_exactly(sock, HEADER.size))
    if length > LIMIT:
        raise WireError(f"a frame of {length} bytes; at most {LIMIT} are taken")
    return kind, _exactly(sock, length)


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            raise WireError("the other side closed the connection")
        data += piece
    return data


def proof(key: str, nonce: bytes, rank: int) -> str:
    """What shows that the sender has the job's key, without sending it."""
    import hmac  # only jobs on several hosts need it

    return hmac.new(key.encode(), nonce + str(rank).encode(), "sha256").hexdigest()


def same(one: str, other: str) -> bool:
    import hmac

    return hmac.compare_digest(one.encode(), other.encode())


def listen(path: str | None, address: str | None) -> tuple[socket.socket, str]:
    """A listening socket and its name for ``connect``: at ``path`` on this host, or on a free port of ``address``."""
    if path is not None:
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.bind(path)
        name = f"unix:{path}"
    else:
        server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        server.bind((address, 0))
        name = f"tcp:{address}:{server.getsockname()[1]}"
    server.listen(4096)
    server.setblocking(False)
    return server, name


def connect(name: str, timeout: float = 30.0) -> socket.socket:
    """A socket connected to what ``listen`` named."""
    kind, _, rest = name.partition(":")
    if kind == "unix":
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(timeout)
        sock.connect(rest)
    else:
        host, _, port = rest.rpartition(":")
        sock = socket.create_connection((host, int(port)), timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A launcher's host that vanishes says nothing; keep-alive ends the wait after about half a minute.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    sock.settimeout(None)
    return sock
