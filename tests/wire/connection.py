"""One client's connection, and the one to the server that belongs to it."""

import asyncio
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from tests.wire.actions import Action
from tests.wire.command import Command
from tests.wire.message import (
    MORE_TO_COME,
    OP_MSG,
    OP_QUERY,
    Document,
    Message,
    NotTheProtocol,
    pack_reply,
    read_message,
    unpack_reply,
)

_CONNECT_SECONDS = 5.0
_DATABASE = b"\x02$db\x00%b%b\x00"
"""The element of a command that names its database."""

_GONE = (OSError, EOFError, NotTheProtocol, TimeoutError)


class Connection:
    """Passes messages on, in order.

    Args:
        reader: what the client says.
        writer: what the client hears.
        target: host and port of the server.
        renamed: a database's name as the client knows it and as the server does, both of one length.
        thawed: nothing passes while this is not set.
        choose: what is to be done with a command; None to pass it on.
        as_seen_here: what the client hears of a reply to `hello`.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        target: tuple[str, int],
        renamed: tuple[str, str] | None,
        thawed: asyncio.Event,
        choose: Callable[[Command], Action | None],
        as_seen_here: Callable[[Document], Document],
    ) -> None:
        self._reader, self._writer = reader, writer
        self._target = target
        self._renamed = tuple(name.encode() for name in renamed) if renamed else None
        self._thawed = thawed
        self._choose = choose
        self._as_seen_here = as_seen_here
        self._requests: asyncio.Queue[Message | None] = asyncio.Queue()
        self._hung_up = asyncio.Event()
        self._server_reader: asyncio.StreamReader
        self._server_writer: asyncio.StreamWriter | None = None

    async def run(self) -> None:
        """Serve the client until one of the two hangs up; what it sent before still arrives."""
        listening = asyncio.create_task(self._listen())
        try:
            with suppress(*_GONE):
                await self._thawed.wait()
                async with asyncio.timeout(_CONNECT_SECONDS):
                    connected = await asyncio.open_connection(*self._target)
                self._server_reader, self._server_writer = connected
                while (request := await self._requests.get()) is not None:
                    await self._serve(request)
        finally:
            listening.cancel()
            self.abort()

    def abort(self) -> None:
        """Break both connections."""
        self._writer.transport.abort()
        if self._server_writer is not None:
            self._server_writer.transport.abort()

    async def exchange(self, data: bytes, *, answered: bool) -> Message | None:
        """Send this to the server; returns its reply, or None when there is none to come."""
        await self._thawed.wait()
        assert self._server_writer is not None
        if self._renamed:
            known, there = (_DATABASE % (struct.pack("<i", len(name) + 1), name) for name in self._renamed)
            data = data.replace(known, there)
        self._server_writer.write(data)
        await self._server_writer.drain()
        return await self._reply() if answered else None

    async def send(self, data: bytes) -> None:
        """Send this to the client."""
        await self._thawed.wait()
        self._writer.write(data)
        await self._writer.drain()

    async def _listen(self) -> None:
        with suppress(*_GONE):
            while True:
                self._requests.put_nowait(await read_message(self._reader))
        self._hung_up.set()
        self._requests.put_nowait(None)

    async def _reply(self) -> Message:
        """The server's next message.

        Raises:
            EOFError: the client has hung up and doesn't wait for it any more.
        """
        reading = asyncio.create_task(read_message(self._server_reader))
        leaving = asyncio.create_task(self._hung_up.wait())
        try:
            await asyncio.wait((reading, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                raise EOFError
            reply = reading.result()
            if self._renamed:
                known, there = self._renamed
                reply = replace(reply, data=reply.data.replace(there + b".", known + b"."))
            return reply
        finally:
            reading.cancel()
            leaving.cancel()

    async def _serve(self, request: Message) -> None:
        command = Command.parse(request)
        action = self._choose(command) if command is not None else None
        if command is not None and action is not None:
            await action(_Exchange(self, command, self._as_seen_here))
            return
        reply = await self.exchange(request.data, answered=_is_answered(request))
        while reply is not None:
            if command is not None and command.name == "hello":
                document = self._as_seen_here(unpack_reply(reply))
                flags = reply.flags & MORE_TO_COME
                await self.send(pack_reply(request, document, request_id=reply.request_id, flags=flags))
            else:
                await self.send(reply.data)
            reply = await self._reply() if reply.more_to_come else None


class _Exchange:
    """A command that is answered as a rule says."""

    def __init__(self, connection: Connection, command: Command, as_seen_here: Callable[[Document], Document]) -> None:
        self.command = command
        self._connection = connection
        self._as_seen_here = as_seen_here

    async def forward(self, data: bytes | None = None) -> Document:
        request = self.command.message
        reply = await self._connection.exchange(data or self.command.packed(), answered=_is_answered(request))
        if reply is None:
            return {"ok": 1.0, "n": 0}
        document = unpack_reply(reply)
        return self._as_seen_here(document) if self.command.name == "hello" else document

    async def answer(self, document: Document) -> None:
        if _is_answered(self.command.message):
            await self._connection.send(pack_reply(self.command.message, document))

    def cut(self) -> None:
        self._connection.abort()
        raise EOFError


def _is_answered(request: Message) -> bool:
    return request.opcode in (OP_MSG, OP_QUERY) and not request.more_to_come
