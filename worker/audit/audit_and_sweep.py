"""The audit: every document in MongoDB against its key, every key in Redis against its document.

Two passes at full speed find suspects; bounded windows of these are proven (see `worker.audit.prove_drift`) and
repaired as they come. Memory doesn't grow with the number of documents, nor with that of differences.
"""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import anyio

from gears.contract.mapping import Mapping
from gears.contract.mongo_form import Stored
from gears.engines import Engine
from gears.in_mongo.reports.audit_report import AuditReport
from gears.in_mongo.store import Store
from gears.in_redis.client import Redis
from gears.progress.compare import DRIFT, look_equal
from worker.audit.delete_cold import Cold, delete_cold
from worker.audit.prove_drift import Proof, Prover, with_ids
from worker.audit.repair import DIFFERS, repair
from worker.audit.tally import Tally
from worker.rate_limit import Pace
from worker.readable import readable

_SCAN_COUNT = 1000
_WINDOW = 500


class Audit:
    """One audit of one mapping.

    Args:
        redis: client with replies as bytes.
        store: the mapping's documents in MongoDB.
        engine: the mapping's engine.
        rate: most documents per second; 0 for no limit.
        patience: seconds without any commit after which commits are held up.
        repairing: whether to repair drift.
        deleting: whether to delete cold documents too, where their absence from Redis means that they were deleted.
        because: why the audit is made.
        on_progress: called with the mapping's prefix, the steps done and about how many there are.
    """

    def __init__(
        self,
        redis: Redis,
        store: Store,
        engine: Engine,
        *,
        rate: float,
        patience: float,
        repairing: bool,
        deleting: bool,
        because: str,
        on_progress: Callable[[str, int, int], None] = lambda *_: None,
    ) -> None:
        self._redis = redis
        self._store = store
        self._engine = engine
        self._mapping = engine.mapping
        self._repairing = repairing
        self._deleting = repairing and deleting
        self._patience = patience
        self._on_progress = on_progress
        self._pace = Pace(rate)
        self._prover = Prover(redis, store, patience=patience)
        self._window: list[bytes] = []
        self._cold = Cold()
        self._done = self._total = 0
        self._report = AuditReport(mapping=self._mapping.prefix, started_at=datetime.now(UTC), because=because)
        self._tally = Tally(self._report)

    async def run(self) -> AuditReport:
        """Compare everything, repair if asked to, keep the report in MongoDB and return it.

        Raises, alone or in a group:
            CouldNotCompare: commits are held up.
            MongoError, RedisError, RedisAway, OutcomeUnknown: a server is away.
            CaptureMissing: the recipe that a repair needs isn't installed.
        """
        started = monotonic()
        report = self._report
        documents = await self._store.documents.estimated_count()
        self._total = documents + await self._redis.dbsize()
        await self._compare_documents()
        self._done = documents
        async for keys in _scan(self._redis, self._mapping):
            await self._find_missing(keys)
        while self._window:
            await self._settle(holding=False)
        if self._cold.keys:
            await self._delete_cold()
        report.seconds = round(monotonic() - started, 3)
        report.documents_per_second = round(report.compared / max(report.seconds, 0.001), 1)
        before = await self._store.reports.last_audit()
        if report.left:
            report.drift_since = (before and before.drift_since) or report.started_at
        await self._store.reports.keep_audit(report)
        return report

    async def _compare_documents(self) -> None:
        """Pass one; the next page is read while one is compared."""

        async def read() -> None:
            async with send:
                async for page in self._store.documents.scan():
                    await send.send(page)

        send, receive = anyio.create_memory_object_stream[list[Stored]](1)
        async with anyio.create_task_group() as tasks, receive:
            tasks.start_soon(read)
            async for page in receive:
                await self._compare_page(page)
        while self._window:
            await self._settle(holding=True)

    async def _compare_page(self, page: list[Stored]) -> None:
        """Documents against their keys."""
        keys = [self._mapping.key(stored.id).encode() for stored in page]
        texts: Any = await self._redis.execute_command("JSON.MGET", *keys, "$")
        for key, text, stored in zip(keys, texts, page, strict=True):
            self._report.legacy += stored.version == 0
            if await look_equal(self._mapping, text, stored):
                self._tally.equal()
            else:
                self._window.append(key)
        while len(self._window) >= _WINDOW:
            await self._settle(holding=True)
        await self._step(len(page))

    async def _find_missing(self, keys: list[bytes]) -> None:
        """Pass two: keys that MongoDB has no document for."""
        ids = dict(with_ids(self._mapping, keys))
        stored = await self._store.documents.stored(
            document_id for document_id in ids.values() if document_id is not None
        )
        self._window += [key for key, document_id in ids.items() if document_id not in stored]
        while len(self._window) >= _WINDOW:
            await self._settle(holding=False)
        await self._step(_SCAN_COUNT)

    async def _settle(self, *, holding: bool) -> None:
        """Prove, count and repair one window of suspects.

        Args:
            holding: whether these came from MongoDB; keys that MongoDB doesn't hold are the second pass's.
        """
        size = await readable(self._redis, self._window[:_WINDOW])
        keys, self._window = self._window[:size], self._window[size:]
        settled = await self._prover.settle(keys)
        proofs = [proof for proof in settled.proofs if not holding or proof.stored is not None]
        proofs = self._tally.proven(proofs, unsettled=len(settled.unsettled))
        drift = [proof for proof in proofs if proof.verdict.kind in DRIFT]
        if self._deleting:
            self._cold.note(proofs)
        reasons = await self._repair(drift) if drift and self._repairing else {}
        self._tally.show(proofs, reasons)

    async def _repair(self, drift: list[Proof]) -> dict[bytes, str]:
        """Repair; returns why keys were left."""
        reasons = await repair(self._store, self._engine, self._prover, drift)
        self._report.refused += sum(reason != DIFFERS for reason in reasons.values())
        self._report.repaired += len(drift) - len(reasons)
        return reasons

    async def _delete_cold(self) -> None:
        report, keys = self._report, self._cold.keys
        report.deleted, reason = await delete_cold(
            self._redis,
            self._store,
            self._engine,
            self._prover,
            keys,
            present=report.equal + report.stale + report.ahead,
            patience=self._patience,
        )
        if reason:
            report.warnings.append(f"cold documents were not deleted: {reason}")

    async def _step(self, documents: int) -> None:
        self._done = min(self._done + documents, self._total)
        self._on_progress(self._mapping.prefix, self._done, self._total)
        await self._pace.spend(documents)


async def _scan(redis: Redis, mapping: Mapping) -> AsyncIterator[list[bytes]]:
    """Batches of the mapping's keys."""
    pattern, cursor = f"{mapping.prefix}:*", 0
    while True:
        reply: Any = await redis.scan(cursor, match=pattern, count=_SCAN_COUNT)
        cursor, keys = reply
        yield list(dict.fromkeys(keys))
        if cursor == 0:
            return
