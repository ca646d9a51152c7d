"""Documents that wait for one another, since a unique index lets only one of them hold a value at a time.

MongoDB refuses a document while another one holds its value, even if that one is about to let go of it. What Redis
holds now is what counts: a document that lets go goes first; where all wait in a circle, all are taken out and put in
anew.
"""

from collections.abc import Iterable, Sequence
from collections.abc import Mapping as Dict
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import Enum, auto
from graphlib import TopologicalSorter
from typing import Self, TypeVar

from gears.contract.changes import Change, Remove, Upsert
from gears.contract.mongo_form import Stored
from gears.contract.version import reaches


class Standing(Enum):
    """What becomes of a document that holds a value which another one needs."""

    KEEPS = auto()
    """It goes on to hold it: the other one is refused."""
    LETS_GO = auto()
    """It is deleted, or gets another value."""
    FAILS = auto()
    """It would let go, but can't be written now."""
    UNKNOWN = auto()
    """What Redis holds of it must be read first."""


@dataclass(slots=True)
class Outcome:
    """What became of a batch of changes; what isn't named is durable.

    Args:
        refused: ids of documents that MongoDB can't hold, with the reasons.
        failed: ids of changes that are to be tried again, with the reasons.
        kept: ids of documents that were not deleted, since what they were renamed to was refused.
        needed: ids of documents of which the batch must tell what Redis holds; if there are any, do it again with them.
    """

    refused: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)
    needed: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be written.

    Args:
        changes: by id.
        moves: of documents that were renamed, the new id and the old one, if both are in `changes`.
        beside: what Redis holds of other documents, by id: the change that brings it to MongoDB, None for none.
        patient: ids in `changes` that have failed before, and wait.
    """

    changes: Dict[str, Change]
    moves: Dict[str, str] = field(default_factory=dict)
    beside: Dict[str, Change | None] = field(default_factory=dict)
    patient: AbstractSet[str] = frozenset()

    def change(self, document_id: str) -> Change | None:
        """What is to become of a document."""
        return self.changes.get(document_id) or self.beside.get(document_id)

    @classmethod
    def of(cls, changes: Iterable[Change]) -> Self:
        """These changes, none of which is a move."""
        return cls({change.document_id: change for change in changes})

    @property
    def sources(self) -> set[str]:
        """Documents that are deleted since they were renamed."""
        return set(self.moves.values())

    def kept(self, refused: Iterable[str]) -> set[str]:
        """Documents that stay if these are refused."""
        return moved_from(self.moves, refused)


Name = TypeVar("Name", str, bytes)


def moved_from(moves: Dict[Name, Name], names: Iterable[Name]) -> set[Name]:
    """What these were renamed from, step by step.

    Args:
        moves: the new name and the old one.
        names: of documents, or keys.
    """
    found, left = set[Name](), list(names)
    while left:
        source = moves.get(left.pop())
        if source is not None and source not in found:
            found.add(source)
            left.append(source)
    return found


@dataclass(frozen=True, slots=True)
class Blocker:
    """A document that holds what another one needs.

    Args:
        index: the name of the unique index.
        stored: the document; None if its id is none of the mapping's.
        object_id: its `_id`, as text.
    """

    index: str
    stored: Stored | None
    object_id: str = ""


def standing(
    blocker: Blocker, batch: Changes, stuck: Iterable[str], outcome: Outcome, same: Dict[str, bool]
) -> Standing:
    """What becomes of a blocker.

    Args:
        blocker: the document in the way.
        batch: what is to be written.
        stuck: ids of documents that could not be written yet, since others are in the way.
        outcome: what became of the batch up to now.
        same: of documents beside the batch, whether MongoDB holds what Redis holds.
    """
    if blocker.stored is None:
        return Standing.KEEPS
    document_id = blocker.stored.id
    if document_id in outcome.refused or document_id in outcome.kept:
        return Standing.KEEPS
    if document_id in outcome.failed:
        return Standing.FAILS
    change = batch.change(document_id)
    if change is not None and reaches(blocker.stored.version, change.version):
        return Standing.KEEPS
    if document_id in batch.changes:
        waits = document_id in stuck or isinstance(change, Remove)
        return Standing.LETS_GO if waits else Standing.KEEPS
    if document_id not in batch.beside:
        return Standing.UNKNOWN
    keeps = batch.beside[document_id] is None or same.get(document_id, False)
    return Standing.KEEPS if keeps else Standing.LETS_GO


@dataclass(frozen=True, slots=True)
class Plan:
    """How documents that wait for one another are written.

    Args:
        in_order: upserts that go through one after the other.
        together: what must be taken out first, as it waits in a circle, or is deleted for one that may be refused, and
            what waits for that.
    """

    in_order: Sequence[Upsert]
    together: Sequence[Change]


def plan(waits: Dict[str, set[str]], batch: Changes) -> Plan:
    """How to write documents, by what each waits for.

    Args:
        waits: for each document's id, ids of those that hold what it needs, each of which lets go.
        batch: what is to be written.
    """
    everything = set(waits) | {i for ids in waits.values() for i in ids}
    waits = {i: waits.get(i, set()) for i in everything}
    removed = {i for i in everything if isinstance(batch.change(i), Remove)}
    together = dependents(removed | _in_circles(waits), waits)
    order = TopologicalSorter({i: waits[i] for i in everything - together}).static_order()
    return Plan(
        in_order=[change for i in order if isinstance(change := batch.change(i), Upsert)],
        together=[change for i in waits if i in together if (change := batch.change(i)) is not None],
    )


def dependents(of: Iterable[str], waits: Dict[str, set[str]]) -> set[str]:
    """These, and all that wait for them, directly or not."""
    found, left, waiting = set[str](), list(of), waiters(waits)
    while left:
        i = left.pop()
        if i not in found:
            found.add(i)
            left.extend(waiting.get(i, ()))
    return found


def waiters(waits: Dict[str, Iterable[str]]) -> dict[str, set[str]]:
    """For each that is waited for, what waits for it."""
    waiting: dict[str, set[str]] = {}
    for i, ids in waits.items():
        for other in ids:
            waiting.setdefault(other, set()).add(i)
    return waiting


def _in_circles(waits: Dict[str, set[str]]) -> set[str]:
    """Those that are on a circle, or between two."""
    waiting = waiters(waits)
    free = _ends(waits, waiting)
    return set(waits) - free - _ends({i: waiting.get(i, set()) - free for i in waits}, waits)


def _ends(waits: Dict[str, set[str]], waiting: Dict[str, set[str]]) -> set[str]:
    """Those that wait for nothing; and, step by step, those that wait for such alone."""
    left = {i: len(ids) for i, ids in waits.items()}
    ends, found = [i for i, count in left.items() if not count], set[str]()
    while ends:
        i = ends.pop()
        found.add(i)
        for other in waiting.get(i, ()):
            left[other] -= 1
            if not left[other]:
                ends.append(other)
    return found
