"""The engine of each mapping, detected when first needed, since Redis may be away at the start."""

from collections.abc import Iterable

from gears.contract.mapping import Mapping
from gears.engines import Engine, open_engine
from gears.errors import CaptureMissing, ConfigError, RedisAway
from gears.in_redis.client import AWAY, Redis


class Engines:
    """The engines found so far.

    Args:
        redis: the server that has them.
        mappings: the mappings to open them for.
        name: which one to use; `auto` asks the server.
    """

    def __init__(self, redis: Redis, mappings: Iterable[Mapping], name: str) -> None:
        self._redis = redis
        self._mappings = {mapping.prefix: mapping for mapping in mappings}
        self._name = name
        self._found: dict[str, Engine] = {}

    async def get(self, prefix: str) -> Engine:
        """The engine of a mapping.

        Raises:
            RedisAway: the server can't be asked.
            CaptureMissing: the server has none.
        """
        engine = self._found.get(prefix)
        if engine is None:
            try:
                engine = await open_engine(self._redis, self._mappings[prefix], self._name)
            except AWAY as error:
                raise RedisAway(str(error)) from error
            except ConfigError as error:
                raise CaptureMissing(str(error)) from error
            self._found[prefix] = engine
        return engine
