"""HTTP/1.1 as uvicorn speaks it, with bounds on what clients may take, and problem details for what isn't HTTP."""

import asyncio
import resource
from http import HTTPStatus
from typing import ClassVar, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.http.problems import (
    BAD_REQUEST,
    HEAD_TOO_LARGE,
    MEDIA_TYPE,
    OVERLOADED,
    REQUEST_TIMEOUT,
    ProblemType,
    problem_json,
)
from service.http.slow_clients import Patience

MAX_HEAD = 64 * 1024
"""Largest request line and headers, or trailers, in bytes; the parser itself knows no bound."""

HEAD_SECONDS = 10.0
"""How long a request's head may take, from the connection or the last answer on. Idle ones end after 5 s."""

MAX_PIPELINED = 100
"""Most requests that one connection may send ahead of their answers."""

MAX_CONNECTIONS = 10_000
"""Most connections; the one that has waited longest for a head makes room."""

OTHER_FILES = 256
"""File descriptors that are left for all else: Redis, MongoDB, listening."""

UNREAD_SECONDS = 60.0
"""How long a client may take to read an answer."""

MAX_UNREAD = 256 * 1024 * 1024
"""Most bytes of answers that clients have not read."""


def raise_file_limit() -> None:
    """Let this process have as many file descriptors as it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_CONNECTIONS + OTHER_FILES
    resource.setrlimit(resource.RLIMIT_NOFILE, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def max_connections() -> int:
    """How many connections there may be, given the limit on file descriptors."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, min(MAX_CONNECTIONS, soft - OTHER_FILES))


class HttpProtocol(HttpToolsProtocol):
    """One connection."""

    _heads: ClassVar["Patience[HttpProtocol]"] = Patience(HEAD_SECONDS)
    _readers: ClassVar["Patience[_Reader]"] = Patience(UNREAD_SECONDS, most_bytes=MAX_UNREAD)

    _unparsed = 0
    """Bytes since the parser last made something of them."""

    _active: RequestResponseCycle | None = None
    """The request that is being answered; those sent ahead of its answer wait."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self._reader = _Reader(transport)
        if len(self.connections) > max_connections() and not self._heads.give_up_longest():
            self._refuse(OVERLOADED, f"{len(self.connections) - 1} connections are busy")
            return
        self._heads.begin(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._heads.end(self)
        self._readers.end(self._reader)
        self._disconnect()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        self._unparsed += len(data)
        super().data_received(data)
        if self._unparsed > MAX_HEAD and not self.transport.is_closing():
            self._refuse(HEAD_TOO_LARGE, f"the request line and headers are longer than {MAX_HEAD // 1024} KiB")

    def on_message_begin(self) -> None:
        """A request begins."""
        self._unparsed = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Its head has been read."""
        self._unparsed = 0
        self._heads.end(self)
        super().on_headers_complete()
        self.cycle.transport = _Answer(self.transport)  # type: ignore[assignment]
        self._active = self._active or self.cycle
        if len(self.pipeline) > MAX_PIPELINED and not self.transport.is_closing():
            self._refuse(BAD_REQUEST, f"more than {MAX_PIPELINED} requests were sent ahead of their answers")

    def on_body(self, body: bytes) -> None:
        """Some of its body."""
        self._unparsed = 0
        super().on_body(body)

    def on_response_complete(self) -> None:
        """It has been answered."""
        assert self._active is not None
        cast("_Answer", self._active.transport).end()
        self._active = self.pipeline[-1][0] if self.pipeline else None
        super().on_response_complete()
        if self._active is None and not self.transport.is_closing():
            self._heads.begin(self)

    def pause_writing(self) -> None:
        """The client doesn't read as fast as it is answered."""
        super().pause_writing()
        self._readers.begin(self._reader, self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """It has read what there was."""
        super().resume_writing()
        self._readers.end(self._reader)

    def give_up(self) -> None:
        """No head came in time, or others need the room."""
        if self._unparsed and not self.transport.is_closing():
            self._refuse(REQUEST_TIMEOUT, f"the request's head took longer than {HEAD_SECONDS:g} s")
        else:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """What was sent isn't HTTP."""
        self._refuse(BAD_REQUEST, msg)

    def _refuse(self, kind: ProblemType, detail: str) -> None:
        """End the connection, with a problem unless it would be taken for the answer to a request under way."""
        if self._active is None:
            content = problem_json(kind, detail)
            head = (
                f"HTTP/1.1 {kind.status} {HTTPStatus(kind.status).phrase}\r\n"
                f"content-type: {MEDIA_TYPE}\r\ncontent-length: {len(content)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + content)
        self._disconnect()
        self.transport.close()

    def _disconnect(self) -> None:
        """Tell the request under way that nobody waits for its answer; uvicorn tells only the last one sent."""
        if self._active is not None:
            self._active.disconnected = True
            self._active.message_event.set()


class _Reader:
    """The side of a connection on which the client reads."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def give_up(self) -> None:
        """It doesn't: what is kept for it is dropped."""
        self._transport.abort()


class _Answer:
    """The transport as uvicorn writes an answer to it: the head waits for what follows, so that both take one call."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = None
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        """Send this, unless it is the head."""
        if self._head is None and not data.startswith(b"HTTP/1.1 100"):
            self._head = data
        elif self._head:
            self._transport.writelines([self._head, data])
            self._head = b""
        else:
            self._transport.write(data)

    def end(self) -> None:
        """Send the head if nothing followed it."""
        if self._head:
            self._transport.write(self._head)
            self._head = b""

    def close(self) -> None:
        """Close the connection when everything is sent."""
        self.end()
        self._transport.close()
