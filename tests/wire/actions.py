"""What can be done with a command."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Protocol

from tests.wire.command import Command
from tests.wire.message import Document
from tests.wire.replies import item_errors_reply, merged_reply


class Exchange(Protocol):
    """A command that a client waits for the answer to."""

    command: Command

    async def forward(self, data: bytes | None = None) -> Document:
        """Have the server do the command, or what this message says instead; returns its reply."""

    async def answer(self, document: Document) -> None:
        """Answer the client."""

    def cut(self) -> None:
        """Break the connection."""


Action = Callable[[Exchange], Awaitable[None]]

Indexes = int | Collection[int] | Callable[[Document], bool] | None
"""One item's place, several, what says of an item whether it is meant, or None for all."""


async def pass_on(exchange: Exchange) -> None:
    """Have the server answer."""
    await exchange.answer(await exchange.forward())


def item_error(
    code: int,
    *,
    name: str = "",
    errmsg: str = "said by the proxy",
    index: Indexes = None,
    extra: Document | None = None,
) -> Action:
    """Items fail with this code; the server does the others, or in an ordered write, those before the first of them.

    Args:
        code: the error's number.
        name: the error's `codeName`; write errors of real servers have none.
        errmsg: its text.
        index: which items fail.
        extra: more fields of each error: `keyPattern`, `errInfo`, ...
    """

    async def act(exchange: Exchange) -> None:
        command = exchange.command
        failing = _chosen(index, command)
        if command.ordered:
            failing = failing[:1]
        end = failing[0] if command.ordered and failing else command.size
        others = [i for i in range(end) if i not in failing]
        reply = await exchange.forward(command.packed_with(others)) if others else {"ok": 1.0, "n": 0}
        error = _error(code, name, errmsg) | (extra or {})
        await exchange.answer(item_errors_reply(merged_reply(reply, others), failing, error, command))

    return act


def top_error(
    code: int,
    *,
    name: str = "",
    errmsg: str = "said by the proxy",
    labels: Sequence[str] = (),
    applied: bool = False,
    extra: Document | None = None,
) -> Action:
    """The whole command fails with this code, before the server hears of it or after it was done."""
    document = {"ok": 0.0, **_error(code, name, errmsg), **_labelled(labels), **(extra or {})}

    async def act(exchange: Exchange) -> None:
        if applied:
            await exchange.forward()
        await exchange.answer(document)

    return act


def write_concern_error(
    code: int,
    *,
    name: str = "",
    errmsg: str = "said by the proxy",
    labels: Sequence[str] = (),
    info: Document | None = None,
) -> Action:
    """The server does the command; the answer says that it isn't confirmed."""
    error = _error(code, name, errmsg) | ({"errInfo": info} if info else {})

    async def act(exchange: Exchange) -> None:
        await exchange.answer(await exchange.forward() | {"writeConcernError": error} | _labelled(labels))

    return act


def apply_then_cut(index: Indexes = None) -> Action:
    """The server does these items, then the connection breaks: as a primary that steps down in the midst of a write."""

    async def act(exchange: Exchange) -> None:
        chosen = _chosen(index, exchange.command)
        if chosen:
            await exchange.forward(exchange.command.packed_with(chosen))
        exchange.cut()

    return act


def cut(*, applied: bool = False) -> Action:
    """The connection breaks, before the server hears of the command or after it was done."""

    async def act(exchange: Exchange) -> None:
        if applied:
            await exchange.forward()
        exchange.cut()

    return act


def delay(seconds: float, then: Action = pass_on) -> Action:
    """The command arrives late, also when the client has hung up meanwhile."""

    async def act(exchange: Exchange) -> None:
        await asyncio.sleep(seconds)
        await then(exchange)

    return act


def delay_answer(seconds: float) -> Action:
    """The answer arrives late."""

    async def act(exchange: Exchange) -> None:
        reply = await exchange.forward()
        await asyncio.sleep(seconds)
        await exchange.answer(reply)

    return act


def change_reply(change: Callable[[Document], Any]) -> Action:
    """The server's reply is changed by this function: in place, or to the document that it returns."""

    async def act(exchange: Exchange) -> None:
        reply = await exchange.forward()
        changed = change(reply)
        await exchange.answer(reply if changed is None else changed)

    return act


def _chosen(index: Indexes, command: Command) -> list[int]:
    if index is None:
        return list(range(command.size))
    if callable(index):
        return [i for i, item in enumerate(command.items) if index(item)]
    wanted = {index} if isinstance(index, int) else set(index)
    return sorted(i for i in wanted if i < command.size)


def _error(code: int, name: str, errmsg: str) -> Document:
    return {"code": code, "errmsg": errmsg} | ({"codeName": name} if name else {})


def _labelled(labels: Sequence[str]) -> Document:
    return {"errorLabels": list(labels)} if labels else {}
