"""`/sync`: how far each mapping is committed, what its audits found, and whether a certain write is committed."""

import asyncio
from collections.abc import Mapping as Dict
from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from gears.contract.mapping import Mapping
from gears.contract.write_tokens import Token
from gears.errors import RedisAway
from gears.in_mongo.client import MongoError, within
from gears.in_mongo.collection.fitness import Collection, unfit
from gears.in_mongo.errors.describe import describe
from gears.in_mongo.store import Store
from gears.in_redis.client import AWAY, Redis
from gears.progress.standing_of_token import Standing, standing
from service.http.problems import BAD_REQUEST, MONGO_UNAVAILABLE, NOT_FOUND, Problem
from service.watch.gather_state import DEADLINE, Inspection, Inspector, MappingState

DEFAULT_AUDITS, MAX_AUDITS = 10, 100
"""How many reports of audits are listed."""


class Sync:
    """Handlers.

    Args:
        redis: where the sync streams are.
        stores: the documents of each mapping, by prefix.
        inspector: asks how they are doing.
    """

    def __init__(self, redis: Redis, stores: Dict[str, Store], inspector: Inspector) -> None:
        self._redis = redis
        self._stores = stores
        self._inspector = inspector

    async def overview(self, request: Request) -> Response:
        """How everything is doing."""
        return _json(_inspection_json(await self._inspector.inspect(thorough=True)))

    async def audits(self, request: Request) -> Response:
        """The latest reports of audits, the newest first."""
        asked = request.query_params.get("limit", str(DEFAULT_AUDITS))
        limit = int(asked) if asked.isascii() and asked.isdigit() and len(asked) <= len(str(MAX_AUDITS)) else 0
        if not 1 <= limit <= MAX_AUDITS:
            raise Problem(BAD_REQUEST, f"limit must be a number from 1 to {MAX_AUDITS}, not {asked!r}")
        stores = self._asked_about(request)
        try:
            with within(DEADLINE):
                found = [report for store in stores for report in await store.reports.audits(limit=limit)]
        except MongoError as error:
            raise Problem(MONGO_UNAVAILABLE, describe(error)) from error
        found.sort(key=lambda report: report.started_at, reverse=True)
        return _json({"items": found[:limit]})

    async def token(self, request: Request) -> Response:
        """What became of a write."""
        text = request.path_params["token"]
        try:
            token = Token.parse(text)
        except ValueError as error:
            raise Problem(BAD_REQUEST, f"this is no Sync-Token: {error}") from error
        found: dict[str, Standing] = {}
        try:
            async with asyncio.timeout(DEADLINE):
                for store in self._asked_about(request):
                    if (word := await standing(self._redis, store.mapping, store.log, token)) is not None:
                        found[store.mapping.prefix] = word
        except TimeoutError as error:
            raise RedisAway(f"Redis or MongoDB did not answer within {DEADLINE} s") from error
        except AWAY as error:
            raise RedisAway(str(error)) from error
        except MongoError as error:
            raise Problem(MONGO_UNAVAILABLE, describe(error)) from error
        if not found:
            raise Problem(NOT_FOUND, f"no write has the token {text}, or that is long ago")
        committed = all(word == "committed" for word in found.values())
        return _json({"token": str(token), "committed": committed, "mappings": found})

    def _asked_about(self, request: Request) -> list[Store]:
        """The stores of the mapping that is named in the query, or of all."""
        asked = request.query_params.get("mapping")
        stores = [store for prefix, store in self._stores.items() if asked in (None, prefix)]
        if not stores:
            raise Problem(NOT_FOUND, f"there is no mapping {asked!r}")
        return stores


def _inspection_json(inspection: Inspection) -> dict[str, Any]:
    """An inspection for people and scripts."""
    return {
        "mappings": {state.mapping.prefix: _mapping_json(state) for state in inspection.mappings},
        "errors": inspection.errors,
        "warnings": inspection.warnings,
    }


def _mapping_json(state: MappingState) -> dict[str, Any]:
    backlog = state.backlog
    return {
        "mapping": state.mapping.prefix,
        "namespace": state.mapping.namespace,
        "engine": state.engine,
        "capture": state.capture.as_dict() if state.capture else None,
        "last_entry": str(backlog.last_entry) if backlog else None,
        "watermark": str(backlog.acked.token.id) if backlog else None,
        "backlog": backlog.entries if backlog else None,
        "lag": backlog.lag if backlog else None,
        "worker": backlog.worker if backlog else None,
        "reconciler": state.reconciler,
        "last_audit": state.last_audit,
        "rewinds": state.rewinds,
        "dead_letters": state.dead_letters,
        "collection": None if state.collection is None else _collection_json(state.collection, state.mapping),
        "errors": state.errors,
    }


def _collection_json(collection: Collection, mapping: Mapping) -> dict[str, Any]:
    """What of a collection decides how documents are kept in it, and which are refused."""
    level, action = collection.validation
    validator = {"fields": collection.validated_fields(), "level": level, "action": action}
    return {
        "kind": collection.kind,
        "capped": collection.capped,
        "collation": collection.collation,
        "shard_key": None if collection.shard_key is None else dict(collection.shard_key),
        "validator": validator if collection.validator else None,
        "unique_indexes": [
            {"name": index.name, "fields": [field for field, _ in index.keys]}
            for index in collection.users_unique_indexes(mapping)
        ],
        "unfit": unfit(collection, mapping),
        "unknown": collection.unknown or {},
    }


def _json(content: Any) -> Response:
    return Response(to_json(content), media_type="application/json")
