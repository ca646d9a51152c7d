"""Exception groups, flattened."""

from pymongo.errors import PyMongoError

from gears.in_mongo.errors.describe import held_up
from gears.in_redis.describe_errors import describe


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """The exceptions in a group that are no groups themselves."""
    return [
        leaf
        for error in group.exceptions
        for leaf in (leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]


def reasons(group: BaseExceptionGroup[BaseException]) -> str:
    """What went wrong, in one line; each reason once."""
    return "; ".join(sorted(set(map(_reason, leaves(group)))))


def _reason(error: BaseException) -> str:
    if isinstance(error, PyMongoError):
        return held_up(error)
    return describe(error)
