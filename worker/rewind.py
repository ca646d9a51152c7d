"""Redis came back older than MongoDB: without its tail, from an older snapshot, or empty.

The watermark in Redis is set after the checkpoint in MongoDB, at the end of every commit. So when the checkpoint is
above the watermark, either a committer stopped in between, and the entry that MongoDB's states are as new as is on the
stream, or Redis has forgotten what was committed. Then MongoDB gives back every document and every delete above the
watermark, except for keys that were written since Redis started, or since it was emptied, or that have a newer entry on
the stream: those win. Where the setting says so, somebody decides first.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import anyio

from gears.checkpoint import Checkpoint
from gears.documents.stored import text_of
from gears.engines import Engine
from gears.failpoint import reached
from gears.redis import Redis, read_at_once, server_run
from gears.refusals import record_refusals
from gears.rewind_store import RewindStore
from gears.rewinds import RewindReport
from gears.stream import BACKFILL, FILL, REWIND, ZERO, Entry, EntryId, Names, decode_entry
from worker.lease import Lease
from worker.room import end_rewind, forget

_PAGE = 1000
_POLL = 0.5


async def fell_back(redis: Redis, names: Names, checkpoint: Checkpoint | None) -> tuple[EntryId, bool]:
    """The watermark in Redis, and whether Redis fell back to it."""
    at = str(ZERO if checkpoint is None else checkpoint.newest)
    text, waiting = await read_at_once(redis, ("GET", names.watermark), ("XRANGE", names.stream, at, at))
    watermark = EntryId.parse(text) if text else ZERO
    if checkpoint is None:
        return watermark, False
    return watermark, not waiting and watermark.version < checkpoint.newest.version


async def find_rewind(redis: Redis, engine: Engine, store: RewindStore) -> tuple[EntryId, Checkpoint, "Rewind | None"]:
    """The watermark in Redis, how far MongoDB is, and what is to be done when Redis fell back."""
    checkpoint = await store.checkpoint()
    watermark, fell = await fell_back(redis, Names(engine.mapping.prefix), checkpoint)
    if checkpoint is None or not fell:
        return watermark, checkpoint or Checkpoint(ZERO, ZERO), None
    return watermark, checkpoint, Rewind(redis, engine, store, watermark=watermark, checkpoint=checkpoint)


class Rewind:
    """Gives Redis back what it lost; nothing may be committed meanwhile.

    Args:
        redis: client with replies as bytes.
        engine: the mapping's engine.
        store: the mapping's documents in MongoDB.
        watermark: what Redis knows to be committed; everything above is given back.
        checkpoint: how far MongoDB is.
    """

    def __init__(
        self, redis: Redis, engine: Engine, store: RewindStore, *, watermark: EntryId, checkpoint: Checkpoint
    ) -> None:
        self._redis = redis
        self._engine = engine
        self._store = store
        self._watermark = watermark
        self.checkpoint = checkpoint
        self.certain = ZERO
        """Up to which entry everything is committed, once that is known."""
        self._names = Names(engine.mapping.prefix)
        self._run = b""
        self._written: set[bytes] = set()
        self._waiting: dict[str, int] = {}
        self._seen = ZERO
        self._line_drawn = False
        self._report = RewindReport(
            mapping=engine.mapping.prefix,
            found_at=datetime.now(UTC),
            watermark=str(watermark),
            checkpoint=str(checkpoint.newest),
        )

    async def allowed(self, blocked: Callable[[str], None]) -> None:
        """Say what would be given back, keep that in MongoDB, and return when somebody has decided for it.

        Args:
            blocked: told why nothing is committed meanwhile.

        Raises:
            MongoError, RedisError: do it again.
        """
        report = self._report
        report.documents, report.deletes = await self._store.count_above(self._watermark.version)
        await self._store.keep_rewind(report)
        name = self._names.rewind
        blocked(
            f"Redis has forgotten what was committed after {report.watermark}, up to {report.checkpoint}: "
            f"{report.documents:,} documents and {report.deletes:,} deletes, which MongoDB has; to have them given "
            f"back: redis-cli SET '{name}' restore"
        )
        while True:
            if await self._redis.getdel(name) == b"restore":
                return
            await anyio.sleep(_POLL)

    async def restore(self, lease: Lease) -> int:
        """Restore deletes, then documents; return how many keys. Doing it again changes nothing.

        Args:
            lease: under which this is done.

        Raises:
            LeaseLost: another committer is at work.
            MongoError, RedisError: it isn't complete; do it again.
        """
        self.certain = max(await self._store.settle(self.checkpoint), min(self._watermark, self.checkpoint.committed))
        self._run = await server_run(self._redis)
        known = await self._store.begin_epoch()
        fence = await forget(self._redis, self._names, self._run, known, after=self._watermark, token=lease.token)
        await self._store.keep_fence(fence)
        reached("stream moved on")
        await record_refusals(self._redis, self._names, await self._store.refused_above(self._watermark.version))
        report = self._report
        report.documents = report.deletes = report.restored = 0
        await self._note_writes()
        above, waiting = self._watermark.version, self._waiting
        async for ids in self._store.deleted_above(above, fence=fence, waiting=waiting):
            report.deletes += len(ids)
            report.restored += await self._give_back(dict.fromkeys(ids), lease)
            reached("deletes given back")
        async for documents in self._store.documents_above(above, fence=fence, waiting=waiting):
            report.documents += len(documents)
            mapping = self._engine.mapping
            states: dict[str, bytes | None] = {stored.id: await text_of(mapping, stored) for stored in documents}
            report.restored += await self._give_back(states, lease)
            reached("documents given back")
        await end_rewind(self._redis, self._names, lease.token)
        report.restored_at = datetime.now(UTC)
        await self._store.keep_rewind(report)
        return report.restored

    async def _give_back(self, states: Mapping[str, bytes | None], lease: Lease) -> int:
        lease.check()
        await self._note_writes()
        given = 0
        for document_id, document in states.items():
            if self._engine.mapping.key(document_id).encode() not in self._written:
                given += await self._engine.restore(document_id, document, since=self._seen, token=lease.token)
        return given

    async def _note_writes(self) -> None:
        """Read on in the stream: which keys are written there, and which of these since Redis started?"""
        prefix = len(self._names.prefix) + 1
        while page := await self._read_stream():
            for entry in page:
                self._seen = entry.id
                self._line_drawn |= entry.event == REWIND
                if entry.event in (FILL, BACKFILL):
                    continue
                self._waiting[entry.key[prefix:].decode(errors="replace")] = entry.id.version
                if self._is_new(entry):
                    self._written.add(entry.key)

    def _is_new(self, entry: Entry) -> bool:
        """Whether an entry tells of a write that MongoDB knows nothing of, not of one that it has replaced since.

        Where there is no watermark, Redis was emptied, or is what it was before anything was committed. Then an entry
        is new if it came after the last commit; its id alone doesn't say so, if ids were ahead of the clock before. But
        after a line was drawn, ids are above those of before.
        """
        checkpoint = self.checkpoint
        if entry.run == self._run or entry.id > checkpoint.newest:
            return True
        return self._watermark == ZERO and not self._line_drawn and entry.id > checkpoint.clock

    async def _read_stream(self) -> list[Entry]:
        page: Any = await self._redis.xrange(self._names.stream, f"({self._seen}", count=_PAGE)
        return [decode_entry(entry_id, fields) for entry_id, fields in page]
