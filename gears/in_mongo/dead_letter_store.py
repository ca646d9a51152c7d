"""What commands ask of the dead letters that are kept in MongoDB."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from gears.contract.write_tokens import Token
from gears.in_mongo.client import Document
from gears.in_mongo.store import Store


@dataclass(frozen=True, slots=True)
class KeptLetter:
    """A refused state, as it is kept.

    Args:
        id: the token of its newest entry, by which it is named.
        key: the Redis key, as a dead letter names it.
        at: when it was refused.
        reason: what was wrong.
        fence: the version that what MongoDB holds instead was given.
        document: JSON text of the refused document; empty when it was lost, and incomplete when it is too large.
        size: bytes of the whole document.
    """

    id: str
    key: str
    at: datetime
    reason: str
    fence: int
    document: bytes
    size: int

    @classmethod
    def parse(cls, found: Document) -> Self:
        """The letter that MongoDB holds."""
        return cls(
            id=str(found["_id"]).partition(" ")[0],
            key=found["key"],
            at=found["at"],
            reason=found["reason"],
            fence=max(map(int, (*found.get("fences", ()), found["version"]))),
            document=bytes(found["document"]),
            size=int(found["bytes"]),
        )


class DeadLetterStore(Store):
    """A `Store` for dead letters."""

    async def letters(self) -> AsyncIterator[KeptLetter]:
        """Those of this mapping, the oldest first."""
        async for found in self._dead_letters.find({"mapping": self.mapping.prefix}).sort("at", 1):
            yield KeptLetter.parse(found)

    async def letter(self, name: str) -> KeptLetter | None:
        """The one with this id."""
        found = await self._dead_letters.find_one(self._named(name))
        return None if found is None else KeptLetter.parse(found)

    async def drop(self, name: str) -> bool:
        """Delete the one with this id; whether there was one."""
        deleted = await self._dead_letters.delete_one(self._named(name))
        return bool(deleted.deleted_count)

    def _named(self, name: str) -> dict[str, Any]:
        """Selects the one with this id; tokens hold no spaces."""
        return {
            "mapping": self.mapping.prefix,
            "_id": {"$gte": f"{Token.parse(name)} ", "$lt": f"{Token.parse(name)}!"},
        }
