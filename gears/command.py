"""Commands that people run: they say whom they wait for, and end at once when they are told to."""

import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import NoReturn

import anyio
from anyio import CancelScope
from pymongo.errors import PyMongoError
from redis.exceptions import RedisError

_SILENT = 0.5
"""Seconds without an answer after which it is said who doesn't give it."""

Ask = Callable[[], Awaitable[object]]
"""Asks a server anything."""


def run_command(work: Callable[[], Awaitable[int]]) -> int:
    """Do this until it is done, or SIGINT or SIGTERM comes; returns its exit code.

    A signal ends the process with 128 and the signal's number. It doesn't wait for threads in which a driver waits for
    a server.
    """
    code, number = anyio.run(_until_told, work)
    if number:
        exit_at_once(128 + number)
    return code


def exit_at_once(code: int) -> NoReturn:
    """End the process, whatever the threads of a driver wait for."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


async def _until_told(work: Callable[[], Awaitable[int]]) -> tuple[int, int]:
    number = code = 0
    failed: Exception | None = None

    async def listen(scope: CancelScope) -> None:
        nonlocal number
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for found in signals:
                number = found
                scope.cancel()
                return

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen, tasks.cancel_scope)
        try:
            code = await work()
        except Exception as error:  # noqa: BLE001 raised below, alone instead of in a group
            failed = error
        tasks.cancel_scope.cancel()
    if failed is not None:
        raise failed
    return code, number


@asynccontextmanager
async def saying_whom(servers: Mapping[str, Ask]) -> AsyncIterator[None]:
    """Ask these servers all through a block, and say so on stderr when one doesn't answer.

    Args:
        servers: how each is asked, by what it is called; that this fails is for others to say.
    """
    failed: Exception | None = None
    async with anyio.create_task_group() as tasks:
        for who, ask in servers.items():
            tasks.start_soon(_say_whom, who, ask)
        try:
            yield
        except Exception as error:  # noqa: BLE001 raised below, alone instead of in a group
            failed = error
        tasks.cancel_scope.cancel()
    if failed is not None:
        raise failed


async def _say_whom(who: str, ask: Ask) -> None:
    while True:
        answered = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_say_unless, answered, who)
            with suppress(PyMongoError, RedisError, OSError):
                await ask()
            answered.set()
        await anyio.sleep(_SILENT)


async def _say_unless(answered: anyio.Event, who: str) -> None:
    with anyio.move_on_after(_SILENT):
        await answered.wait()
        return
    sys.stderr.write(f"waiting for {who}, which doesn't answer; Ctrl-C ends this\n")
    sys.stderr.flush()
