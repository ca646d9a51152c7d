"""Which engine a server has."""

from redis.exceptions import ResponseError

from gears.contract.mapping import Mapping
from gears.engines.base import Engine
from gears.engines.function import Function
from gears.engines.gears1 import Gears1
from gears.engines.gears2 import Gears2
from gears.errors import ConfigError
from gears.in_redis.client import Redis
from gears.in_redis.describe_errors import CLUSTER

ENGINES: dict[str, type[Engine]] = {engine.name: engine for engine in (Gears1, Gears2, Function)}


async def detect(redis: Redis) -> str:
    """The name of the best engine for this server, judged by the modules it has loaded.

    Raises:
        ConfigError: RedisJSON is missing, or nothing here can capture.
    """
    try:
        reply = await redis.execute_command("MODULE", "LIST")
    except ResponseError as error:
        raise ConfigError(f"MODULE LIST is not allowed ({error}); name the engine with WT_ENGINE") from error
    modules = {_name(module) for module in reply}
    if "rejson" not in modules:
        raise ConfigError("this Redis has no RedisJSON; load rejson.so, or use Redis Stack or Redis 8")
    if "redisgears_2" in modules:
        return Gears2.name
    if "rg" in modules:
        return Gears1.name
    try:
        await redis.execute_command("FUNCTION", "STATS")
    except ResponseError as error:
        raise ConfigError(f"this Redis has neither RedisGears nor functions ({error}); use Redis 7 or later") from error
    return Function.name


async def open_engine(redis: Redis, mapping: Mapping, name: str = "auto") -> Engine:
    """The engine called `name` for a mapping; `auto` asks the server.

    Raises:
        ConfigError: see `detect`; or it is a node of a cluster.
    """
    if (await redis.info("cluster")).get("cluster_enabled"):
        raise ConfigError(CLUSTER)
    return ENGINES[await detect(redis) if name == "auto" else name](redis, mapping)


def _name(module: dict[bytes | str, bytes] | list[bytes]) -> str:
    if isinstance(module, list):
        module = dict(zip(module[::2], module[1::2], strict=True))
    return (module.get(b"name") or module.get("name") or b"").decode().lower()
