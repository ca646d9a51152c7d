"""How far MongoDB is with a mapping, as it is kept there."""

from collections.abc import Mapping as Dict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from bson import Int64

from gears.gaps import Gap
from gears.stream import ZERO, EntryId

_MOST_BESIDE = 64 * 1024
"""How many characters of ids are kept in a checkpoint."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far MongoDB is.

    Args:
        committed: everything up to this entry is committed, or was about to be: it is written beside the documents.
        newest: no state that MongoDB holds is newer than this entry.
        clock: the id that Redis's clock would have given when that was read.
        fence: no state that Redis was given back after a rewind is newer than this.
        certain: everything up to this entry was committed before.
        beside: ids of the documents that are written, deleted or refused beside it; None when nobody knows. What is
            written or deleted is as new as `newest`.
        reserved: no state that a committer of an earlier epoch writes, now or later, is newer than this entry.
        epoch: how often Redis has forgotten something: committers of an earlier one may reserve no more.
        gaps: what was lost on the way, which Redis may forget; of one that is yet to be written, the new ones.
        aside: what is set aside, though it comes before `committed`.
    """

    committed: EntryId
    newest: EntryId
    clock: EntryId = ZERO
    fence: EntryId = ZERO
    certain: EntryId = ZERO
    beside: tuple[str, ...] | None = None
    reserved: EntryId = ZERO
    epoch: int = 0
    gaps: tuple[Gap, ...] = ()
    aside: tuple[EntryId, ...] = ()

    @classmethod
    def parse(cls, found: Dict[str, Any]) -> Self:
        """The checkpoint that MongoDB holds."""
        committed = int(found["v"])
        # A later version of this program added the others.
        optional = {"newest": committed, "clock": 0, "reserved": 0, "fence": 0, "certain": committed}
        versions = {name: int(found.get(name, otherwise)) for name, otherwise in optional.items()}
        beside = found.get("beside", {})
        known = (beside.get("v"), beside.get("newest")) == (committed, versions["newest"])  # not of another commit
        return cls(
            EntryId.of_version(committed),
            **{name: EntryId.of_version(version) for name, version in versions.items()},
            beside=tuple(beside["ids"]) if known else None,
            epoch=int(found.get("epoch", 0)),
            gaps=tuple(Gap.parse(text.encode()) for text in found.get("gaps", ())),
            aside=tuple(EntryId.parse(text) for text in found.get("aside", ())),
        )

    def update(self) -> dict[str, Any]:
        """The update that brings MongoDB's to this one, unless that is newer; what others keep there stays."""
        committed, newest, clock = (Int64(i.version) for i in (self.committed, self.newest, self.clock))
        few = self.beside is not None and sum(map(len, self.beside)) <= _MOST_BESIDE
        new = {"$addToSet": {"gaps": {"$each": [str(gap) for gap in self.gaps]}}} if self.gaps else {}
        return new | {
            "$max": {"v": committed, "newest": newest, "certain": Int64(self.certain.version)},
            "$set": {
                "at": datetime.now(UTC),
                "clock": clock,
                "beside": {"v": committed, "newest": newest, "ids": self.beside} if few else {},
            },
        }
