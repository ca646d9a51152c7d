"""Reading what there is to commit, and deciding what becomes of each key: the first half of a commit."""

from collections.abc import Collection, Sequence

from anyio import to_thread

from gears.contract.changes import Remove, Upsert
from gears.contract.entries import Entry
from gears.contract.write_tokens import EntryId, Token
from gears.engines import Engine
from gears.errors import Rewound
from gears.in_redis.pipelining import Wire
from gears.progress.refusals import refusals_from
from worker.commit.batch_to_write import Decided
from worker.commit.read.decide import Decision, KeyEntries, RefusedState, State, decide
from worker.commit.read.read_batch import Reader
from worker.commit.term import Term
from worker.readable import READ_BYTES

_LARGE = 64 * 1024
"""Bytes of a document from which on it is decided about in a thread, so that the lease is renewed meanwhile."""


class Decider:
    """Reads what there is to commit in a term, and decides.

    Args:
        wire: nobody else's connection to Redis but the committer's, since waiting for entries blocks it.
        engine: the mapping's engine.
        term: the committer's.
        batch_size: most documents in a batch, usually.
    """

    def __init__(self, wire: Wire, engine: Engine, term: Term, batch_size: int) -> None:
        self._reader = Reader(wire, engine.names)
        self._engine = engine
        self._term = term
        self._batch_size = batch_size

    async def read(
        self,
        position: EntryId,
        most: int,
        *,
        wait: bool = True,
        again: bool = False,
        needed: Collection[bytes] = (),
    ) -> Decided:
        """Read what follows an entry, and decide.

        Args:
            position: the entry.
            most: documents in the batch.
            wait: whether to wait for entries a moment, when there are none.
            again: whether what is set aside is tried again; it is in any case together with a part of it.
            needed: other keys of which MongoDB's answers depend.

        Raises:
            Rewound: Redis may have forgotten something.
            RedisAway, OutcomeUnknown, RedisError: Redis is away.
        """
        acked, known = str(self._term.acked), self._term.aside.known
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
            return await self.read(position, most, wait=wait, again=True, needed=needed)
        mine = self._term.mine
        if batch.memory != (mine.kept, mine.memory) or (batch.entries and batch.acked != acked):
            raise Rewound("Redis was restarted, or emptied, and may have forgotten the last commit")
        version = self._term.next_version()
        refused = await self._refused_before(batch.entries)
        decisions = {
            key.key: await self.decide(key, batch.states[key.key], version, refused.get(key.tokens[-1]))
            for key in batch.keys
        }
        beside = {
            self._engine.mapping.id_of(key.key): await self.decide(key, batch.states[key.key], version, None)
            for key in batch.beside
        }
        changes = {i: d if isinstance(d, Upsert | Remove) else None for i, d in beside.items()}
        return Decided(batch, version, {key.key: key for key in batch.keys}, decisions, refused, changes)

    async def decide(self, key: KeyEntries, state: State, version: int, refused: str | None) -> Decision:
        """What a key's present state means for MongoDB.

        Args:
            key: what the batch says of the key.
            state: its present state.
            version: the version of that.
            refused: why its last entry was refused before, if it was.
        """
        if refused is not None and isinstance(state, bytes) and key.filled_from is None:
            return RefusedState(
                key, refused, state
            )  # and not rolled back; it may look well now, but its writer was told
        if isinstance(state, bytes) and len(state) > _LARGE:
            return await to_thread.run_sync(decide, self._engine.mapping, key, state, version)
        return decide(self._engine.mapping, key, state, version)

    async def _refused_before(self, entries: Sequence[Entry]) -> dict[Token, str]:
        """What was refused and rolled back without anybody's coming to say so: it looks well now, and isn't."""
        if not entries or entries[0].id > self._term.inherited:
            return {}
        tokens = {entry.token for entry in entries}
        found = await refusals_from(self._engine.redis, self._engine.names, entries[0].id)
        return {token: reason for token, reason in found if token in tokens}
