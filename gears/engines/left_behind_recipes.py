"""Recipes that were left behind: of mappings that aren't in MAPPINGS any more, filling a stream that nobody reads."""

from collections.abc import Iterable
from dataclasses import dataclass

from redis.exceptions import NoPermissionError

from gears.contract.mapping import Mapping
from gears.contract.redis_names import Names
from gears.engines import Engine
from gears.engines.detect import ENGINES
from gears.engines.recipe_calls import prefix_of
from gears.errors import ConfigError
from gears.in_redis.client import Redis

_SCANNED = 1000


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """A recipe without a mapping.

    Args:
        prefix: the mapping's that it had.
        entries: how many its sync stream holds; None where the user may not look.
    """

    prefix: str
    entries: int | None

    @property
    def problem(self) -> str:
        """What that means, and what to do."""
        filling = "" if self.entries is None else f", where {self.entries:,} entries wait"
        return (
            f"the recipe of {self.prefix!r} is in Redis, but MAPPINGS has no such mapping, and nobody reads its sync "
            f"stream{filling}; add it to MAPPINGS, or run: writethrough recipe remove --mapping {self.prefix} (unless "
            "another deployment on this Redis needs it)"
        )


async def find_left_behind(engine: Engine, mappings: Iterable[Mapping]) -> list[LeftBehind]:
    """The recipes of no mapping, those aside on which a worker is at work.

    Args:
        engine: of any mapping, on the server to look at.
        mappings: all that there are.
    """
    mapped = {mapping.prefix for mapping in mappings}
    found = []
    for prefix in sorted(set(map(prefix_of, await engine.libraries())) - mapped):
        names = Names(prefix)
        try:
            if not await engine.redis.exists(names.lease):
                found.append(LeftBehind(prefix, int(await engine.redis.xlen(names.stream))))
        except NoPermissionError:
            found.append(LeftBehind(prefix, None))
    return found


async def remove_left_behind(redis: Redis, engine: str, prefix: str, mappings: Iterable[Mapping]) -> tuple[bool, int]:
    """Remove the recipe of a mapping that there isn't any more, and all keys that the system kept for it.

    Documents stay, and so does what MongoDB holds.

    Args:
        redis: client with replies as bytes.
        engine: the engine's name.
        prefix: the mapping's.
        mappings: all that there are.

    Returns:
        Whether the recipe was there, and how many keys were.

    Raises:
        ConfigError: there is such a mapping, or a worker is at work on it.
    """
    if prefix in {mapping.prefix for mapping in mappings}:
        raise ConfigError(f"MAPPINGS has {prefix!r}; take it out, restart worker and API, and do this again")
    names = Names(prefix)
    if await redis.exists(names.lease):
        raise ConfigError(f"a worker is at work on {prefix!r}; stop it, or take {prefix!r} out of its MAPPINGS")
    removed = await ENGINES[engine](redis, Mapping(prefix, "", "")).remove()
    keys = [names.stream] + [key async for key in redis.scan_iter(match=f"{names.stream}:*", count=_SCANNED)]
    gone = 0
    for start in range(0, len(keys), _SCANNED):
        gone += int(await redis.delete(*keys[start : start + _SCANNED]))
    return removed, gone
