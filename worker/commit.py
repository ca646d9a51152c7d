"""The committer: brings what the sync stream says to MongoDB, in order, for ever.

There is one committer per mapping at a time and committed entries are trimmed from the stream, so the stream itself is
the list of what is left to do: a committer starts at its beginning, whatever its predecessor was doing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import anyio
import structlog
from anyio import to_thread
from pymongo.errors import OperationFailure, PyMongoError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from gears.backlog import last_entry
from gears.checkpoint import Checkpoint
from gears.engines import Engine
from gears.errors import Refused, Rewound
from gears.failpoint import reached
from gears.gaps import Gap, Runs
from gears.lane import Wire
from gears.mongo import UNREADABLE, Change, MongoError, Upsert
from gears.mongo_texts import describe
from gears.redis import Redis
from gears.refusals import refusals_from
from gears.rewind_store import RewindStore
from gears.stream import ZERO, Entry, EntryId, Names
from worker.acknowledge import Acknowledged, acknowledge
from worker.ahead import Ahead
from worker.lease import Lease
from worker.plan import Decision, KeyEntries, Refusal, State, Verify, decide
from worker.recover import recover
from worker.refuse import give_ids, refuse, restore
from worker.reporter import Reporter
from worker.states import Batch, Reader

_LARGE = 64 * 1024
_RESERVE_MS = 10_000
"""For how long versions are reserved at a time, if ids go by the clock."""

_BACKOFF = wait_random_exponential(multiplier=0.05, max=3)


@dataclass(frozen=True, slots=True)
class _Work:
    """A batch, and what to do about each of its keys."""

    batch: Batch
    decisions: Sequence[Decision]
    refused: dict[EntryId, str]
    """Entries that were refused by a committer that stopped before it said so."""


class Committer:
    """Commits one mapping while it holds the lease.

    Args:
        redis: client with replies as bytes.
        wire: a connection of its own to the same Redis. When Redis is restarted it is lost, and with it the committer,
            before anything is acknowledged that Redis may have forgotten.
        store: the mapping's documents in MongoDB.
        engine: the mapping's engine, for roll-backs.
        lease: the lease under which to commit.
        reporter: where to say how it goes.
        batch_size: most documents in one commit.
        ask_first: whether somebody is to decide before Redis is given back what it lost.
    """

    def __init__(
        self,
        redis: Redis,
        wire: Wire,
        store: RewindStore,
        engine: Engine,
        lease: Lease,
        reporter: Reporter,
        *,
        batch_size: int,
        ask_first: bool,
    ) -> None:
        self._redis = redis
        self._wire = wire
        self._store = store
        self._engine = engine
        self._lease = lease
        self._reporter = reporter
        self._names = Names(engine.mapping.prefix)
        self._log = structlog.get_logger().bind(mapping=engine.mapping.prefix)
        self._batch_size = batch_size
        self._ask_first = ask_first
        self._watermark = ZERO
        self._inherited = ZERO
        self._ahead = Ahead(redis, self._names)
        self._runs = Runs(b"", ZERO)
        self._lost = ZERO
        self._reserved, self._epoch = ZERO, 0
        self._reader = Reader(wire, self._names)

    async def run(self) -> None:
        """Commit until cancelled.

        Raises:
            LeaseLost: another committer is at work.
            Rewound: Redis was restarted without its tail; start again.
            RedisAway, OutcomeUnknown, RedisError: Redis is away; start again under a new lease.
            Unfit: somebody must mend MongoDB's collection first.
        """
        await self._recover()
        position, following = ZERO, None
        while True:
            position, following = await self._commit_next(position, following)

    async def _recover(self) -> None:
        async for attempt in self._retrying():
            with attempt:
                standing = await recover(
                    self._redis, self._engine, self._store, self._lease, self._reporter, ask_first=self._ask_first
                )
        self._watermark, self._runs, self._lost = standing.watermark, standing.runs, standing.lost
        self._reserved, self._epoch = standing.reserved, standing.epoch
        self._reporter.committing()
        self._inherited = await last_entry(self._redis, self._names)

    async def _commit_next(self, position: EntryId, work: _Work | None) -> tuple[EntryId, _Work | None]:
        """Commit what follows an entry, as much as MongoDB manages in time.

        Args:
            position: the entry.
            work: what follows it, where that was read already.

        Returns:
            The last entry that was committed, and what follows that one where it was read already.
        """
        most, following = self._batch_size, None
        async for attempt in self._retrying():
            with attempt:
                work = work or await self._read(position, most, wait=True)
                this, work = work, None  # doing it again begins with reading
                batch = this.batch
                if not batch.entries:
                    break
                if attempt.retry_state.attempt_number > 1:
                    # Doing it again relies on the unique index: it may have been dropped.
                    await self._store.prepare(self._reporter.preparing)
                try:
                    following = await self._commit(this)
                except PyMongoError as error:
                    if error.timeout or (isinstance(error, OperationFailure) and error.code in UNREADABLE):
                        most = max(1, len(batch.keys) // 2)
                    raise
                position = batch.entries[-1].id
        self._reporter.committing()
        return position, following

    async def _read(self, position: EntryId, most: int, *, wait: bool) -> _Work:
        watermark = self._watermark
        batch = await self._reader.read(position, most, wait=wait)
        if batch.entries and batch.watermark != watermark:
            raise Rewound("Redis was restarted, or emptied, and has forgotten the last commit")
        refused = await self._refused_before(batch.entries)
        states = batch.states
        decisions = [await self._decide(key, states[key.key], refused.get(key.ids[-1])) for key in batch.keys]
        return _Work(batch, decisions, refused)

    async def _commit(self, work: _Work) -> _Work | None:
        """Commit a batch; returns what follows, if that was there already and none of it depends on this batch."""
        batch, decisions = work.batch, work.decisions
        entries, keys, states = batch.entries, batch.keys, batch.states
        reached("states read")
        refusals = [decision for decision in decisions if isinstance(decision, Refusal)]
        checks = [decision for decision in decisions if isinstance(decision, Verify)]
        changes = {
            decision.document_id: (key, decision)
            for key, decision in zip(keys, decisions, strict=True)
            if not isinstance(decision, Refusal | Verify | None)
        }
        last = entries[-1].id
        newest = max(last, batch.newest)
        await self._reserve(newest)
        self._lease.check()
        beside = self._ids(refusals, changes)
        runs = replace(self._runs)
        gaps = tuple(runs.follow(entries))
        checkpoint = Checkpoint(last, newest, batch.clock, certain=self._watermark, beside=beside, gaps=gaps)
        refused, following = await self._write(
            [change for _, change in changes.values()], checkpoint, ahead=not batch.is_large
        )
        for document_id, reason in refused.items():
            key, _ = changes[document_id]
            seen = states[key.key]
            refusals.append(Refusal(key, reason, seen if isinstance(seen, bytes) else None))
        self._lease.check()
        await self._give_ids([change for key, change in changes.values() if change.document_id not in refused], batch)
        if checks:
            await restore(self._engine, self._store, checks, self._ahead, last=last)
        refused_entries = await self._refuse(refusals, last) if refusals else {}
        refused_entries |= work.refused
        reached("acknowledging")
        await self._acknowledge(batch, refused_entries, runs, gaps)
        reached("acknowledged")
        await self._engine.release()
        reached("released")
        self._reporter.committed(len(entries), len(refused_entries))
        return None if checks or refusals else following  # those may have rolled Redis back since it was read

    async def _give_ids(self, changes: Iterable[Change], batch: Batch) -> None:
        """Put those documents in Redis right that don't hold their ids."""
        lacking = [
            (change, seen)
            for change in changes
            if isinstance(change, Upsert) and not change.has_its_id
            if isinstance(seen := batch.states[self._engine.mapping.key(change.document_id).encode()], bytes)
        ]
        if lacking:
            await give_ids(self._engine, lacking, self._ahead, last=batch.entries[-1].id)

    async def _reserve(self, newest: EntryId) -> None:
        """Let whoever comes after Redis has forgotten something know what may arrive in MongoDB even then."""
        if newest.version > self._reserved.version:
            upto = EntryId(newest.ms + _RESERVE_MS, 0)
            await self._store.reserve(upto, self._epoch)
            self._reserved = upto

    def _ids(self, refusals: Iterable[Refusal], changes: Iterable[str]) -> tuple[str, ...] | None:
        """What there is a document, a delete or a dead letter of, once this is committed."""
        try:
            return (*changes, *(self._engine.mapping.id_of(refusal.entries.key) for refusal in refusals))
        except Refused:
            return None

    async def _write(
        self, changes: Sequence[Change], checkpoint: Checkpoint, *, ahead: bool
    ) -> tuple[dict[str, str], _Work | None]:
        """Have MongoDB write, and meanwhile read what follows, if there is more already; refusals by document's id.

        A batch that takes all there is leaves the next one to grow until this one is written; and where one takes much
        memory, two would take too much.
        """
        if checkpoint.newest == checkpoint.committed or not ahead:
            return await self._store.commit(changes, checkpoint), None
        following: list[_Work] = []
        refused: dict[str, str] = {}
        failures: list[MongoError] = []

        async def read_on() -> None:
            following.append(await self._read(checkpoint.committed, self._batch_size, wait=False))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read_on)
            try:
                refused = await self._store.commit(changes, checkpoint)
            except MongoError as error:
                failures.append(error)
        if failures:
            raise failures[0]
        return refused, following[0]

    async def _refuse(self, refusals: Sequence[Refusal], last: EntryId) -> dict[EntryId, str]:
        self._inherited = max(self._inherited, last)  # should this have to be done again
        return await refuse(self._redis, self._engine, self._store, refusals, self._ahead, last=last, lost=self._lost)

    async def _decide(self, key: KeyEntries, state: State, refused: str | None) -> Decision:
        if refused is not None and isinstance(state, bytes) and key.filled_from is None:
            return Refusal(key, refused, state)  # and not rolled back; it may look well now, but its writer was told
        if isinstance(state, bytes) and len(state) > _LARGE:
            # In a thread, so that the lease is renewed meanwhile.
            return await to_thread.run_sync(decide, self._engine.mapping, key, state)
        return decide(self._engine.mapping, key, state)

    async def _refused_before(self, entries: Sequence[Entry]) -> dict[EntryId, str]:
        """What was refused and rolled back without anybody's coming to say so: it looks well now, and isn't."""
        if not entries or entries[0].id > self._inherited:
            return {}
        ids = {entry.id for entry in entries}
        return {i: reason for i, reason in await refusals_from(self._redis, self._names, entries[0].id) if i in ids}

    async def _acknowledge(self, batch: Batch, refused: dict[EntryId, str], runs: Runs, gaps: Sequence[Gap]) -> None:
        commit = Acknowledged(
            lease=self._lease.token,
            before=self._watermark,
            last=batch.entries[-1].id,
            marked=[key.key for key in batch.keys if key.marked],
            refused=refused,
            gaps=gaps,
            run=runs.run if runs.run != self._runs.run else b"",
        )
        await acknowledge(self._wire, self._names, commit)
        self._watermark, self._runs = commit.last, runs

    def _retrying(self) -> AsyncRetrying:
        return AsyncRetrying(
            retry=retry_if_exception_type(MongoError),
            wait=_BACKOFF,
            before_sleep=self._say_retrying,
            sleep=anyio.sleep,
            reraise=True,
        )

    def _say_retrying(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self._reporter.retrying(f"MongoDB: {describe(error)}" if error else "MongoDB")
