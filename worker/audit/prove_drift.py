"""Is a key that looks different really different? Compared in generations, until equal or proven.

While clients write, Redis is always a little ahead of MongoDB. A difference is proven when everything captured before
Redis was read is committed, MongoDB still differs, and the key changed on neither side meanwhile. The rest is compared
again, except for what is set aside, which is the committer's to bring to MongoDB. The model is https://github.com/mongodb-labs/migration-verifier.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
from redis.exceptions import ResponseError

from gears.contract.mapping import Mapping
from gears.contract.mongo_form import Stored
from gears.contract.redis_names import Names, life_in
from gears.contract.version import is_committed
from gears.contract.write_tokens import ZERO, EntryId
from gears.errors import Refused
from gears.in_mongo.log.batches import Acked, Head
from gears.in_mongo.store import Store
from gears.in_redis.client import Redis
from gears.progress.compare import Kind, Other, RedisState, Verdict, compared
from gears.progress.set_aside_entries import read_aside
from worker.audit.wait_until_committed import wait_committed
from worker.readable import JSON_TYPE

_GENERATIONS = 12
_PAUSE = 0.02


@dataclass(frozen=True, slots=True)
class Proof:
    """How a key's two sides compare for certain.

    Args:
        key: the Redis key.
        verdict: how they compare.
        state: what Redis holds.
        stored: what MongoDB holds.
        deleted_at: the version of the key's tombstone.
        newest: the sync stream's last entry id at that time.
        life: the life at that time.
        head: tells which versions are news to Redis.
    """

    key: bytes
    verdict: Verdict
    state: RedisState
    stored: Stored | None
    deleted_at: int | None
    newest: EntryId
    life: str
    head: Head

    @property
    def mongo_version(self) -> int | None:
        """The version of what MongoDB holds, or of its tombstone."""
        return self.deleted_at if self.stored is None else self.stored.version


@dataclass(slots=True)
class Settled:
    """What became of some keys; those that neither side holds any more are in neither list."""

    proofs: list[Proof] = field(default_factory=list)
    unsettled: list[bytes] = field(default_factory=list)


class Prover:
    """Compares a bounded number of keys for certain.

    Args:
        redis: client with replies as bytes.
        store: the mapping's documents in MongoDB.
        patience: seconds without any commit after which commits are held up.
    """

    def __init__(self, redis: Redis, store: Store, *, patience: float) -> None:
        self._redis = redis
        self._store = store
        self._patience = patience
        self._mapping = store.mapping
        self._names = Names(store.mapping.prefix)

    async def settle(self, keys: Sequence[bytes]) -> Settled:
        """Compare these keys until each is proven, equal or different, is set aside, or keeps changing.

        Raises:
            CouldNotCompare: commits are held up.
            MongoError, RedisError: a server is away.
        """
        settled = Settled()
        pending = list(keys)
        for generation in range(_GENERATIONS):
            if not pending:
                break
            await anyio.sleep(_PAUSE * generation)
            pending = await self._compare(pending, settled)
        settled.unsettled += pending
        return settled

    async def _compare(self, keys: Sequence[bytes], settled: Settled) -> list[bytes]:
        """One generation; returns the keys for the next one."""
        before, captured, acked, _ = await self._read(keys)
        await wait_committed(self._redis, self._mapping, captured, patience=self._patience)
        aside = {entry.key for entry in (await read_aside(self._redis, self._names)).values()}
        settled.unsettled += [key for key in keys if key in aside]
        keys = [key for key in keys if key not in aside]
        if not keys:
            return []
        ids = {key: document_id for key, document_id in with_ids(self._mapping, keys) if document_id is not None}
        stored = await self._store.documents.find_many(ids.values())
        deleted = await self._store.tombstones.versions(ids.values())
        head = await self._store.log.head()
        after, newest, _, life = await self._read(keys)
        pending = []
        for key in keys:
            document, deleted_at = stored.get(ids.get(key, "")), deleted.get(ids.get(key, ""))
            verdict = await compared(self._mapping, after[key], document, deleted_at, head)
            version = max(deleted_at or 0, document.version if document else 0)
            if verdict.kind is None:
                continue
            committed_since = acked.version < version and is_committed(version) and not head.is_news(version)
            if verdict.kind is Kind.EQUAL or (before[key] == after[key] and not committed_since):
                settled.proofs.append(Proof(key, verdict, after[key], document, deleted_at, newest, life, head))
            else:
                pending.append(key)
        return pending

    async def _read(self, keys: Sequence[bytes]) -> tuple[dict[bytes, RedisState], EntryId, Acked, str]:
        """What Redis holds, the last entry id of the sync stream, what is acknowledged and the life at that moment."""
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.xinfo_stream(self._names.stream)
            pipeline.get(self._names.acked)
            pipeline.get(self._names.life)
            pipeline.execute_command("JSON.MGET", *keys, "$")
            for key in keys:
                pipeline.type(key)
            info, acked, life, texts, *types = await pipeline.execute(raise_on_error=False)
        if isinstance(texts, Exception):
            raise texts
        states = {key: _state(text, kind) for key, text, kind in zip(keys, texts, types, strict=True)}
        return states, _last_entry(info), Acked.parse(acked), life_in(life)


def with_ids(mapping: Mapping, keys: Iterable[bytes]) -> Iterator[tuple[bytes, str | None]]:
    """These keys, each with its document's id; None when no document can have it."""
    for key in keys:
        try:
            yield key, mapping.id_of(key)
        except Refused:
            yield key, None


def _state(text: bytes | None, kind: bytes) -> RedisState:
    if text is not None:
        return text[1:-1]
    return Other.ABSENT if kind in (b"none", JSON_TYPE) else Other.FOREIGN


def _last_entry(info: Any) -> EntryId:
    if isinstance(info, ResponseError) and "no such key" in str(info):
        return ZERO
    if isinstance(info, Exception):
        raise info
    return EntryId.parse(info["last-generated-id"])
