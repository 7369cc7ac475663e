"""The messages between a server and its computing process: frames, over a socket pair per request.

A frame is a kind, a length and that many bytes. The request is one frame. The answer is
data frames and an end frame, or an error. A closed pair means that the other side has stopped or died.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Literal, cast

from adaptry.core.errors import AdaptryError, Unavailable, by_code

FrameKind = Literal["request", "data", "end", "error"]
MAX_FRAME = 1 << 20
"""Maximum size in bytes of a frame other than a request."""

_MAX_REQUEST = 16 << 20  # a request lists every input file
_KINDS: dict[bytes, FrameKind] = {b"R": "request", b"D": "data", b"Z": "end", b"E": "error"}
_LETTERS = {kind: letter for letter, kind in _KINDS.items()}
_HEAD = struct.Struct(">cI")


class ChannelClosed(Exception):
    """The other side closed the connection before the end of its message."""


def send(channel: socket.socket, kind: FrameKind, payload: bytes | bytearray | memoryview = b"") -> None:
    """Sends one frame. Raises `ChannelClosed`."""
    try:
        channel.sendall(_HEAD.pack(_LETTERS[kind], len(payload)))
        channel.sendall(payload)
    except OSError as error:
        raise ChannelClosed from error


def receive(channel: socket.socket) -> tuple[FrameKind, bytes]:
    """Receives one frame. Raises `ChannelClosed`, and `Unavailable` after the socket's timeout."""
    letter, length = _HEAD.unpack(_exactly(channel, _HEAD.size))
    kind = _KINDS.get(letter)
    if kind is None or length > (_MAX_REQUEST if kind == "request" else MAX_FRAME):
        raise ChannelClosed
    return kind, _exactly(channel, length)


def error_frame(error: AdaptryError) -> bytes:
    response = {"code": error.code, "message": error.message[:100_000]}
    return json.dumps(response).encode()


def error_of(payload: bytes) -> AdaptryError:
    """The error that the other side raised."""
    response = cast(dict[str, str], json.loads(payload))
    return by_code().get(response["code"], AdaptryError)(response["message"])


def _exactly(channel: socket.socket, length: int) -> bytes:
    data = bytearray(length)
    view = memoryview(data)
    while view:
        try:
            count = channel.recv_into(view)
        except TimeoutError as error:
            raise Unavailable("the process that computes merged models does not answer; try again") from error
        except OSError as error:
            raise ChannelClosed from error
        if not count:
            raise ChannelClosed
        view = view[count:]
    return bytes(data)
