"""Reading through: from Redis, and what is cold from MongoDB, which gives Redis the document back."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from time import monotonic

from redis.exceptions import RedisError, ResponseError

from gears.contract.mapping import Mapping
from gears.contract.mongo_form import Stored, text_of
from gears.contract.redis_names import Names
from gears.engines import Engine
from gears.engines.engine_of_mapping import Engines
from gears.errors import CaptureMissing, ForeignKey, OutcomeUnknown, RedisAway, RedisRefused
from gears.in_mongo.client import MongoError, within
from gears.in_mongo.errors.describe import describe, held_up
from gears.in_mongo.errors.what_errors_mean import Cause, judge
from gears.in_mongo.store import Store
from gears.in_redis.client import AWAY, Redis, send_once
from service.documents.forgotten import not_older
from service.documents.single_flight import SingleFlight
from service.http.problems import MONGO_UNAVAILABLE, NOT_FOUND, Problem

READ_SECONDS = 2.0
"""Deadline of reading from Redis, and then from MongoDB, what a request can't do without."""

_DOUBT_SECONDS, _UNASKED_SECONDS = 1.0, 5.0
"""Deadline of asking MongoDB what Redis may have forgotten; and, where it fails, for how long it isn't asked again."""

_NONE, _WAITS = -2, -1
"""There is no mark; or its delete waits to be committed, when it begins to expire. What PTTL says of them."""


