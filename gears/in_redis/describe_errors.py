"""What is said of an error of Redis's or its driver's: where Redis is looked for, and the cause."""

import re

from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterDownError,
    ConnectionError,  # noqa: A004
    MasterDownError,
    MovedError,
    TimeoutError,  # noqa: A004
)

from gears.process.network_causes import cause_of

LONGEST = 500
"""How long a text is at the most."""

CLUSTER = (
    "this Redis is a node of a Redis Cluster, which isn't supported yet; set REDIS_URL to a single primary, or to its "
    "sentinels"
)
"""What is said of a cluster."""

_ADDRESS = re.compile(r"connecting to (\S+?)\.?(?:\s|$)")


def describe(error: BaseException) -> str:
    """What is said of this error, in one line."""
    said = str(error) or type(error).__name__
    match error:
        case AuthenticationError():
            return f"Redis: user or password is wrong: {said}"
        case BusyLoadingError():
            return "Redis: it is loading its data"
        case MasterDownError():
            return "Redis: it is a replica, and its primary is away"
        case ClusterDownError() | ClusterCrossSlotError() | MovedError():
            return CLUSTER
        case MasterNotFoundError():
            return f"Redis: {said}"[:LONGEST]
        case ConnectionError() | TimeoutError() | OSError():
            found = _ADDRESS.search(said)
            where = f"Redis at {found[1]}" if found and ":" in found[1] else "Redis"
            return f"{where}: {cause_of(said) or said}"[:LONGEST]
        case _:
            return " ".join(said.split())[:LONGEST]
