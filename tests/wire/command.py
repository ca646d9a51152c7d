"""A command that a client sends."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bson.raw_bson import RawBSONDocument

from tests.wire.message import (
    EXHAUST_ALLOWED,
    OP_MSG,
    OP_QUERY,
    Document,
    Message,
    decode,
    pack_msg,
    unpack_msg,
    unpack_query,
)

_ITEMS = {"insert": "documents", "update": "updates", "delete": "deletes"}


@dataclass(frozen=True)
class Command:
    """A command; `items` are a write's documents, updates or deletes."""

    message: Message
    name: str
    database: str
    collection: str
    body: Document
    sequences: dict[str, list[RawBSONDocument]] = field(repr=False)

    @classmethod
    def parse(cls, message: Message) -> "Command | None":
        """The command in this message; None when there is none."""
        sequences: dict[str, list[RawBSONDocument]] = {}
        if message.opcode == OP_MSG:
            body, sequences = unpack_msg(message)
            database = body.get("$db", "")
        elif message.opcode == OP_QUERY:
            namespace, body = unpack_query(message)
            database = namespace.partition(".")[0]
        else:
            return None
        name = next(iter(body), "")
        collection = body.get("collection") if name == "getMore" else body.get(name)
        if name.lower() == "ismaster":
            name = "hello"
        return cls(message, name, database, collection if isinstance(collection, str) else "", body, sequences)

    @property
    def items(self) -> list[Document]:
        """A write's documents, updates or deletes, in their order; of anything else, none."""
        return [decode(item.raw) if isinstance(item, RawBSONDocument) else item for item in self._items]

    @property
    def size(self) -> int:
        """How many items there are."""
        return len(self._items)

    @property
    def _items(self) -> Sequence[RawBSONDocument | Document]:
        field = _ITEMS.get(self.name, "")
        if field in self.sequences:
            return self.sequences[field]
        found: list[Document] = self.body.get(field, [])
        return found

    @property
    def ordered(self) -> bool:
        """Whether a write stops at its first error."""
        return bool(self.body.get("ordered", True))

    def packed(self) -> bytes:
        """The message to send on: one that is answered once."""
        if not self.message.flags & EXHAUST_ALLOWED:
            return self.message.data
        return self._pack(self.body, self.sequences)

    def on_database(self, name: str) -> bytes:
        """The same message for the database of this name."""
        if self.message.opcode != OP_MSG or name == self.database:
            return self.message.data
        return pack_msg(self.message.request_id, 0, self.message.flags, self.body | {"$db": name}, self.sequences)

    def packed_with(self, indexes: Iterable[int]) -> bytes:
        """The same write with these of its items only.

        It has no transaction number: by that, a server would take a retry of the whole write for one of this part.
        """
        chosen = list(indexes)
        items = _ITEMS[self.name]
        body, sequences = dict(self.body), dict(self.sequences)
        if items in sequences:
            sequences[items] = [sequences[items][index] for index in chosen]
        else:
            body[items] = [body[items][index] for index in chosen]
        body.pop("txnNumber", None)
        return self._pack(body, sequences)

    def _pack(self, body: Document, sequences: dict[str, list[RawBSONDocument]]) -> bytes:
        flags = self.message.flags & ~EXHAUST_ALLOWED
        return pack_msg(self.message.request_id, 0, flags, body, sequences)
