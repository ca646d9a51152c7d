"""Writing the documents of one mapping through the engine, each write on the condition that its request makes."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Container, Sequence
from contextlib import suppress
from dataclasses import dataclass

import anyio

from gears.contract.mapping import Mapping
from gears.contract.write_tokens import Token
from gears.engines import Absent, Any_, Equals, Present, Written
from gears.engines.engine_of_mapping import Engines
from gears.errors import PreconditionFailed, RedisAway
from gears.in_mongo.client import MongoError, within
from gears.in_mongo.store import Store
from gears.in_redis.client import AWAY, Redis
from gears.progress.standing_of_token import Standing, standing
from service.documents.from_body import same_text
from service.documents.read_through import READ_SECONDS, ReadThrough, mongo_unavailable
from service.http.bodies import off_loop
from service.http.entity_tags import Conditions
from service.http.problems import ALREADY_EXISTS, CONTENDED, ERRORS, Problem, problem_of

_GLANCE_SECONDS = 1.0
"""Deadline of asking MongoDB for what only decides between 200 and 201."""

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


class Writes:
    """The writes to one mapping; all methods raise what `gears.engines.Engine` raises, and `Problem`.

    Args:
        reads: the mapping's documents as they are.
        redis: where the working set is.
        store: the mapping's documents in MongoDB.
        engines: give the mapping's engine.
        backlog_limit: uncommitted entries from which on nothing more is written.
    """

    def __init__(self, reads: ReadThrough, redis: Redis, store: Store, engines: Engines, *, backlog_limit: int) -> None:
        self.mapping: Mapping = reads.mapping
        self._reads = reads
        self._redis = redis
        self._store = store
        self._engines = engines
        self._backlog_limit = backlog_limit

    async def create(self, document_id: str, text: bytes, *, id_is_new: bool) -> Written:
        """Store a document that must not exist yet."""
        exists = False if id_is_new else await self._reads.is_cold(document_id, READ_SECONDS)
        return await self._put_new(document_id, text, exists=exists)

    async def create_all(self, documents: Sequence[New]) -> list[Written | Problem]:
        """Store documents that must not exist yet, each for itself, sent in their order."""
        known = [new.document_id for new in documents if not new.id_is_new]
        cold: Container[str] = ()
        away: Problem | None = None
        try:
            cold = await self._reads.cold(known, READ_SECONDS) if known else ()
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
            current = await self._reads.read(document_id)
            if current is None or not await off_loop(len(text), same_text, current, text):
                raise
            with suppress(PreconditionFailed):
                return await self._put(document_id, text, Equals(current))
            raise

    async def put(self, document_id: str, text: bytes, conditions: Conditions) -> Put:
        """Store a document, whether it exists or not."""
        if conditions.given:
            return await self._change(document_id, conditions, lambda _: _at_once(text))
        if len(text) < _LARGE:  # which is sent once, whatever that costs otherwise
            with suppress(PreconditionFailed):
                return Put(await self._put(document_id, text, Present()), created=False)
        try:
            cold = await self._reads.is_cold(document_id, _GLANCE_SECONDS)
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
                raise self._reads.not_found(document_id)
            return await change(current)

        return (await self._change(document_id, conditions, change_existing)).written

    async def delete(self, document_id: str, conditions: Conditions) -> Written:
        """Delete a document."""
        engine = await self._engines.get(self.mapping.prefix)
        for _ in range(_ATTEMPTS):
            with suppress(PreconditionFailed):
                if not conditions.given:
                    return await engine.delete(document_id, Present(), backlog_limit=self._backlog_limit)
                current = await self._reads.read(document_id)
                conditions.check(current)
                if current is not None:
                    return await engine.delete(document_id, Equals(current), backlog_limit=self._backlog_limit)
            with suppress(PreconditionFailed):
                if not await self._reads.is_cold(document_id, READ_SECONDS):
                    raise self._reads.not_found(document_id)
                return await engine.delete(document_id, Absent(), backlog_limit=self._backlog_limit)
        raise _contended()

    async def standing(self, token: Token) -> Standing | None:
        """What became of a write; see `gears.progress.standing_of_token.standing`.

        Raises:
            RedisAway, Problem: a server is away.
        """
        try:
            with within(READ_SECONDS):
                return await standing(self._redis, self.mapping, self._store.log, token)
        except AWAY as error:
            raise RedisAway(str(error)) from error
        except MongoError as error:
            raise mongo_unavailable(error, READ_SECONDS, "it knows what became of the write") from error

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
            current = await self._reads.read(document_id)
            conditions.check(current)
            text = await change(current)
            with suppress(PreconditionFailed):
                condition = Absent() if current is None else Equals(current)
                return Put(await self._put(document_id, text, condition), created=current is None)
            await anyio.sleep(random.uniform(0, _PAUSE_SECONDS))
        raise _contended()


async def _at_once(text: bytes) -> bytes:
    return text


def _contended() -> Problem:
    return Problem(CONTENDED, f"the document changed under each of {_ATTEMPTS} attempts; try again")
