"""What Redis is given once a batch is written: its refused documents, stale fills and lacking ids put right."""

from collections.abc import Iterable, Sequence
from collections.abc import Mapping as Dict

from gears.contract.changes import Change, Upsert
from gears.contract.write_tokens import Token
from gears.engines import Engine
from gears.in_mongo.store import Store
from gears.progress.refusals import record_refusals
from worker.commit.batch_to_write import Decided
from worker.commit.read.decide import RefusedState, Verify
from worker.commit.read.read_and_decide import Decider
from worker.commit.read.written_again import Ahead
from worker.commit.roll_back import give_ids, move_back, put_fills_right, refuse
from worker.commit.term import Term


class PutRight:
    """Rolls Redis back, in a term, where a batch shows that it should be.

    Args:
        engine: the mapping's engine.
        store: the mapping's documents in MongoDB.
        term: the committer's.
        decider: the committer's.
    """

    def __init__(self, engine: Engine, store: Store, term: Term, decider: Decider) -> None:
        self._engine = engine
        self._store = store
        self._term = term
        self._decider = decider
        self._ahead = Ahead(engine.redis, engine.names)

    async def move_back(self, refused: Dict[bytes, RefusedState], decided: Decided) -> bool:
        """Give refused documents, by their former keys, these back where MongoDB can hold them; whether any has it."""
        keys, documents, refusals = decided.keys, {}, {}
        for key, refusal in refused.items():
            if refusal.seen is not None:
                former = await self._decider.decide(keys[key], refusal.seen, decided.version, None)
                if isinstance(former, Upsert):
                    documents[former.document_id] = refusal.seen
                    refusals[refusal.entries.tokens[-1]] = refusal.reason
        if not documents:
            return False
        last = decided.batch.last(self._term.acked.token).id
        self._term.may_refuse(last)
        # It stays refused when this is done again.
        await record_refusals(self._engine.redis, self._engine.names, refusals.items())
        return await move_back(self._engine, documents, self._ahead, self._term.mine, last=last)

    async def give_ids(self, changes: Iterable[Change], decided: Decided) -> None:
        """Put those documents in Redis right that don't hold their ids."""
        lacking = [
            (change, seen)
            for change in changes
            if isinstance(change, Upsert) and not change.has_its_id
            if isinstance(seen := decided.batch.states[self._engine.mapping.key(change.document_id).encode()], bytes)
        ]
        if lacking:
            last = decided.batch.last(self._term.acked.token).id
            await give_ids(self._engine, lacking, self._ahead, self._term.mine, last=last)

    async def fills(self, checks: Sequence[Verify], decided: Decided) -> None:
        """Where Redis was given a document that MongoDB has replaced since, give it the present one."""
        if checks:
            last = decided.batch.last(self._term.acked.token).id
            await put_fills_right(self._engine, self._store, checks, self._ahead, self._term.mine, last=last)

    async def refuse(self, refusals: Sequence[RefusedState], decided: Decided) -> dict[Token, str]:
        """Refuse; returns the refused entries with their reasons, also those that were refused before."""
        if not refusals:
            return decided.refused
        last = decided.batch.last(self._term.acked.token).id
        self._term.may_refuse(last)  # should this have to be done again
        refused = await refuse(
            self._engine.redis,
            self._engine,
            self._store,
            refusals,
            self._ahead,
            self._term.mine,
            version=decided.version,
            last=last,
            unacked=self._term.unacked,
        )
        return refused | decided.refused
