"""Errors with which MongoDB answers a whole command, though it may be a single document's fault."""

from pymongo.errors import BulkWriteError, OperationFailure, PyMongoError, WriteConcernError

UNREADABLE = frozenset({2, 5, 9, 14, 15, 22, 52, 54, 55, 56, 57, 10334, 17280, 17419})
"""Codes with which servers answer a whole command when they can't read a document in it, such as BadValue, Overflow,
FailedToParse, TypeMismatch, InvalidBSON and BSONObjectTooLarge: https://github.com/mongodb/mongo, `error_codes.yml`."""


def is_of_one(error: PyMongoError) -> bool:
    """Whether MongoDB's answer to a whole command may be for a single document in it."""
    return isinstance(error, OperationFailure) and not isinstance(error, BulkWriteError | WriteConcernError)


def is_unreadable(error: PyMongoError) -> bool:
    """Whether it is one that servers give where they can't read a document in a command."""
    return is_of_one(error) and isinstance(error, OperationFailure) and error.code in UNREADABLE
