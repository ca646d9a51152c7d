"""What MongoDB keeps of a batch, and what Redis knows of it."""

from collections.abc import Iterable
from collections.abc import Mapping as Dict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

from bson import Int64

from gears.contract.version import foreign, highest
from gears.contract.write_tokens import NOTHING, EntryId, Token
from gears.in_mongo.client import Document

MOST_LIVES = 100
"""How many lives are remembered, the latest."""


_MOST_IDS = 1024 * 1024
"""How many characters of ids are kept of a batch."""


@dataclass(frozen=True, slots=True)
class Acked:
    """The last acknowledged batch, as Redis knows it.

    Args:
        version: the batch's.
        token: its last entry, or the last that is certain.
    """

    version: int = 0
    token: Token = NOTHING

    @classmethod
    def parse(cls, text: bytes | None) -> Self:
        """What `str` makes of one; nothing was acknowledged where Redis holds none."""
        if not text:
            return cls()
        version, token = text.decode().split(" ", 1)
        return cls(int(version), Token.parse(token))

    def __str__(self) -> str:
        return f"{self.version} {self.token}"


@dataclass(frozen=True, slots=True)
class Doubt:
    """Entries of one life, above the first id and up to the second."""

    life: str
    above: EntryId
    upto: EntryId

    @classmethod
    def parse(cls, text: str) -> Self:
        """What `str` makes of one."""
        life, above, upto = text.split(" ")
        return cls(life, EntryId.parse(above), EntryId.parse(upto))

    def holds(self, token: Token) -> bool:
        """Whether an entry is among them."""
        return token.life == self.life and self.above < token.id <= self.upto

    def __str__(self) -> str:
        return f"{self.life} {self.above} {self.upto}"


@dataclass(frozen=True, slots=True)
class Logged:
    """One batch.

    Args:
        version: its version.
        upto: its last entry.
        newest: the stream's newest entry when its states were read: none of them is newer.
        certain: everything up to this entry was committed before.
        lives: of each of the latest lives, in their order, the last entry that was committed, or is with this batch.
        ids: the documents that it writes, deletes or refuses; None where these are too many to keep.
        beside: those that it may write beside, since others wait for them.
    """

    version: int
    upto: Token
    newest: Token
    certain: Token = NOTHING
    lives: Dict[str, EntryId] = field(default_factory=dict)
    ids: tuple[str, ...] | None = None
    beside: tuple[str, ...] = ()

    @classmethod
    def parse(cls, found: Document) -> Self:
        """The batch that MongoDB holds."""
        upto, newest, certain = (Token.parse(found[name]) for name in ("upto", "newest", "certain"))
        lives = {token.life: token.id for token in map(Token.parse, found["lives"])}
        ids = found.get("ids")
        return cls(int(found["v"]), upto, newest, certain, lives, None if ids is None else tuple(ids))

    @property
    def doubtful(self) -> "list[Doubt]":
        """The entries of which nobody knows whether what they tell of has come."""
        if self.certain.life not in self.lives:
            return [Doubt(life, NOTHING.id, upto) for life, upto in self.lives.items()]
        after = list(self.lives).index(self.certain.life)
        later = [Doubt(life, NOTHING.id, upto) for life, upto in list(self.lives.items())[after + 1 :]]
        return [Doubt(self.certain.life, self.certain.id, self.lives[self.certain.life]), *later]

    def document(self) -> Document:
        """What MongoDB is to hold of it."""
        few = self.ids is not None and sum(map(len, (*self.ids, *self.beside))) <= _MOST_IDS
        return {
            "v": Int64(self.version),
            "upto": str(self.upto),
            "newest": str(self.newest),
            "certain": str(self.certain),
            "lives": [str(Token(life, entry_id)) for life, entry_id in self.lives.items()],
            "at": datetime.now(UTC),
        } | ({"ids": list(self.ids), "beside": list(self.beside)} if few and self.ids is not None else {})


def going_on(lives: Dict[str, EntryId], tokens: Iterable[Token]) -> dict[str, EntryId]:
    """What is committed of the latest lives, once these entries are, which are in order."""
    found = dict(lives)
    for life, entry_id in tokens:
        found[life] = max(entry_id, found.get(life, entry_id))
    return dict(list(found.items())[-MOST_LIVES:])


@dataclass(frozen=True, slots=True)
class Head:
    """What is known of a mapping beside its batches.

    Args:
        term: the latest term that was begun.
        lives: the lives that committers have met, the latest.
        aside: entries that are set aside.
        lost: entries that were set aside, and that Redis has forgotten.
        doubtful: entries of batches that Redis has forgotten, and of which not all had come.
        late: pairs of versions, the latest: what MongoDB holds with one in between wasn't there when a committer looked
            what Redis had forgotten. It was under way then, in a life that is over.
    """

    term: int = 0
    lives: tuple[str, ...] = ()
    aside: tuple[Token, ...] = ()
    lost: tuple[Token, ...] = ()
    doubtful: tuple[Doubt, ...] = ()
    late: tuple[tuple[int, int], ...] = ()

    @classmethod
    def parse(cls, found: Document | None) -> Self:
        """What MongoDB holds."""
        if found is None:
            return cls()
        aside, lost = (tuple(map(Token.parse, found.get(name, ()))) for name in ("aside", "lost"))
        late = tuple((int(low), int(high)) for low, high in found.get("late", ()))
        doubtful = tuple(map(Doubt.parse, found.get("doubtful", ())))
        return cls(int(found["term"]), tuple(found.get("lives", ())), aside, lost, doubtful, late)

    def gave(self, version: int) -> bool:
        """Whether this mapping's committers may have given this version."""
        return version <= highest(self.term)

    def believes(self, version: int) -> bool:
        """Whether this version counts at all; else it is certainly somebody else's."""
        return version < foreign(highest(self.term))

    def is_news(self, version: int) -> bool:
        """Whether Redis knows nothing of what MongoDB holds with this version: it came late, or from elsewhere."""
        return not self.gave(version) or any(low < version < high for low, high in self.late)
