"""The documents of one mapping: read from Redis, from MongoDB when cold, and written through the engine."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Container, Sequence
from contextlib import suppress
from dataclasses import dataclass

import anyio
from redis.exceptions import ResponseError

from gears.contract.errors import (
    CaptureMissing,
    ForeignKey,
    OutcomeUnknown,
    PreconditionFailed,
    RedisAway,
    RedisRefused,
)
from gears.contract.mapping import Mapping
from gears.contract.redis_names import Names
from gears.contract.write_tokens import Token
from gears.documents.mongo_form import Stored, text_of
from gears.engines import Absent, Any_, Engine, Equals, Present, Written
from gears.in_mongo.client import MongoError, within
from gears.in_mongo.errors.describe import describe, held_up
from gears.in_mongo.store import Store
from gears.in_redis.client import AWAY, Redis, send_once
from gears.progress.standing_of_token import Standing, standing
from service.documents.engine_of_mapping import Engines
from service.documents.from_body import same_text
from service.documents.single_flight import SingleFlight
from service.http.bodies import off_loop
from service.http.entity_tags import Conditions
from service.http.problems import ALREADY_EXISTS, CONTENDED, ERRORS, MONGO_UNAVAILABLE, NOT_FOUND, Problem, problem_of

_GLANCE_SECONDS = 1.0
"""Deadline of asking MongoDB for what only decides between 200 and 201."""

_READ_SECONDS = 2.0
"""Deadline of reading from Redis, and then from MongoDB, what a request can't do without."""

_LARGE = 64 * 1024
"""Bytes from which on sending a document costs more than asking MongoDB."""

_ATTEMPTS = 20
"""How often a write is tried that depends on a state which others keep changing."""

_PAUSE_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Put:
    """A document that was stored.

    Args:
        written: what Redis made of it.
        created: whether there was none before.
    """

    written: Written
    created: bool


@dataclass(frozen=True, slots=True)
class New:
    """A document that is to be stored and must not exist yet.

    Args:
        document_id: its id.
        id_is_new: whether the id was made up for it.
        text: JSON text.
    """

    document_id: str
    id_is_new: bool
    text: bytes


