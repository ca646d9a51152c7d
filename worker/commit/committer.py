"""The committer: brings what the sync stream says to MongoDB, in order, for ever.

There is one committer per mapping at a time and committed entries are trimmed from the stream, so the stream itself is
the list of what is left to do: a committer starts at its beginning, whatever its predecessor was doing.
"""

from dataclasses import dataclass

from pymongo.errors import PyMongoError

from gears.contract.write_tokens import ZERO, EntryId, Token
from gears.engines import Engine
from gears.in_mongo.errors.describe import NotAllWritten
from gears.in_mongo.log.batches import Acked, Logged
from gears.in_mongo.store import Store
from gears.in_mongo.unique_indexes.write_order import Outcome
from gears.in_redis.pipelining import Wire
from gears.process.failpoint import reached
from worker.commit.acknowledge import Acknowledged, acknowledge
from worker.commit.batch_to_write import Decided, ToWrite, batch_to_write, what_became
from worker.commit.put_redis_right import PutRight
from worker.commit.read.decide import homes
from worker.commit.read.read_and_decide import Decider
from worker.commit.set_aside import Sorted
from worker.commit.term import Term
from worker.commit.try_again import TOGETHER, Amount, tries
from worker.commit.write_and_read_on import write, write_and_read_on
from worker.reporter import Reporter


@dataclass(frozen=True, slots=True)
class _Again:
    """A batch is to be read and done again.

    Args:
        needed: keys without whose states it can't be done.
    """

    needed: frozenset[bytes] = frozenset()


class Committer:
    """Commits one mapping while it holds the lease.

    Args:
        wire: a connection of its own to Redis. When Redis is restarted it is lost, and with it the committer, before
            anything is acknowledged that Redis may have forgotten.
        store: the mapping's documents in MongoDB.
        engine: the mapping's engine.
        reporter: where to say how it goes.
        term: its term, which is begun.
        batch_size: most documents in one commit.
    """

    def __init__(
        self, wire: Wire, store: Store, engine: Engine, reporter: Reporter, term: Term, *, batch_size: int
    ) -> None:
        self._wire = wire
        self._store = store
        self._engine = engine
        self._reporter = reporter
        self._term = term
        self._batch_size = batch_size
        self._decider = Decider(wire, engine, term, batch_size)
        self._put_right = PutRight(engine, store, term, self._decider)

    async def run(self) -> None:
        """Commit until cancelled.

        Raises:
            LeaseLost: another committer is at work.
            Rewound: Redis may have forgotten something; start again.
            RedisAway, OutcomeUnknown, RedisError: Redis is away; start again under a new lease.
            Unfit: somebody must mend MongoDB's collection first.
        """
        position, following = ZERO, None
        while True:
            position, following = await self._commit_next(position, following)

    async def _commit_next(self, position: EntryId, decided: Decided | None) -> tuple[EntryId, Decided | None]:
        """Commit what follows an entry, as much as MongoDB manages in time.

        Args:
            position: the entry.
            decided: what follows it, where that was read already.

        Returns:
            The last entry that was committed, and what follows that one where it was read already.
        """
        amount, following = Amount(self._batch_size), None
        async for attempt in tries(self._reporter, amount.pause):
            with attempt:
                number = attempt.retry_state.attempt_number
                amount.trying()
                again = self._term.aside.is_due and amount.most == self._batch_size
                if number > 1:
                    await self._store.writer.unpark()
                    # Doing it again relies on the unique index: it may have been dropped.
                    await self._store.set_up.prepare(self._reporter.preparing)
                if decided is None or again:
                    decided = await self._decider.read(position, amount.most, again=again, needed=amount.needed)
                this, decided = decided, None  # doing it again begins with reading
                if not this.batch.keys and not this.batch.entries:
                    break
                try:
                    while isinstance(done := await self._commit(this, patient=number < TOGETHER), _Again):
                        amount.grow(done.needed)
                        this = await self._decider.read(position, amount.most, again=again, needed=amount.needed)
                except PyMongoError as error:
                    amount.shrink(error, len(this.batch.keys), tries=number)
                    raise
                following = done
                position = this.batch.last(Token("", position)).id
        self._reporter.committing()
        return position, following

    async def _commit(self, decided: Decided, *, patient: bool) -> Decided | _Again | None:
        """Commit a batch: plan, write, put Redis right, acknowledge.

        Args:
            decided: the batch.
            patient: whether all of it is to be tried again if some of it fails.

        Returns:
            What follows, if that was there already and none of it depends on this batch; or that this is to be done
            again.
        """
        mapping, term = self._engine.mapping, self._term
        reached("states read")
        todo = batch_to_write(mapping, decided, acked=term.acked, lives=term.lives, aside=term.aside.known)
        term.lease.check()
        outcome, following = await self._write(decided, todo)
        if outcome.needed:
            return _Again(frozenset(mapping.key(i).encode() for i in outcome.needed))
        if outcome.failed.keys() - todo.changes.patient and patient and not term.aside.count:
            raise NotAllWritten(dict(outcome.failed))
        written = what_became(mapping, decided, todo, outcome)
        refusals = list(written.refusals.values())
        term.lease.check()
        if await self._put_right.move_back(homes(refusals, decided.decisions, decided.keys), decided):
            return _Again()
        await self._put_right.give_ids(written.done, decided)
        await self._put_right.fills(todo.checks, decided)
        refused = await self._put_right.refuse(refusals, decided)
        failed = {key: decided.keys[key] for key in written.failed if key in decided.keys}
        aside = term.aside.sort(failed, decided.keys.values())
        if aside.added:
            await self._store.log.keep_aside(term.aside.entries(aside))
        reached("acknowledging")
        await self._acknowledge(decided, todo.logged, refused, aside)
        term.aside.take(aside, written.failed)
        if aside.settled:
            await self._store.log.keep_aside(term.aside.entries())
        reached("acknowledged")
        await self._engine.release()
        reached("released")
        self._reporter.committed(len(decided.batch.entries), len(refused))
        self._reporter.set_aside(term.aside.count, term.aside.reason)
        # The former may have rolled Redis back since what follows was read.
        return None if todo.checks or refusals or written.failed else following

    async def _write(self, decided: Decided, todo: ToWrite) -> tuple[Outcome, Decided | None]:
        """Have MongoDB write, and meanwhile read what follows, if there is more already.

        A batch that takes all there is leaves the next one to grow until this one is written; and where one takes much
        memory, two would take too much.
        """
        last = todo.logged.upto
        self._term.writes(todo.logged)
        if todo.logged.newest == last or decided.batch.is_large:
            return await write(self._store, self._reporter, todo), None
        return await write_and_read_on(
            self._store,
            self._reporter,
            todo,
            lambda: self._decider.read(last.id, self._batch_size, wait=False),
        )

    async def _acknowledge(self, decided: Decided, logged: Logged, refused: dict[Token, str], aside: Sorted) -> None:
        batch, term = decided.batch, self._term
        commit = Acknowledged(
            before=str(term.acked),
            acked=Acked(logged.version, logged.upto),
            committed=batch.committed,
            marked=[key.key for key in batch.keys if key.marked and key.key not in aside.added],
            refused=refused,
            aside=aside,
        )
        term.acknowledges(decided.keys)
        await acknowledge(self._wire, self._engine.names, term.mine, commit)
        term.acknowledged(logged, commit.acked)
