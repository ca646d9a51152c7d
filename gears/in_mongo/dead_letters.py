"""Dead letters: the states of keys that MongoDB refused, as they are kept there."""

from collections.abc import AsyncIterator, Sequence
from collections.abc import Mapping as Dict
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Self

from bson import Binary, Int64
from motor.motor_asyncio import AsyncIOMotorCollection
from pymongo import UpdateOne

from gears.contract.mapping import Mapping
from gears.contract.refusal import REMEMBERED_REFUSALS, Refusal
from gears.contract.write_tokens import Token
from gears.in_mongo.client import Document
from gears.in_mongo.documents import AT_ONCE, batched

MAX_BYTES = 1024 * 1024
"""How much of a refused document a dead letter keeps."""

MAX_ARRIVED_BYTES = 15 * 1024 * 1024
"""How much of one that came from elsewhere: there is no more of it. A dead letter can be little larger than that."""

_ARRIVED = "; it came by RENAME or MOVE from outside the mapping, and is kept here alone"

MAX_ENTRIES = 1000
"""How many of the refused entries it names, the latest."""

MAX_KEY = 8 * 1024
"""How much of the key of a refused document it keeps."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A state of a key that was refused.

    Args:
        key: the Redis key.
        entries: the refused entries, oldest first.
        fence: the version of the state, which what MongoDB holds instead is given: nothing older may come after this.
        reason: what is wrong.
        document: JSON text of the refused document; empty when it is lost.
        arrived: whether it came from outside the mapping by a RENAME or MOVE, and is gone there.
    """

    key: bytes
    entries: Sequence[Token]
    fence: int
    reason: str
    document: bytes
    arrived: bool = False


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


class DeadLetters:
    """One mapping's dead letters.

    Args:
        collection: where they are kept.
        mapping: the mapping.
    """

    def __init__(self, collection: "AsyncIOMotorCollection[Document]", mapping: Mapping) -> None:
        self._collection = collection
        self._mapping = mapping
        self._mine = {"mapping": mapping.prefix}

    async def keep(self, letters: Sequence[DeadLetter]) -> None:
        """Keep refused states; the same state again changes nothing."""
        operations = [_keeping(letter, self._mapping, datetime.now(UTC)) for letter in letters]
        await self._collection.bulk_write(operations, ordered=False)

    async def oldest_first(self) -> AsyncIterator[KeptLetter]:
        """All of them."""
        async for found in self._collection.find(self._mine).sort("at", 1):
            yield KeptLetter.parse(found)

    async def named(self, name: str) -> KeptLetter | None:
        """The one with this id."""
        found = await self._collection.find_one(self._with_id(name))
        return None if found is None else KeptLetter.parse(found)

    async def drop(self, name: str) -> bool:
        """Delete the one with this id; whether there was one."""
        deleted = await self._collection.delete_one(self._with_id(name))
        return bool(deleted.deleted_count)

    async def count(self) -> int:
        """How many there are."""
        return await self._collection.count_documents(self._mine)

    async def refused(self, states: Dict[bytes, bytes]) -> dict[bytes, str]:
        """Those keys of which this very document was refused, each with the reason.

        Args:
            states: JSON text by key.
        """
        keys = {letter_key(key): key for key in states}
        reasons = {}
        for some in batched(keys, AT_ONCE):
            async for letter in self._collection.find({"key": {"$in": some}} | self._mine):
                key = keys[letter["key"]]
                if letter["bytes"] == len(states[key]) and states[key].startswith(letter["document"]):
                    reasons[key] = str(letter["reason"])
        return reasons

    async def latest(self, limit: int) -> list[KeptLetter]:
        """So many, the newest first, without their documents."""
        found = self._collection.find(self._mine, {"document": 0}).sort("at", -1).limit(limit)
        return [KeptLetter.parse(each | {"document": b""}) for each in await found.to_list(limit)]

    async def latest_of(self, key: bytes) -> KeptLetter | None:
        """The latest of a key, without its document."""
        its = self._mine | {"key": letter_key(key)}
        found = await self._collection.find_one(its, {"document": 0}, sort=[("at", -1)])
        return None if found is None else KeptLetter.parse(found | {"document": b""})

    async def refused_in(self, version: int, ids: Sequence[str]) -> dict[str, str]:
        """Those of these documents that were refused in a batch, each with the reason.

        Args:
            version: the batch's.
            ids: documents that it writes, deletes or refuses.
        """
        keys = {letter_key(self._mapping.key(document_id).encode()): document_id for document_id in ids}
        refused = self._mine | {"fences": Int64(version)}
        return {
            keys[found["key"]]: str(found["reason"])
            for some in batched(keys, AT_ONCE)
            async for found in self._collection.find(refused | {"key": {"$in": some}}, {"key": 1, "reason": 1})
        }

    async def refused_above(self, version: int) -> Sequence[Refusal]:
        """The latest refused entries of states with a higher version than this, each with the reason."""
        above = self._mine | {"version": {"$gt": Int64(version)}}
        latest: list[Refusal] = []
        async for letter in self._collection.find(above, {"entries": 1, "reason": 1}).sort("version", -1):
            latest += [(Token.parse(token), letter["reason"]) for token in letter.get("entries", ())]
            if len(latest) >= REMEMBERED_REFUSALS:
                break
        return latest

    async def fenced_off(self, held: Dict[str, int]) -> set[str]:
        """Those of these documents whose version was given to them since a state was refused.

        Args:
            held: the versions of what MongoDB holds of them, by id.
        """
        keys = {letter_key(self._mapping.key(document_id).encode()): document_id for document_id in held}
        fences = self._mine | {"key": {"$in": list(keys)}}
        letters = self._collection.find(fences, {"key": 1, "fences": 1})
        return {keys[found["key"]] async for found in letters if held[keys[found["key"]]] in found.get("fences", ())}

    def _with_id(self, name: str) -> dict[str, Any]:
        """Selects the one with this id; tokens hold no spaces."""
        return {
            **self._mine,
            "_id": {"$gte": f"{Token.parse(name)} ", "$lt": f"{Token.parse(name)}!"},
        }


def letter_key(key: bytes) -> str:
    """How a dead letter names a key."""
    if len(key) <= MAX_KEY:
        return key.decode(errors="backslashreplace")
    shown = key[:MAX_KEY].decode(errors="backslashreplace")
    return f"{shown}... ({len(key)} bytes, sha256 {sha256(key).hexdigest()})"


def _keeping(letter: DeadLetter, mapping: Mapping, now: datetime) -> UpdateOne:
    """What keeps it; the same state again changes nothing."""
    newest = letter.entries[-1]
    most, told = (MAX_ARRIVED_BYTES, _ARRIVED) if letter.arrived else (MAX_BYTES, "")
    content = {
        "mapping": mapping.prefix,
        "key": letter_key(letter.key),
        "version": Int64(letter.fence),
        "entries": [str(token) for token in letter.entries[-MAX_ENTRIES:]],
        "reason": letter.reason + told,
        "document": Binary(letter.document[:most]),
        "bytes": len(letter.document),
        "at": now,
    }
    letter_id = f"{newest} {content['key']}"
    update = {"$setOnInsert": content, "$addToSet": {"fences": Int64(letter.fence)}}
    return UpdateOne({"_id": letter_id}, update, upsert=True)
