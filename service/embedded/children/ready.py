"""Is it ready? One probe per server, each asking the server itself."""

from contextlib import suppress

import anyio
import pymongo
import redis.asyncio
from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.embedded.children.child import Probe

_MODULES = {"ReJSON", "redisgears_2"}


def redis_ready(url: str) -> Probe:
    """Ready when it answers (which it refuses while it loads its data) and both modules are there."""

    async def ask() -> bool:
        client = redis.asyncio.Redis.from_url(url, socket_timeout=1, retry=None, protocol=2)
        try:
            await client.ping()
            modules = await client.module_list()
        except RedisTimeoutError as error:
            raise TimeoutError from error
        except RedisError as error:
            raise ConnectionError(str(error)) from error
        finally:
            await client.aclose()
        missing = _MODULES - {module[b"name"].decode() for module in modules}
        if missing:
            raise ConnectionError(f"{', '.join(sorted(missing))} not loaded")
        return True

    return ask


def mongo_ready(uri: str) -> Probe:
    """Ready when it answers the ping command."""
    [(host, port)] = parse_uri(uri)["nodelist"]

    async def ask() -> bool:
        async with await anyio.connect_tcp(host, port or 27017):
            pass  # nobody listens: that is known at once, while the driver would wait
        async with pymongo.AsyncMongoClient[dict[str, object]](uri, serverSelectionTimeoutMS=1500) as client:
            try:
                await client.admin.command("ping")
            except PyMongoError as error:
                raise (TimeoutError if error.timeout else ConnectionError)(str(error)) from error
        return True

    return ask


async def tap(host: str, port: int) -> None:
    """Connect and hang up: wakes a server that sits in accept() with its socket closed already."""
    with suppress(OSError):
        async with await anyio.connect_tcp(host, port):
            pass


def http_ready(host: str, port: int, path: str = "/healthz") -> Probe:
    """Ready when GET answers 200."""

    async def ask() -> bool:
        async with await anyio.connect_tcp(host, port) as stream:
            try:
                await stream.send(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
                status = (await stream.receive()).split(b"\r\n", 1)[0].decode(errors="replace")
            except (anyio.EndOfStream, anyio.BrokenResourceError) as error:
                raise ConnectionError("it hung up") from error
        if " 200" not in status:
            raise ConnectionError(f"GET {path} answers {status!r}")
        return True

    return ask