class ReadThrough:
    """Reads the documents of one mapping; all methods raise what `gears.engines.Engine` raises, and `Problem`.

    Args:
        mapping: the mapping.
        redis: where the working set is.
        store: the mapping's documents in MongoDB.
        engines: give the mapping's engine.
        is_checked: whether Redis has certainly forgotten nothing.
    """

    def __init__(
        self,
        mapping: Mapping,
        redis: Redis,
        store: Store,
        engines: Engines,
        is_checked: Callable[[], bool],
    ) -> None:
        self.mapping = mapping
        self._redis = redis
        self._store = store
        self._engines = engines
        self._is_checked = is_checked
        self._unasked_until = 0.0
        self._gone = Names(mapping.prefix).gone
        self._misses: SingleFlight[str, bytes | Problem | RedisAway | None] = SingleFlight()

    async def read(self, document_id: str) -> bytes | None:
        """The document's JSON text; None when there is none.

        Raises:
            RedisAway, ForeignKey: see there.
            Problem: it may be cold, and MongoDB can't be asked.
        """
        text = await self._present(document_id)
        while text is None:
            found, own = await self._misses.run(document_id, lambda: self._try_cold(document_id))
            if isinstance(found, Exception):
                raise found.with_traceback(None)
            if own or found is None:
                return found
            text = await self._present(document_id)  # another's result may be older than this request
        return text

    async def page(self, *, limit: int, after: str | None) -> tuple[list[Stored], bool]:
        """Up to `limit` documents with ids above `after`, by id, from MongoDB, and whether there are more."""
        try:
            return await self._store.documents.page(limit=limit, after=after, seconds=READ_SECONDS)
        except MongoError as error:
            raise mongo_unavailable(error, READ_SECONDS, "lists are read from it") from error

    async def is_cold(self, document_id: str, seconds: float) -> bool:
        """Whether MongoDB holds the document and no delete of it is under way; raises as `cold`."""
        return bool(await self.cold([document_id], seconds))

    async def cold(self, ids: Sequence[str], seconds: float) -> set[str]:
        """Those of these documents that MongoDB holds and no delete of which is under way.

        Raises:
            Problem: MongoDB doesn't say so within so many seconds.
        """
        marks = {document_id: await self._mark(document_id) for document_id in await self._held(ids, seconds)}
        cold = {document_id for document_id, mark in marks.items() if mark == _NONE}
        # The delete of these may have been committed since MongoDB was asked.
        doubtful = [document_id for document_id, mark in marks.items() if mark not in (_NONE, _WAITS)]
        return cold | await self._held(doubtful, seconds) if doubtful else cold

    async def _held(self, ids: Sequence[str], seconds: float) -> set[str]:
        try:
            with within(seconds):
                return set(await self._store.documents.versions(ids))
        except MongoError as error:
            raise mongo_unavailable(error, seconds) from error

    def not_found(self, document_id: str) -> Problem:
        """There is no such document."""
        return Problem(NOT_FOUND, f"there is no document with the id {document_id!r} in {self.mapping.prefix}")

    async def _in_redis(self, document_id: str) -> bytes | None:
        try:
            async with asyncio.timeout(READ_SECONDS):
                text: bytes | None = await send_once(self._redis, "JSON.GET", self.mapping.key(document_id))
        except TimeoutError as error:
            raise RedisAway(f"Redis did not answer within {READ_SECONDS:g} s") from error
        except OutcomeUnknown as error:  # for a read that's the same
            raise RedisAway(str(error)) from error
        except ResponseError as error:
            if "wrong Redis type" in str(error) or "WRONGTYPE" in str(error):
                raise ForeignKey("the key holds another type than a JSON document") from error
            raise RedisRefused(str(error)) from error
        return text

    async def _present(self, document_id: str) -> bytes | None:
        """What Redis holds, unless it may have forgotten something that MongoDB knows."""
        text = await self._in_redis(document_id)
        if self._is_checked() or monotonic() < self._unasked_until:
            return text
        try:
            with within(_DOUBT_SECONDS):
                return await not_older(self._redis, self._store, document_id, text)
        except AWAY as error:
            raise RedisAway(str(error)) from error
        except RedisError:  # what Redis holds is all that is known
            return text
        except MongoError:
            self._unasked_until = monotonic() + _UNASKED_SECONDS
            return text

    async def _try_cold(self, document_id: str) -> bytes | Problem | RedisAway | None:
        """As `_read_cold`, but returns that a server is away, to all who wait: each would wait as long for it again."""
        try:
            return await self._read_cold(document_id)
        except (Problem, RedisAway) as error:
            return error

    async def _read_cold(self, document_id: str) -> bytes | None:
        """What MongoDB holds, given back to Redis; None when it was deleted since."""
        ticket = await self._ask(lambda engine: engine.ticket(document_id))
        try:
            with within(READ_SECONDS):
                stored = await self._store.find_alive(document_id)
        except MongoError as error:
            raise mongo_unavailable(error, READ_SECONDS) from error
        if stored is None:
            return None
        text, version = await text_of(self.mapping, stored), stored.version
        if ticket is not None:
            filled = await self._ask(lambda engine: engine.fill(document_id, text, version=version, ticket=ticket))
            if filled is not None:
                return filled
        current = await self._in_redis(document_id)
        if current is not None:
            return current
        if await self._mark(document_id) == _NONE:
            return text
        return text if await self.is_cold(document_id, READ_SECONDS) else None

    async def _ask(self, call: Callable[[Engine], Awaitable[bytes | None]]) -> bytes | None:
        """What the engine answers; None also when there is none, or Redis refuses: a read goes on without."""
        with suppress(CaptureMissing, RedisRefused):
            engine = await self._engines.get(self.mapping.prefix)
            try:
                return await call(engine)
            except OutcomeUnknown as error:
                raise RedisAway(str(error)) from error
        return None

    async def _mark(self, document_id: str) -> int:
        """The mark of the key's delete: `_NONE`, `_WAITS`, or else it was committed a moment ago."""
        try:
            left: int = await self._redis.pttl(self._gone + document_id)
        except AWAY as error:
            raise RedisAway(str(error)) from error
        return left


def mongo_unavailable(
    error: MongoError, seconds: float, so: str = "nothing can be read that Redis does not hold"
) -> Problem:
    """What to raise when MongoDB didn't answer.

    Args:
        error: what the driver raised.
        seconds: how long it was given.
        so: what comes of that.
    """
    slow = judge(error).cause is Cause.SLOW
    said = f"MongoDB did not answer within {seconds:g} s ({describe(error)})" if slow else held_up(error)
    return Problem(MONGO_UNAVAILABLE, f"{said}; {so}")
