"""`/sync/keys/{mapping}/{id}`: where one key stands, on both sides and in between."""

import asyncio
from collections.abc import Mapping as Dict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from gears.contract.mongo_form import Stored
from gears.contract.redis_names import Names
from gears.contract.version import shown
from gears.contract.write_tokens import EntryId, Token
from gears.errors import NotAnId, RedisAway
from gears.in_mongo.client import MongoError, within
from gears.in_mongo.dead_letters import KeptLetter
from gears.in_mongo.errors.describe import describe
from gears.in_mongo.store import Store
from gears.in_redis.client import AWAY, Redis
from gears.in_redis.scripts import script_text
from gears.progress.compare import Kind, Other, RedisState, Verdict, compared
from gears.progress.waiting_entries import Waiting, waiting_of
from service.http.paths import id_of
from service.http.problems import MONGO_UNAVAILABLE, NOT_FOUND, Problem

_SECONDS = 3.0
"""How long MongoDB may take, and both together hardly longer."""

_ATTEMPTS = 3
"""How often a key is looked at that changes meanwhile."""

_JSON_TYPE = b"ReJSON-RL"

_READ = script_text("look_at_key")


@dataclass(frozen=True, slots=True)
class InRedis:
    """What Redis holds of a key at one moment.

    Args:
        state: its document, or why there is none.
        milliseconds_left: its time to live; None for no end.
        delete: id of its latest delete's entry, as far as that is kept.
        aside: its entries that are set aside.
    """

    state: RedisState
    milliseconds_left: int | None
    delete: EntryId | None
    aside: Sequence[Token]


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a key: at Redis first, so that what waits nowhere is in MongoDB.

    Args:
        redis: what Redis holds.
        waiting: what waits.
        stored: what MongoDB holds.
        deleted: the version at which it was deleted last, and when.
        verdict: how the two sides compare.
    """

    redis: InRedis
    waiting: Waiting
    stored: Stored | None
    deleted: tuple[int, datetime] | None
    verdict: Verdict

    @property
    def waits(self) -> bool:
        """Whether a write to the key waits to be committed."""
        return bool(self.waiting.tokens or self.redis.aside)


class KeyStatus:
    """The handler.

    Args:
        redis: where the keys are.
        stores: the documents of each mapping, by prefix.
    """

    def __init__(self, redis: Redis, stores: Dict[str, Store]) -> None:
        self._stores = stores
        self._read = redis.register_script(_READ)
        self._redis = redis

    async def read(self, request: Request) -> Response:
        """Where a key stands; no values, only names of fields."""
        prefix = request.path_params["mapping"]
        store = self._stores.get(prefix)
        if store is None:
            raise Problem(NOT_FOUND, f"there is no mapping {prefix!r}")
        try:
            document_id = id_of(store.mapping, b"/" + request.scope["raw_path"].split(b"/", 3)[-1])
        except NotAnId as error:
            raise Problem(NOT_FOUND, f"there can't be such a document: {error}") from error
        try:
            with within(_SECONDS):
                async with asyncio.timeout(_SECONDS + 0.2):
                    status = await self._status(store, document_id)
        except TimeoutError as error:
            raise RedisAway(f"Redis and MongoDB did not answer within {_SECONDS:g} s") from error
        except AWAY as error:
            raise RedisAway(str(error)) from error
        except MongoError as error:
            raise Problem(MONGO_UNAVAILABLE, describe(error)) from error
        return Response(to_json(status), media_type="application/json")

    async def _status(self, store: Store, document_id: str) -> dict[str, Any]:
        key = store.mapping.key(document_id)
        look, settled = await self._settled(store, document_id)
        letter = await store.dead_letters.latest_of(key.encode())
        version = max(look.stored.version if look.stored else 0, look.deleted[0] if look.deleted else 0)
        state = "pending" if look.waits else (look.verdict.kind or "absent") if settled else "unknown"
        return {
            "mapping": store.mapping.prefix,
            "id": document_id,
            "key": key,
            "state": state,
            "fields": look.verdict.fields,
            "redis": _redis_json(look.redis),
            "pending": _pending_json(look),
            "mongodb": _mongodb_json(look.stored),
            "deleted": look.deleted and {"version": shown(look.deleted[0]), "at": look.deleted[1]},
            "last_commit": {"version": shown(version), "at": await store.log.written_at(version)} if version else None,
            "dead_letter": letter and _letter_json(letter, version),
        }

    async def _settled(self, store: Store, document_id: str) -> tuple[Look, bool]:
        """A look at the key, and whether it is proven: nothing waits, and Redis held the same before and after."""
        look = await self._look(store, document_id)
        for _ in range(_ATTEMPTS):
            if look.waits or look.verdict.kind in (Kind.EQUAL, None):
                return look, True
            again = await self._look(store, document_id)
            same = again.redis.state == look.redis.state and again.verdict == look.verdict
            if same and again.waiting.complete and look.waiting.complete:
                return again, True
            look = again
        return look, False

    async def _look(self, store: Store, document_id: str) -> Look:
        names, key = Names(store.mapping.prefix), store.mapping.key(document_id)
        kind, text, left, mark, aside = await self._read(args=[key, names.gone + document_id, names.aside])
        state = text if text is not None else Other.ABSENT if kind in (b"none", _JSON_TYPE) else Other.FOREIGN
        redis = InRedis(
            state=state,
            milliseconds_left=left if left >= 0 else None,
            delete=None if mark is None else EntryId.parse(mark),
            aside=tuple(map(Token.parse, aside)),
        )
        waiting = await waiting_of(self._redis, names, key)
        stored = (await store.documents.find_many([document_id])).get(document_id)
        deleted = await store.tombstones.last_delete(document_id)
        head = await store.log.head()
        verdict = await compared(store.mapping, state, stored, deleted and deleted[0], head)
        return Look(redis, waiting, stored, deleted, verdict)


def _redis_json(redis: InRedis) -> dict[str, Any]:
    document = redis.state if isinstance(redis.state, bytes) else None
    holds = "document" if document is not None else "nothing" if redis.state is Other.ABSENT else "another type"
    return {
        "holds": holds,
        "bytes": None if document is None else len(document),
        "expires_in": None if redis.milliseconds_left is None else redis.milliseconds_left / 1000,
        "deleted_by": None if redis.delete is None else str(redis.delete),
    }


def _pending_json(look: Look) -> dict[str, Any]:
    tokens = [*look.redis.aside, *look.waiting.tokens]
    return {
        "entries": len(tokens),
        "first": str(tokens[0]) if tokens else None,
        "last": str(tokens[-1]) if tokens else None,
        "set_aside": bool(look.redis.aside),
        "complete": look.waiting.complete,
    }


def _mongodb_json(stored: Stored | None) -> dict[str, Any] | None:
    if stored is None:
        return None
    return {"version": shown(stored.version) if stored.version else None, "bytes": len(stored.raw)}


def _letter_json(letter: KeptLetter, version: int) -> dict[str, Any]:
    return {
        "id": letter.id,
        "at": letter.at,
        "reason": letter.reason,
        "version": shown(letter.fence),
        "written_since": version > letter.fence,
    }
