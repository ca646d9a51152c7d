"""Builds indexes, and does what takes as long: without a deadline, in a thread that keeps no process from ending.

A command whose deadline passes is stopped by the server, and begins again from nothing when it is sent again: with one,
a build that takes longer would never end. `createIndexes` of an index that is being built waits for that build.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from time import monotonic
from typing import Any, TypeVar

import pymongo
from pymongo.errors import PyMongoError

from gears.in_mongo.collection.fitness import Index
from gears.in_mongo.collection.inspect import RawCollection, build_progress

Say = Callable[[str], None]
"""Told what is under way."""

_Result = TypeVar("_Result")

_AT_ONCE = {"w": 1}
"""A built index is in force on the primary at once; what a majority has of what is written from then on came after."""

_PAUSE = 1.0
"""Seconds between looks at how far a build is; who asked is told nothing of shorter ones."""


def say_nothing(_: str) -> None:
    """To nobody."""


async def build(documents: RawCollection, index: Index, say: Say = say_nothing) -> None:
    """Ensure an index, however long it takes.

    Raises:
        MongoError: MongoDB can't be reached, or doesn't make this index.
    """
    collection = documents.delegate
    command = {"createIndexes": documents.name, "indexes": [index.spec], "writeConcern": _AT_ONCE}
    what = f"building the index {index.name!r} of {documents.full_name}"
    await unhurried(lambda: collection.database.command(command), documents, what, say)


async def unhurried(
    work: Callable[[], _Result], documents: RawCollection, what: str, say: Say = say_nothing
) -> _Result:
    """Have a blocking operation on this collection done, however long it takes, and say meanwhile how far it is.

    Args:
        work: does it, with the driver under Motor.
        documents: the collection.
        what: what to say of it.
        say: told each second.
    """
    started, future = monotonic(), _start(work)
    try:
        while not (await asyncio.wait({future}, timeout=_PAUSE))[0]:
            far = None
            with suppress(PyMongoError), pymongo.timeout(_PAUSE):
                far = await build_progress(documents)
            at = "" if far is None else f"{far:.0%} of its present phase, "
            say(f"{what}: {at}{monotonic() - started:.0f} s so far")
        return future.result()
    finally:
        future.cancel()  # if somebody stops waiting; the thread goes on, and ends with the process if not before


def _start(work: Callable[[], _Result]) -> "asyncio.Future[_Result]":
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_Result] = loop.create_future()

    def tell(result: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def run() -> None:
        result, failure = None, None
        try:
            with pymongo.timeout(0):  # no deadline: neither the client's, nor the one of whoever asked
                result = work()
        except BaseException as error:  # noqa: BLE001 it is raised where the result is asked for
            failure = error
        with suppress(RuntimeError):  # nobody waits any longer
            loop.call_soon_threadsafe(tell, result, failure)

    Thread(target=run, daemon=True, name="index build").start()
    return future
