"""Which ports and which folder the embedded setup uses."""

from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Where everything is.

    Args:
        host: IPv4 address or name the API listens on; Redis and MongoDB always listen on 127.0.0.1.
        port: the API's port.
        redis_port: port of Redis.
        mongo_port: port of the MongoDB-compatible server.
        data: absolute path of the folder that keeps all data and logs.
    """

    host: str
    port: int
    redis_port: int
    mongo_port: int
    data: Path

    @property
    def reachable_host(self) -> str:
        """The host under which this machine reaches the API."""
        return LOOPBACK if self.host in ("", "0.0.0.0") else self.host

    @property
    def api_url(self) -> str:
        """Where to open the API."""
        return f"http://{self.reachable_host}:{self.port}"

    @property
    def redis_url(self) -> str:
        """`REDIS_URL` of the worker and the API."""
        return f"redis://{LOOPBACK}:{self.redis_port}/0"

    @property
    def mongo_uri(self) -> str:
        """`MONGO_URI` of the worker and the API."""
        return f"mongodb://{LOOPBACK}:{self.mongo_port}"
