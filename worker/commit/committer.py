"""The committer: brings what the sync stream says to MongoDB, in order, for ever.

There is one committer per mapping at a time and committed entries are trimmed from the stream, so the stream itself is
the list of what is left to do: a committer starts at its beginning, whatever its predecessor was doing.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from collections.abc import Mapping as Dict
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

import anyio
import structlog
from anyio import to_thread
from pymongo.errors import PyMongoError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential, wait_random

from gears.contract.changes import Change, Remove, Upsert
from gears.contract.entries import Entry
from gears.contract.errors import MongoWasPutBack, Refused, Rewound
from gears.contract.redis_names import Names
from gears.contract.version import version_of
from gears.contract.write_tokens import ZERO, EntryId, Token
from gears.engines import Engine
from gears.in_mongo.batch_log import Acked, Logged, going_on
from gears.in_mongo.client import MongoError
from gears.in_mongo.errors.describe import NotAllWritten, held_up
from gears.in_mongo.errors.whole_commands import is_of_one, is_unreadable
from gears.in_mongo.store import Store
from gears.in_mongo.unique_indexes.write_order import Changes, Outcome, moved_from
from gears.in_redis.client import Redis
from gears.in_redis.pipelining import Wire
from gears.process.failpoint import reached
from gears.progress.backlog import last_entry
from gears.progress.refusals import record_refusals, refusals_from
from gears.progress.set_aside_entries import read_aside
from worker.commit.acknowledge import Acknowledged, acknowledge
from worker.commit.begin_term import recover
from worker.commit.decide import Decision, KeyEntries, Refusal, State, Verify, decide, homes, moves
from worker.commit.read_batch import READ_BYTES, Batch, Reader
from worker.commit.roll_back import give_ids, move_back, refuse, restore
from worker.commit.set_aside import Aside, Sorted
from worker.commit.written_again import Ahead
from worker.lease.lease import Lease
from worker.lease.lease_and_life import Mine
from worker.reporter import Reporter

_LARGE = 64 * 1024
_BACKOFF = wait_exponential(multiplier=0.4, max=3) + wait_random(0, 0.1)
"""So that no error makes more than some twenty commands a second."""

_HURRY = 0.2
"""Seconds before half of a batch is tried, where a document is looked for that MongoDB can't read, or not in time."""

_LARGEST = 20_000
"""Documents up to which a batch grows, should it depend on others: most likely they depend on what follows them."""

_TOGETHER = 3
"""How often a batch is tried as a whole before what fails in it is set aside, or looked for."""


