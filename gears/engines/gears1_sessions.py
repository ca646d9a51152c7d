"""What RedisGears 1.x says of its sessions, and of what they have registered."""

from collections.abc import Collection
from typing import Any

from gears.in_redis.client import Redis


class Sessions:
    """The sessions of one server.

    Args:
        redis: client with replies as bytes.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def find(self, name: str) -> dict[str, Any]:
        """The session of this name; empty without any."""
        [session] = await self._redis.execute_command("RG.PYDUMPSESSIONS", "SESSIONS", name)
        return _named(session) if isinstance(session, list) else {}

    async def find_of_trigger(self, trigger: str) -> dict[str, Any]:
        """The session of a trigger's name, or the one that has it from a text sent by itself; empty without any."""
        session = await self.find(trigger)
        if session:
            return session
        its = {found[b"id"] for found in await self._registrations() if _trigger(found) == trigger}
        sessions = map(_named, await self._redis.execute_command("RG.PYDUMPSESSIONS"))
        return next((found for found in sessions if its & set(found["registrations"])), {})

    async def triggers(self) -> list[str]:
        """The triggers of all sessions; empty for what is registered otherwise."""
        return list(map(_trigger, await self._registrations()))

    async def are_under_way(self, registrations: Collection[bytes]) -> bool:
        """Whether any of these was called and hasn't answered."""
        return any(_is_under_way(found) for found in await self._registrations() if found[b"id"] in registrations)

    async def _registrations(self) -> list[dict[bytes, Any]]:
        return [_pairs(found) for found in await self._redis.execute_command("RG.DUMPREGISTRATIONS")]


def _is_under_way(registration: dict[bytes, Any]) -> bool:
    counts = _pairs(registration[b"RegistrationData"])
    return bool(counts[b"numTriggered"] > sum(counts[name] for name in (b"numSuccess", b"numFailures", b"numAborted")))


def _trigger(registration: dict[bytes, Any]) -> str:
    arguments = _pairs(_pairs(registration[b"RegistrationData"])[b"args"])
    return bytes(arguments.get(b"trigger", b"")).decode()


def _named(session: list[Any]) -> dict[str, Any]:
    return {key.decode(): value for key, value in _pairs(session).items()}


def _pairs(reply: list[Any]) -> dict[bytes, Any]:
    return dict(zip(reply[::2], reply[1::2], strict=True))
