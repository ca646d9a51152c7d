"""What an error of MongoDB's, or of its driver's, means to us: one function decides, by a table of codes."""

from collections.abc import Mapping as Dict
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pymongo.errors import BulkWriteError, ConnectionFailure, OperationFailure, PyMongoError, WriteConcernError

from gears.in_mongo.errors.known_codes import (
    CURSOR_GONE,
    DOCUMENT,
    DUPLICATE,
    INDEX_IN_THE_WAY,
    NO_COLLECTION,
    NO_USER,
    SET_UP,
    UNREADABLE,
)


class Meaning(Enum):
    """What is wrong."""

    DOCUMENT = "document"
    """An upsert is refused: no server will ever store this document, whatever else changes.

    That holds for an item of a bulk write, and for an operation as a whole only if it carries a single document. A
    delete stores nothing, so nothing of it is refused.
    """

    DUPLICATE = "duplicate"
    """Another document has this value of a unique index: which one, and which index, is to be looked up."""

    INDEX_IN_THE_WAY = "index in the way"
    """An index can't be built, since there is another one in its place: a person must mend that, too."""

    SET_UP = "set-up"
    """Rights, space, options, indexes: tried again, and said so that a person mends it."""

    NO_USER = "no user"
    """There is no such user or role."""

    NO_COLLECTION = "no collection"
    """There is no such collection yet."""

    CURSOR_GONE = "cursor gone"
    """The cursor was idle for too long: go on with another."""

    AWAY = "away"
    """MongoDB isn't reached, or the connection broke: tried again, for ever."""

    RETRY = "retry"
    """Tried again, for ever; so is every code that nobody knows."""


class Cause(Enum):
    """Whether a document may be why a whole operation fails, so that it is tried again with fewer."""

    UNREADABLE = "unreadable"
    """MongoDB can't read a document in it, most likely."""

    SLOW = "slow"
    """It wasn't done in time."""

    COMMAND = "command"
    """MongoDB answers a whole command with it: one document in it may be why."""

    ELSEWHERE = "elsewhere"
    """It is about no document of the command, or names the one that it is about."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an error means."""

    meaning: Meaning
    cause: Cause

    @property
    def refuses(self) -> bool:
        """Whether MongoDB won't have a document as it is, or as others are; all else is of servers and set-up."""
        return self.meaning in (Meaning.DOCUMENT, Meaning.DUPLICATE)


_MEANINGS = {
    code: meaning
    for meaning, codes in (
        (Meaning.DOCUMENT, DOCUMENT),
        (Meaning.DUPLICATE, DUPLICATE),
        (Meaning.INDEX_IN_THE_WAY, INDEX_IN_THE_WAY),
        (Meaning.SET_UP, SET_UP),
        (Meaning.NO_USER, NO_USER),
        (Meaning.NO_COLLECTION, NO_COLLECTION),
        (Meaning.CURSOR_GONE, CURSOR_GONE),
    )
    for code in codes
}


def judge(error: PyMongoError | Dict[str, Any]) -> Verdict:
    """What an error means.

    Args:
        error: what was raised, or one of the `writeErrors` of a bulk write.
    """
    if not isinstance(error, PyMongoError):
        return Verdict(_meaning_of(error.get("code")), Cause.ELSEWHERE)
    if isinstance(error, ConnectionFailure):
        return Verdict(Meaning.AWAY, Cause.SLOW if error.timeout else Cause.ELSEWHERE)
    code = error.code if isinstance(error, OperationFailure) else None
    return Verdict(_meaning_of(code), _cause_of(error, code))


def _meaning_of(code: int | None) -> Meaning:
    return Meaning.RETRY if code is None else _MEANINGS.get(code, Meaning.RETRY)


def _cause_of(error: PyMongoError, code: int | None) -> Cause:
    if error.timeout:
        return Cause.SLOW
    if not isinstance(error, OperationFailure) or isinstance(error, BulkWriteError | WriteConcernError):
        return Cause.ELSEWHERE
    return Cause.UNREADABLE if code in UNREADABLE else Cause.COMMAND


def failures_of(error: BulkWriteError) -> list[dict[str, Any]]:
    """What failed of a bulk write, item by item; raises the error if the others aren't confirmed either."""
    if error.details.get("writeConcernErrors"):
        raise error
    failures: list[dict[str, Any]] = error.details.get("writeErrors", [])
    return failures
