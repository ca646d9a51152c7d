"""Commands that people run: they say whom they wait for, and end at once when they are told to."""

import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, TextIO, cast

import anyio
import typer
from anyio import CancelScope
from pymongo.errors import PyMongoError
from redis.exceptions import AuthenticationError, RedisError

from gears.cli.exception_groups import leaves
from gears.errors import (
    BacklogFull,
    CaptureMissing,
    ConfigError,
    CouldNotCompare,
    ForeignKey,
    OutcomeUnknown,
    RedisAway,
    RedisRefused,
    Unchecked,
)
from gears.in_mongo.errors import describe as mongo_texts
from gears.in_mongo.errors.what_errors_mean import Meaning, judge
from gears.in_redis import describe_errors as redis_texts
from gears.in_redis.pipelining import AWAY

_SILENT = 0.5
"""Seconds without an answer after which it is said who doesn't give it."""

Ask = Callable[[], Awaitable[object]]
"""Asks a server anything."""


FAILURES = (
    BacklogFull,
    CaptureMissing,
    ConfigError,
    CouldNotCompare,
    ForeignKey,
    OutcomeUnknown,
    RedisAway,
    RedisRefused,
    Unchecked,
    RedisError,
    PyMongoError,
    *AWAY,
)
"""What a command says in one line."""

CANNOT = 2
"""The exit code of a command that couldn't do its work."""


@contextmanager
def failing_plainly() -> Iterator[None]:
    """End the command with one line on stderr and exit code 2 where what is in the block fails, alone or in a group."""
    try:
        yield
    except FAILURES as error:
        complain(explain(error))
    except BaseExceptionGroup as errors:
        others = errors.split(FAILURES)[1]
        if others is not None:
            raise others from None
        complain("; ".join(dict.fromkeys(map(explain, leaves(errors)))))
    else:
        return
    raise typer.Exit(CANNOT)


def complain(text: str) -> None:
    """Say on stderr what is wrong, in one line that begins with the command's name."""
    program = Path(sys.argv[0])
    name = program.parent.name if program.stem == "__main__" else program.stem
    sys.stderr.write(f"{name}: {' '.join(text.split())}\n")
    sys.stderr.flush()


def printable(text: str) -> str:
    """What others wrote, without what a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def explain(error: BaseException) -> str:
    """What is wrong and what to do about it, for a person who runs a command."""
    match error:
        case PyMongoError() if judge(error).meaning is Meaning.AWAY:
            return f"{mongo_texts.held_up(error)}; see that it runs, and that MONGO_URI is right"
        case PyMongoError():
            return mongo_texts.held_up(error)
        case AuthenticationError():
            return f"{redis_texts.describe(error)}; correct REDIS_URL"
        case _ if isinstance(error, (RedisAway, *AWAY)):
            return f"{redis_texts.describe(error)}; see that it runs, and that REDIS_URL is right"
        case _:
            return redis_texts.describe(error)


def run_command(work: Callable[[], Awaitable[int]]) -> int:
    """Do this until it is done, or SIGINT or SIGTERM comes; returns its exit code.

    A signal ends the process with 128 and the signal's number, and so does that nobody reads its output any more. It
    doesn't wait for threads in which a driver waits for a server.
    """
    with while_read():
        code, number = anyio.run(_until_told, work)
    if number:
        exit_at_once(128 + number)
    return code


NOBODY_READS = 128 + signal.SIGPIPE
"""The exit code of a command whose output nobody reads any more, as `... | head -1` makes it."""


class _Output:
    """Stdout, with which the process ends: else a broken pipe would pass for a broken connection to a server."""

    def __init__(self, stdout: TextIO) -> None:
        self._stdout = stdout

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stdout, name)

    def write(self, text: str) -> int:
        with _ending():
            return self._stdout.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        with _ending():
            self._stdout.writelines(lines)

    def flush(self) -> None:
        with _ending():
            self._stdout.flush()


@contextmanager
def _ending() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        os._exit(NOBODY_READS)


@contextmanager
def while_read() -> Iterator[None]:
    """End the process with `NOBODY_READS` if nobody reads its output any more while it is in the block."""
    stdout = sys.stdout
    sys.stdout = cast("TextIO", _Output(stdout))
    try:
        yield
        sys.stdout.flush()
    finally:
        sys.stdout = stdout


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
