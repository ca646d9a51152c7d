"""Writing what waits for other documents to let go of a value, in an order in which they do."""

from collections.abc import Mapping as Dict
from collections.abc import Sequence

from gears.contract.changes import Change, Upsert
from gears.contract.mapping import Mapping
from gears.contract.mongo_form import read_stored, stored_text
from gears.contract.version import reaches
from gears.in_mongo.client import Document
from gears.in_mongo.documents import Documents
from gears.in_mongo.errors.describe import describe_item
from gears.in_mongo.unique_indexes.write_order import Blocker, Changes, Outcome, Standing, plan, standing, waiters
from gears.in_mongo.writing.blockers import Blockers, taken
from gears.in_mongo.writing.bulk_write import BulkWrite, in_bulk
from gears.in_mongo.writing.exchange import Exchange

_ROUNDS = 20
"""How often what is in the way is looked for before what waits is set aside; each round takes it away, or refuses."""


class Resolver:
    """Writes, for one mapping, what others are in the way of.

    Args:
        documents: the mapping's.
        bulk: tries to write.
        blockers: finds who is in the way.
        exchange: writes those that wait for one another in a circle.
    """

    def __init__(self, documents: Documents, bulk: BulkWrite, blockers: Blockers, exchange: Exchange) -> None:
        self._stored = documents
        self._documents = documents.collection
        self._mapping = documents.mapping
        self._filters = documents.filters
        self._bulk = bulk
        self._blockers = blockers
        self._exchange = exchange

    async def resolve(self, batch: Changes, stuck: dict[str, Document], outcome: Outcome) -> None:
        """Write what others are in the way of, as far as these let go."""
        unexplained: set[str] = set()
        for _ in range(_ROUNDS):
            held = await self._stored.versions(stuck)
            foreign = await self._bulk.foreign({i: c for i in stuck if (c := batch.change(i)) is not None}, held)
            if foreign:  # what is no version of ours says nothing of what is newer
                never = [self._filters.raised(self._filters.exactly(i, at), 0) for i, at in foreign.items()]
                await in_bulk(self._documents, never)
                held |= dict.fromkeys(foreign, 0)
            stuck = {i: f for i, f in stuck.items() if not _is_newer(batch.change(i), held.get(i, -1))}
            blockers = await self._blockers.in_the_way(batch, stuck)
            equal = _equal(self._mapping, batch, blockers)
            waits = _find_waits(self._mapping, batch, stuck, blockers, equal, outcome)
            if outcome.needed:
                return
            for i in unexplained & {i for i, found in blockers.items() if not found} & waits.keys():
                del waits[i]
                outcome.failed[i] = f"{describe_item(stuck[i])}; but there is none"
            unexplained |= {i for i in stuck if i in waits and not blockers[i]}
            if not waits:
                return
            todo = plan(waits, batch)
            stuck = await self._bulk.attempt(todo.in_order, outcome) if todo.in_order else {}
            if todo.together:
                stuck |= await self._exchange.exchange(todo.together, batch, waits, outcome)
            if not stuck:
                return
        outcome.failed |= dict.fromkeys(stuck, "others have taken what it needs each time that it was free")


def _is_newer(change: Change | None, held: int) -> bool:
    return change is not None and reaches(held, change.version)


def _find_waits(
    mapping: Mapping,
    batch: Changes,
    stuck: Dict[str, Document],
    blockers: Dict[str, Sequence[Blocker]],
    equal: Dict[str, bool],
    outcome: Outcome,
) -> dict[str, set[str]]:
    """What each waits for, and what that waits for; those that wait for what won't go are refused, or set aside."""
    held_up = waiters({i: [b.stored.id for b in found if b.stored is not None] for i, found in blockers.items()})
    left, looked_at = set(blockers), list(blockers)
    outcome.kept |= batch.kept(outcome.refused)
    while looked_at:
        i = looked_at.pop()
        if i not in left:
            continue
        by_standing = {standing(blocker, batch, left, outcome, equal): blocker for blocker in blockers[i]}
        if keeping := by_standing.get(Standing.KEEPS):
            outcome.refused[i] = f"MongoDB refused it: {taken(mapping, keeping, stuck.get(i, {}))}"
            stays = {i, *batch.kept([i])}
            outcome.kept |= stays - {i}
        elif Standing.FAILS in by_standing:
            outcome.failed[i] = "it waits for another document, which can't be written yet"
            stays = {i}
        else:
            continue
        left.discard(i)
        looked_at.extend(other for stayed in stays for other in held_up.get(stayed, ()))
    waits: dict[str, set[str]] = {}
    reached = [i for i in stuck if i in left]
    while reached:
        i = reached.pop()
        if i in left and i not in waits:
            waits[i] = {blocker.stored.id for blocker in blockers[i] if blocker.stored is not None}
            reached.extend(waits[i])
            outcome.needed |= {
                blocker.stored.id
                for blocker in blockers[i]
                if blocker.stored is not None
                if standing(blocker, batch, left, outcome, equal) is Standing.UNKNOWN
            }
    return waits


def _equal(mapping: Mapping, batch: Changes, blockers: Dict[str, Sequence[Blocker]]) -> dict[str, bool]:
    """Of documents beside the batch that are in the way, whether MongoDB holds what Redis holds."""
    equal: dict[str, bool] = {}
    for found in blockers.values():
        for stored in (blocker.stored for blocker in found):
            change = batch.beside.get(stored.id) if stored is not None else None
            if stored is not None and isinstance(change, Upsert):
                held = read_stored(mapping, change.document)
                equal[stored.id] = held is not None and stored_text(mapping, held) == stored_text(mapping, stored)
    return equal
