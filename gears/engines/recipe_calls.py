"""The calls that every recipe answers alike: their arguments and what their replies mean."""

import hashlib
import re
import secrets
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.resources import files
from typing import Any

from anyio import to_thread

from gears.contract.redis_names import TICKET_TTL
from gears.contract.write_tokens import EntryId, Token
from gears.documents.redis_json_text import for_redis
from gears.engines.base import Absent, Any_, Condition, Engine, Equals, Present, Written
from gears.errors import BacklogFull, ForeignKey, LeaseLost, PreconditionFailed, Rewound, Unchecked

_LARGE = 64 * 1024
"""Bytes from which on a document is looked through in a thread."""


class CallEngine(Engine):
    """An engine whose writes are calls of `put`, `remove`, `fill` and others inside Redis."""

    @cached_property
    def library(self) -> str:
        """The recipe's name in Redis: the prefix with all but letters and digits spelled as hex."""
        return library_of(self.mapping.prefix)

    @property
    def _shared_config(self) -> dict[str, str | int]:
        """What recipes of all engines are told."""
        return {
            "stream": self.names.stream,
            "life": self.names.life,
            "tag": self.names.tag,
            "acked": self.names.acked,
            "aside": self.names.aside,
            "checked": self.names.checked,
            "lease": self.names.lease,
            "gone": self.names.gone,
            "ticket": self.names.ticket,
            "ticket_ms": TICKET_TTL * 1000,
        }

    async def life(self) -> str:
        life = await self._call("life", None)
        return str(life.decode())

    async def backfill(self, key: bytes, event: str, *, life: str) -> bool:
        return bool(await self._call("backfill", key, event, life) == b"1")

    async def put(self, document_id: str, document: bytes, condition: Condition, *, backlog_limit: int) -> Written:
        text, *increments = await _for_redis(document)
        reply = await self._call(
            "put", self.mapping.key(document_id), text, *_condition(condition), backlog_limit, *increments
        )
        return _written(reply, condition)

    async def delete(self, document_id: str, condition: Condition, *, backlog_limit: int) -> Written:
        return _written(
            await self._call("remove", self.mapping.key(document_id), *_condition(condition), backlog_limit), condition
        )

    async def ticket(self, document_id: str) -> bytes | None:
        ticket: bytes | None = await self._call("ticket", self.mapping.key(document_id), secrets.token_hex(8))
        return ticket

    async def fill(self, document_id: str, document: bytes, *, version: int, ticket: bytes) -> bytes | None:
        text, *increments = await _for_redis(document)
        filled: bytes | None = await self._call(
            "fill", self.mapping.key(document_id), text, int(version), ticket, *increments
        )
        return filled

    async def give_back(
        self, document_id: str, document: bytes | None, *, since: EntryId, token: str, life: str
    ) -> bool:
        text, *increments = await _for_redis(document)
        args = (str(since), token, life, *increments)
        done = await self._call(
            "restore", self.mapping.key(document_id), text, *args
        )  # so recipes have called it always
        check_mine(done)
        return bool(done == b"1")

    async def warm(self, documents: Mapping[str, bytes], *, acked: str, token: str, life: str) -> int | None:
        args: list[str | bytes] = []
        for document_id, document in documents.items():
            text, *increments = await _for_redis(document)
            args += (self.mapping.key(document_id), text, str(len(increments)), *increments)
        done = await self._call("warm", None, token, life, acked, *args)
        check_mine(done)
        return None if done == b"moved on" else int(done)

    async def roll_back(
        self, document_id: str, seen: bytes, document: bytes | None, *, version: int | None, since: EntryId, life: str
    ) -> bool:
        text, *increments = await _for_redis(document)
        filled_from = "" if version is None else str(version)
        done = await self._call(
            "roll_back", self.mapping.key(document_id), seen, text, filled_from, str(since), life, *increments
        )
        return bool(done == b"1")

    @abstractmethod
    async def _call(self, function: str, key: str | bytes | None, *args: str | bytes | int) -> Any:
        """Run one of the recipe's functions, on a key if there is one; raises as `Engine` says."""


OURS = "writethrough_"
"""How the names of all libraries of ours begin."""

_SPELLED = re.compile("_([0-9a-f]{2})")


def library_of(prefix: str) -> str:
    """The name of a mapping's recipe in Redis: the prefix with all but letters and digits spelled as hex."""
    return OURS + "".join(c if c.isascii() and c.isalnum() else f"_{ord(c):02x}" for c in prefix)


def prefix_of(library: str) -> str:
    """The prefix of the mapping whose recipe has this name."""
    return _SPELLED.sub(lambda found: chr(int(found[1], 16)), library.removeprefix(OURS))


def check_mine(done: bytes | None) -> None:
    """Raise what a word says of the caller's lease and life."""
    if done == b"lease lost":
        raise LeaseLost("another committer took over")
    if done == b"rewound":
        raise Rewound("Redis was restarted, or emptied, and may have forgotten something")


async def _for_redis(document: bytes | None) -> Sequence[str | bytes]:
    """The text that Redis reads as exactly this document, and the increments that it takes; see `for_redis`."""
    if document is None:
        return (b"",)
    if len(document) < _LARGE:
        return for_redis(document)
    return await to_thread.run_sync(for_redis, document)


def recipe(name: str) -> str:
    """The text of a recipe."""
    return files("gears.recipes").joinpath(name).read_text("utf-8")


def version_of_recipe(code: str, config: str) -> str:
    """What changes whenever a recipe or its configuration does."""
    return hashlib.sha256(code.encode() + config.encode()).hexdigest()[:12]


def _condition(condition: Condition) -> tuple[str, bytes]:
    match condition:
        case Any_():
            return "any", b""
        case Absent():
            return "absent", b""
        case Present():
            return "present", b""
        case Equals(document):
            return "equals", document


def _written(reply: list[bytes], condition: Condition) -> Written:
    match reply:
        case [b"ok", entry_id, existed, document, life]:
            return Written(Token(life.decode(), EntryId.parse(entry_id)), existed == b"1", document)
        case [b"foreign"]:
            raise ForeignKey("the key holds another type than a JSON document; rename or delete it in Redis")
        case [b"unchecked"]:
            raise Unchecked(
                "Redis was started or emptied, and no worker has looked yet what it has forgotten: try again in a "
                "moment, and see that a worker runs"
            )
        case [b"backlog"]:
            raise BacklogFull("too many writes wait for MongoDB")
        case _:
            raise PreconditionFailed(f"the key is not as asked for: {condition}")
