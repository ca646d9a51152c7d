"""What committing relies on in MongoDB, watched all the time: the unique index, and what was acknowledged."""

from collections.abc import Callable
from contextlib import suppress
from time import monotonic

import anyio

from gears.errors import MongoWasPutBack
from gears.in_mongo.client import MongoError
from gears.in_mongo.store import Store
from worker.commit.term import Term

LOOK_EVERY, _TRIM_EVERY = 2.0, 30.0
"""Seconds between looks at what committing relies on, and between trims of the log."""


class MongoWatch:
    """Watches one mapping's documents and log.

    Args:
        store: the mapping's documents in MongoDB.
        term: the committer's; it may begin later.
        holds: called when MongoDB was seen to hold what was acknowledged, if anything was.
    """

    def __init__(self, store: Store, term: Term, holds: Callable[[], None]) -> None:
        self._store = store
        self._term = term
        self._holds = holds
        self._witness = 0

    async def run(self) -> None:
        """Ensure all the time what committing relies on, until cancelled.

        The unique index keeps committers that overlap from storing a document twice; and MongoDB holds what it has
        acknowledged.

        Raises:
            MongoWasPutBack: it doesn't.
        """
        trimmed = monotonic()
        while True:
            await anyio.sleep(LOOK_EVERY)
            with suppress(MongoError):  # the commits say so
                await self._store.set_up.ensure_unique()
                await self._check_log()
                if self._term.acked.version:
                    self._holds()
                if monotonic() > trimmed + _TRIM_EVERY:
                    trimmed = monotonic()
                    await self._store.log.trim()

    async def _check_log(self) -> None:
        """See that MongoDB still holds what it has acknowledged, also if more was committed since it was put back.

        Raises:
            MongoWasPutBack: it doesn't; start again.
            MongoError: it can't be asked.
        """
        acked = self._term.acked.version
        newest = await self._store.log.newest()
        known = newest.version if newest is not None else 0
        if known < acked or (self._witness and not await self._store.log.has(self._witness)):
            raise MongoWasPutBack("MongoDB doesn't hold any more what it had acknowledged")
        self._witness = acked if await self._store.log.has(acked) else 0