class Documents:
    """See the module; all methods raise what `gears.engines.Engine` raises, and `Problem`.

    Args:
        mapping: the mapping.
        redis: where the working set is.
        store: the mapping's documents in MongoDB.
        engines: give the mapping's engine.
        backlog_limit: uncommitted entries from which on nothing more is written.
    """

    def __init__(self, mapping: Mapping, redis: Redis, store: Store, engines: Engines, *, backlog_limit: int) -> None:
        self.mapping = mapping
        self._redis = redis
        self._store = store
        self._engines = engines
        self._backlog_limit = backlog_limit
        self._gone = Names(mapping.prefix).gone
        self._misses: SingleFlight[str, bytes | Problem | RedisAway | None] = SingleFlight()

    async def read(self, document_id: str) -> bytes | None:
        """The document's JSON text; None when there is none.

        Raises:
            RedisAway, ForeignKey: see there.
            Problem: it may be cold, and MongoDB can't be asked.
        """
        text = await self._in_redis(document_id)
        while text is None:
            found, own = await self._misses.run(document_id, lambda: self._try_cold(document_id))
            if isinstance(found, Exception):
                raise found.with_traceback(None)
            if own or found is None:
                return found
            text = await self._in_redis(document_id)  # another's result may be older than this request
        return text

    async def page(self, *, limit: int, after: str | None) -> tuple[list[Stored], bool]:
        """Up to `limit` documents with ids above `after`, by id, from MongoDB, and whether there are more."""
        try:
            return await self._store.documents.page(limit=limit, after=after, seconds=_READ_SECONDS)
        except MongoError as error:
            raise _mongo_unavailable(error, _READ_SECONDS, "lists are read from it") from error

    async def create(self, document_id: str, text: bytes, *, id_is_new: bool) -> Written:
        """Store a document that must not exist yet."""
        exists = False if id_is_new else await self._is_cold(document_id, _READ_SECONDS)
        return await self._put_new(document_id, text, exists=exists)

    async def create_all(self, documents: Sequence[New]) -> list[Written | Problem]:
        """Store documents that must not exist yet, each for itself, sent in their order."""
        known = [new.document_id for new in documents if not new.id_is_new]
        cold: Container[str] = ()
        away: Problem | None = None
        try:
            cold = await self._cold(known, _READ_SECONDS) if known else ()
        except Problem as problem:
            away = problem.with_traceback(None)

        async def put(new: New) -> Written | Problem:
            if away is not None and not new.id_is_new:
                return away
            try:
                return await self._put_new(new.document_id, new.text, exists=new.document_id in cold)
            except ERRORS as error:
                problem = problem_of(error)
                assert problem is not None
                return problem.with_traceback(None)

        return await asyncio.gather(*map(put, documents))

    async def create_once(self, document_id: str, text: bytes) -> Written:
        """As `create`; but what exists and is this very document is written once more, so that it is confirmed."""
        try:
            return await self.create(document_id, text, id_is_new=False)
        except Problem as problem:
            if problem.kind is not ALREADY_EXISTS:
                raise
            current = await self.read(document_id)
            if current is None or not await off_loop(len(text), same_text, current, text):
                raise
            with suppress(PreconditionFailed):
                return await self._put(document_id, text, Equals(current))
            raise

    async def standing(self, token: Token) -> Standing | None:
        """What became of a write; see `gears.progress.standing_of_token.standing`.

        Raises:
            RedisAway, Problem: a server is away.
        """
        try:
            with within(_READ_SECONDS):
                return await standing(self._redis, self.mapping, self._store.log, token)
        except AWAY as error:
            raise RedisAway(str(error)) from error
        except MongoError as error:
            raise _mongo_unavailable(error, _READ_SECONDS, "it knows what became of the write") from error

    async def put(self, document_id: str, text: bytes, conditions: Conditions) -> Put:
        """Store a document, whether it exists or not."""
        if conditions.given:
            return await self._change(document_id, conditions, lambda _: _at_once(text))
        if len(text) < _LARGE:  # which is sent once, whatever that costs otherwise
            with suppress(PreconditionFailed):
                return Put(await self._put(document_id, text, Present()), created=False)
        try:
            cold = await self._is_cold(document_id, _GLANCE_SECONDS)
        except Problem:
            cold = False
        written = await self._put(document_id, text, Any_())
        return Put(written, created=not (written.existed or cold))

    async def change(
        self, document_id: str, conditions: Conditions, change: Callable[[bytes], Awaitable[bytes]]
    ) -> Written:
        """Store what `change` makes of the document."""

        async def change_existing(current: bytes | None) -> bytes:
            if current is None:
                raise self.not_found(document_id)
            return await change(current)

        return (await self._change(document_id, conditions, change_existing)).written

    async def delete(self, document_id: str, conditions: Conditions) -> Written:
        """Delete a document."""
        engine = await self._engines.get(self.mapping.prefix)
        for _ in range(_ATTEMPTS):
            with suppress(PreconditionFailed):
                if not conditions.given:
                    return await engine.delete(document_id, Present(), backlog_limit=self._backlog_limit)
                current = await self.read(document_id)
                conditions.check(current)
                if current is not None:
                    return await engine.delete(document_id, Equals(current), backlog_limit=self._backlog_limit)
            with suppress(PreconditionFailed):
                if not await self._is_cold(document_id, _READ_SECONDS):
                    raise self.not_found(document_id)
                return await engine.delete(document_id, Absent(), backlog_limit=self._backlog_limit)
        raise _contended()

    def not_found(self, document_id: str) -> Problem:
        """There is no such document."""
        return Problem(NOT_FOUND, f"there is no document with the id {document_id!r} in {self.mapping.prefix}")

    async def _put(self, document_id: str, text: bytes, condition: Absent | Any_ | Equals | Present) -> Written:
        engine = await self._engines.get(self.mapping.prefix)
        return await engine.put(document_id, text, condition, backlog_limit=self._backlog_limit)

    async def _put_new(self, document_id: str, text: bytes, *, exists: bool) -> Written:
        with suppress(PreconditionFailed):
            if not exists:
                return await self._put(document_id, text, Absent())
        raise Problem(ALREADY_EXISTS, f"there is a document with the id {document_id!r}; PUT replaces it")

    async def _change(
        self, document_id: str, conditions: Conditions, change: Callable[[bytes | None], Awaitable[bytes]]
    ) -> Put:
        for _ in range(_ATTEMPTS):
            current = await self.read(document_id)
            conditions.check(current)
            text = await change(current)
            with suppress(PreconditionFailed):
                condition = Absent() if current is None else Equals(current)
                return Put(await self._put(document_id, text, condition), created=current is None)
            await anyio.sleep(random.uniform(0, _PAUSE_SECONDS))
        raise _contended()

    async def _in_redis(self, document_id: str) -> bytes | None:
        try:
            async with asyncio.timeout(_READ_SECONDS):
                text: bytes | None = await send_once(self._redis, "JSON.GET", self.mapping.key(document_id))
        except TimeoutError as error:
            raise RedisAway(f"Redis did not answer within {_READ_SECONDS:g} s") from error
        except OutcomeUnknown as error:  # for a read that's the same
            raise RedisAway(str(error)) from error
        except ResponseError as error:
            if "wrong Redis type" in str(error) or "WRONGTYPE" in str(error):
                raise ForeignKey("the key holds another type than a JSON document") from error
            raise RedisRefused(str(error)) from error
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
            with within(_READ_SECONDS):
                stored = await self._store.find_alive(document_id)
        except MongoError as error:
            raise _mongo_unavailable(error, _READ_SECONDS) from error
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
        return None if await self._is_gone(document_id) else text

    async def _ask(self, call: Callable[[Engine], Awaitable[bytes | None]]) -> bytes | None:
        """What the engine answers; None also when there is none, or Redis refuses: a read goes on without."""
        with suppress(CaptureMissing, RedisRefused):
            engine = await self._engines.get(self.mapping.prefix)
            try:
                return await call(engine)
            except OutcomeUnknown as error:
                raise RedisAway(str(error)) from error
        return None

    async def _is_cold(self, document_id: str, seconds: float) -> bool:
        """Whether MongoDB holds the document and no delete of it is under way; raises as `_cold`."""
        return bool(await self._cold([document_id], seconds))

    async def _cold(self, ids: Sequence[str], seconds: float) -> set[str]:
        """Those of these documents that MongoDB holds and no delete of which is under way.

        Raises:
            Problem: MongoDB doesn't say so within so many seconds.
        """
        try:
            with within(seconds):
                versions = await self._store.documents.versions(ids)
        except MongoError as error:
            raise _mongo_unavailable(error, seconds) from error
        return {document_id for document_id in versions if not await self._is_gone(document_id)}

    async def _is_gone(self, document_id: str) -> bool:
        """Whether a delete of the key waits to be committed: its mark begins to expire then."""
        try:
            left: int = await self._redis.pttl(self._gone + document_id)
        except AWAY as error:
            raise RedisAway(str(error)) from error
        return left == -1


async def _at_once(text: bytes) -> bytes:
    return text


def _contended() -> Problem:
    return Problem(CONTENDED, f"the document changed under each of {_ATTEMPTS} attempts; try again")


def _mongo_unavailable(
    error: MongoError, seconds: float, so: str = "nothing can be read that Redis does not hold"
) -> Problem:
    said = f"MongoDB did not answer within {seconds:g} s ({describe(error)})" if error.timeout else held_up(error)
    return Problem(MONGO_UNAVAILABLE, f"{said}; {so}")