@dataclass(frozen=True, slots=True)
class _Work:
    """A batch, and what to do about each of its keys."""

    batch: Batch
    version: int
    decisions: dict[bytes, Decision]
    refused: dict[Token, str]
    """Entries that were refused by a committer that stopped before it said so."""
    beside: dict[str, Change | None]
    """What Redis holds of other documents, by id, as changes for MongoDB."""


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
        put_back: whether MongoDB was found to have been put back.
        warm: called where plain clients don't find in Redis what only MongoDB holds, before anything is committed.
    """

    def __init__(
        self,
        redis: Redis,
        wire: Wire,
        store: Store,
        engine: Engine,
        lease: Lease,
        reporter: Reporter,
        *,
        batch_size: int,
        ask_first: bool,
        put_back: bool = False,
        warm: Callable[["Committer"], object] = lambda _: None,
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
        self._put_back = put_back
        self._warm = warm
        self.acked = Acked()
        """What is acknowledged, as Redis knows it."""
        self.mine = Mine(lease.token, "", b"")
        """What is relied on."""
        self.committed_since: set[bytes] | None = None
        """Keys that were committed since this was made a set."""
        self._term = self._number = 0
        self._lives: Dict[str, EntryId] = {}
        self._unacked: dict[int, EntryId] = {}
        self._inherited = ZERO
        self._ahead = Ahead(redis, self._names)
        self._reader = Reader(wire, self._names)
        self._aside = Aside()
        self._witness = 0
        self._first = ""
        self._hurry = False

    async def run(self) -> None:
        """Commit until cancelled.

        Raises:
            LeaseLost: another committer is at work.
            Rewound: Redis may have forgotten something; start again.
            RedisAway, OutcomeUnknown, RedisError: Redis is away; start again under a new lease.
            Unfit: somebody must mend MongoDB's collection first.
        """
        await self._recover()
        position, following = ZERO, None
        while True:
            position, following = await self._commit_next(position, following)

    async def _recover(self) -> None:
        async for attempt in self._retrying():
            with attempt, self._reporter.patiently("MongoDB"):
                await self._store.unpark()
                standing = await recover(
                    self._redis,
                    self._engine,
                    self._store,
                    self._lease,
                    self._reporter,
                    ask_first=self._ask_first,
                    put_back=self._put_back,
                )
        self.mine, self._term, self._number = standing.mine, standing.term, 0
        self.acked = standing.acked
        self._lives, self._unacked = standing.lives, dict(standing.unacked)
        self._aside = Aside((await read_aside(self._redis, self._names)).values())
        if standing.partial:
            self._warm(self)
        self._reporter.committing()
        self._reporter.set_aside(self._aside.count, self._aside.reason)
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
        needed: set[bytes] = set()
        async for attempt in self._retrying():
            with attempt:
                tries, self._hurry = attempt.retry_state.attempt_number, False
                again = self._aside.is_due and most == self._batch_size
                if tries > 1:
                    await self._store.unpark()
                    # Doing it again relies on the unique index: it may have been dropped.
                    await self._store.set_up.prepare(self._reporter.preparing)
                if work is None or again:
                    work = await self._read(position, most, again=again, needed=needed)
                this, work = work, None  # doing it again begins with reading
                if not this.batch.keys and not this.batch.entries:
                    break
                try:
                    while isinstance(done := await self._commit(this, patient=tries < _TOGETHER), set):
                        needed |= done
                        most = max(most, min(most * 2, _LARGEST))
                        this = await self._read(position, most, again=again, needed=needed)
                except PyMongoError as error:
                    if error.timeout or is_unreadable(error) or (tries >= _TOGETHER and is_of_one(error)):
                        most = max(1, len(this.batch.keys) // 2)
                    self._hurry = most > 1 and (error.timeout or is_unreadable(error))
                    raise
                following = done
                position = this.batch.last(Token("", position)).id
        self._reporter.committing()
        return position, following

    async def _read(
        self,
        position: EntryId,
        most: int,
        *,
        wait: bool = True,
        again: bool = False,
        needed: Collection[bytes] = (),
    ) -> _Work:
        """Read what follows an entry.

        Args:
            position: the entry.
            most: documents in the batch.
            wait: whether to wait for entries a moment, when there are none.
            again: whether what is set aside is tried again; it is in any case together with a part of it.
            needed: other keys of which MongoDB's answers depend.
        """
        acked, known = str(self.acked), self._aside.known
        again = again or not known.keys().isdisjoint(needed)
        due = known if again else ()
        batch = await self._reader.read(
            position,
            most,
            READ_BYTES * max(1, most // self._batch_size),
            wait=wait and not due,
            known=known,
            due=due,
            beside=needed,
        )
        if not again and any(key.key in known for key in batch.keys):
            return await self._read(position, most, wait=wait, again=True, needed=needed)
        if batch.memory != (self.mine.kept, self.mine.memory) or (batch.entries and batch.acked != acked):
            raise Rewound("Redis was restarted, or emptied, and may have forgotten the last commit")
        self._number += 1
        version = version_of(self._term, self._number)
        refused = await self._refused_before(batch.entries)
        decisions = {
            key.key: await self._decide(key, batch.states[key.key], version, refused.get(key.tokens[-1]))
            for key in batch.keys
        }
        beside = {
            self._engine.mapping.id_of(key.key): await self._decide(key, batch.states[key.key], version, None)
            for key in batch.beside
        }
        changes = {i: d if isinstance(d, Upsert | Remove) else None for i, d in beside.items()}
        return _Work(batch, version, decisions, refused, changes)

    async def _commit(self, work: _Work, *, patient: bool) -> _Work | set[bytes] | None:
        """Commit a batch.

        Args:
            work: the batch.
            patient: whether all of it is to be tried again if some of it fails.

        Returns:
            What follows, if that was there already and none of it depends on this batch; or, if this is to be done
            again, a set: keys without whose states it can't be done.
        """
        batch, decisions = work.batch, work.decisions
        keys, mapping = {key.key: key for key in batch.keys}, self._engine.mapping
        reached("states read")
        checks = [decision for decision in decisions.values() if isinstance(decision, Verify)]
        refusals = {key: decision for key, decision in decisions.items() if isinstance(decision, Refusal)}
        sources = moves(decisions, keys)
        for source in moved_from(sources, refusals):
            refusals[source] = Refusal(keys[source], "what it was renamed to was refused", None, moved=True)
        changes = {
            decision.document_id: decision
            for key, decision in decisions.items()
            if isinstance(decision, Upsert | Remove) and key not in refusals
        }
        by_id = {mapping.key(i).encode(): i for i in changes}
        moved = {
            by_id[target]: by_id[source]
            for target, source in sources.items()
            if target not in refusals and source not in refusals
        }
        last = batch.last(self.acked.token)
        self._lease.check()
        logged = Logged(
            work.version,
            upto=last,
            newest=batch.newest if batch.newest is not None and batch.newest.id > last.id else last,
            certain=self.acked.token,
            lives=going_on(self._lives, batch.committed),
            ids=self._ids(refusals.values(), changes),
            beside=tuple(work.beside),
        )
        self._unacked[work.version] = logged.newest.id
        others = {key for key in decisions if key not in by_id}
        todo = Changes(
            changes,
            moved,
            work.beside | self._without_change(others),
            {i for i in changes if mapping.key(i).encode() in self._aside.known},
        )
        outcome, following = await self._write(todo, logged, ahead=not batch.is_large)
        if outcome.needed:
            return {mapping.key(i).encode() for i in outcome.needed}
        if outcome.failed.keys() - todo.patient and patient and not self._aside.count:
            raise NotAllWritten(dict(outcome.failed))
        for document_id, reason in outcome.refused.items():
            key = mapping.key(document_id).encode()
            seen = batch.states.get(key)
            if key in keys:  # what is beside the batch is refused, if it still is, when its own batch comes
                refusals[key] = Refusal(keys[key], reason, seen if isinstance(seen, bytes) else None)
        for document_id in outcome.kept:
            key = mapping.key(document_id).encode()
            refusals[key] = Refusal(keys[key], "what it was renamed to was refused", None, moved=True)
        self._lease.check()
        if await self._move_back(homes(refusals.values(), decisions, keys), work, last.id):
            return set()
        done = [c for i, c in changes.items() if i not in outcome.refused and i not in outcome.failed]
        await self._give_ids(done, batch)
        if checks:
            await restore(self._engine, self._store, checks, self._ahead, self.mine, last=last.id)
        refused_entries = await self._refuse(list(refusals.values()), work.version, last.id) if refusals else {}
        refused_entries |= work.refused
        failed = {mapping.key(i).encode(): reason for i, reason in outcome.failed.items()}
        aside = self._aside.sort({key: keys[key] for key in failed if key in keys}, keys.values())
        if aside.added:
            await self._store.log.keep_aside(self._aside.entries(aside))
        reached("acknowledging")
        await self._acknowledge(batch, logged, refused_entries, aside)
        self._aside.take(aside, failed)
        if aside.settled:
            await self._store.log.keep_aside(self._aside.entries())
        reached("acknowledged")
        await self._engine.release()
        reached("released")
        self._reporter.committed(len(batch.entries), len(refused_entries))
        self._reporter.set_aside(self._aside.count, self._aside.reason)
        return None if checks or refusals or failed else following  # those may have rolled Redis back since it was read

    def _without_change(self, keys: Iterable[bytes]) -> dict[str, None]:
        """The documents of these keys: nothing becomes of what MongoDB holds of them."""
        found: dict[str, None] = {}
        for key in keys:
            with suppress(Refused):
                found[self._engine.mapping.id_of(key)] = None
        return found

    async def _move_back(self, refused: Dict[bytes, Refusal], work: _Work, last: EntryId) -> bool:
        """Give refused documents, by their former keys, these back where MongoDB can hold them; whether any has it."""
        keys, documents, refusals = {key.key: key for key in work.batch.keys}, {}, {}
        for key, refusal in refused.items():
            if refusal.seen is not None:
                decided = await self._decide(keys[key], refusal.seen, work.version, None)
                if isinstance(decided, Upsert):
                    documents[decided.document_id] = refusal.seen
                    refusals[refusal.entries.tokens[-1]] = refusal.reason
        if not documents:
            return False
        self._inherited = max(self._inherited, last)
        await record_refusals(self._redis, self._names, refusals.items())  # it stays refused when this is done again
        return await move_back(self._engine, documents, self._ahead, self.mine, last=last)

    async def _give_ids(self, changes: Iterable[Change], batch: Batch) -> None:
        """Put those documents in Redis right that don't hold their ids."""
        lacking = [
            (change, seen)
            for change in changes
            if isinstance(change, Upsert) and not change.has_its_id
            if isinstance(seen := batch.states[self._engine.mapping.key(change.document_id).encode()], bytes)
        ]
        if lacking:
            await give_ids(self._engine, lacking, self._ahead, self.mine, last=batch.last(self.acked.token).id)

    def _ids(self, refusals: Iterable[Refusal], changes: Iterable[str]) -> tuple[str, ...] | None:
        """What there is a document, a delete or a dead letter of, once this is committed."""
        try:
            return (*changes, *(self._engine.mapping.id_of(refusal.entries.key) for refusal in refusals))
        except Refused:
            return None

    async def _write(self, changes: Changes, logged: Logged, *, ahead: bool) -> tuple[Outcome, _Work | None]:
        """Have MongoDB write, and meanwhile read what follows, if there is more already.

        A batch that takes all there is leaves the next one to grow until this one is written; and where one takes much
        memory, two would take too much.
        """
        if logged.newest == logged.upto or not ahead:
            return await self._have_written(changes, logged), None
        following: list[_Work] = []
        outcomes: list[Outcome] = []
        failures: list[MongoError] = []

        async def read_on() -> None:
            following.append(await self._read(logged.upto.id, self._batch_size, wait=False))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read_on)
            try:
                outcomes.append(await self._have_written(changes, logged))
            except MongoError as error:
                failures.append(error)
        if failures:
            raise failures[0]
        return outcomes[0], following[0]

    async def _have_written(self, changes: Changes, logged: Logged) -> Outcome:
        started = monotonic()
        with self._reporter.patiently("MongoDB"):
            outcome = await self._store.commit(changes, logged)
        self._reporter.written(monotonic() - started)
        return outcome

    async def _refuse(self, refusals: Sequence[Refusal], version: int, last: EntryId) -> dict[Token, str]:
        self._inherited = max(self._inherited, last)  # should this have to be done again
        return await refuse(
            self._redis,
            self._engine,
            self._store,
            refusals,
            self._ahead,
            self.mine,
            version=version,
            last=last,
            unacked=self._unacked,
        )

    async def _decide(self, key: KeyEntries, state: State, version: int, refused: str | None) -> Decision:
        if refused is not None and isinstance(state, bytes) and key.filled_from is None:
            return Refusal(key, refused, state)  # and not rolled back; it may look well now, but its writer was told
        if isinstance(state, bytes) and len(state) > _LARGE:
            # In a thread, so that the lease is renewed meanwhile.
            return await to_thread.run_sync(decide, self._engine.mapping, key, state, version)
        return decide(self._engine.mapping, key, state, version)

    async def _refused_before(self, entries: Sequence[Entry]) -> dict[Token, str]:
        """What was refused and rolled back without anybody's coming to say so: it looks well now, and isn't."""
        if not entries or entries[0].id > self._inherited:
            return {}
        tokens = {entry.token for entry in entries}
        found = await refusals_from(self._redis, self._names, entries[0].id)
        return {token: reason for token, reason in found if token in tokens}

    async def _acknowledge(self, batch: Batch, logged: Logged, refused: dict[Token, str], aside: Sorted) -> None:
        commit = Acknowledged(
            before=str(self.acked),
            acked=Acked(logged.version, logged.upto),
            committed=batch.committed,
            marked=[key.key for key in batch.keys if key.marked and key.key not in aside.added],
            refused=refused,
            aside=aside,
        )
        if self.committed_since is not None:
            self.committed_since.update(key.key for key in batch.keys)
        await acknowledge(self._wire, self._names, self.mine, commit)
        self.acked = commit.acked
        self._lives, self._unacked = logged.lives, {}

    async def check_log(self) -> None:
        """See that MongoDB still holds what it has acknowledged, also if more was committed since it was put back.

        Raises:
            MongoWasPutBack: it doesn't; start again.
            MongoError: it can't be asked.
        """
        acked = self.acked.version
        newest = await self._store.log.newest()
        known = newest.version if newest is not None else 0
        if known < acked or (self._witness and not await self._store.log.has(self._witness)):
            raise MongoWasPutBack("MongoDB doesn't hold any more what it had acknowledged")
        self._witness = acked if await self._store.log.has(acked) else 0

    def _retrying(self) -> AsyncRetrying:
        return AsyncRetrying(
            retry=retry_if_exception_type(MongoError),
            wait=lambda state: _HURRY if self._hurry else _BACKOFF(state),
            before_sleep=self._say_retrying,
            sleep=anyio.sleep,
            reraise=True,
        )

    def _say_retrying(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        said = held_up(error) if error else "MongoDB: not reached"
        if state.attempt_number == 1:
            self._first = said
        self._reporter.retrying(said if said == self._first else f"{self._first}; then {said}")
