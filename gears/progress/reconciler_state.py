"""What a mapping's reconciler says of itself."""

from typing import Any

from pydantic import BaseModel

from gears.contract.mapping import Mapping
from gears.contract.redis_names import Names
from gears.in_redis.client import Redis


class ReconcilerState(BaseModel):
    """What the reconciler that holds the lease says of itself; it vanishes when the reconciler does.

    All counts are since this process started.
    """

    owner: str
    state: str
    """`starting`; `listening`: keys are compared a moment after they changed; `overloaded`: they change too fast, a
    sweep follows; `deaf`: Redis doesn't tell what changes. Sweeps are made in each of them."""
    reason: str = ""
    since: float
    """When this state began, in seconds of the Unix epoch."""
    notifications: int = 0
    """Keyspace events heard."""
    notifications_per_second: float = 0.0
    noted: int = 0
    """Changed keys that wait to be compared."""
    rechecked: int = 0
    """Keys compared since they had changed."""
    repaired: int = 0
    """Those that differed, and don't any more."""
    deletes: int = 0
    """Deletes that no recipe had captured."""


async def read_reconciler(redis: Redis, mapping: Mapping) -> ReconcilerState | None:
    """What the mapping's reconciler says of itself; None when none is at work."""
    reported: Any = await redis.hgetall(Names(mapping.prefix).reconciling)
    if not reported:
        return None
    return ReconcilerState.model_validate({name.decode(): value.decode() for name, value in reported.items()})
