"""RedisGears 1.x: a Python session per mapping, sent with RG.PYEXECUTE."""

from functools import cached_property
from typing import Any, ClassVar

import anyio
import structlog
from pydantic_core import from_json
from redis.exceptions import ResponseError

from gears.contract.entries import CAPTURED, DELETE_EVENTS
from gears.engines.base import CaptureStatus
from gears.engines.gears1_sessions import Sessions
from gears.engines.recipe_calls import OURS, CallEngine, recipe, version_of_recipe
from gears.errors import CaptureMissing, ConfigError, OutcomeUnknown, RedisRefused
from gears.in_redis.client import FAILED, send_once
from gears.in_redis.lock import OomLock

log = structlog.get_logger()

HELD_COMMANDS = (
    *("json.set", "json.mset", "json.merge", "json.del", "json.forget", "json.clear", "json.numincrby"),
    *("json.nummultby", "del", "unlink", "rename", "renamenx", "copy"),
)
"""Commands of plain clients that are answered when their writes are committed; others are captured only."""

RECIPE = ("gears1_shared.py", "gears1_capture.py", "gears1_writes.py", "gears1_hold.py", "gears1_register.py")
"""The files whose texts, one behind the other, are the recipe."""

_MISSING = "subcommand not found"

_QUEUED = "writethrough_queued"
"""The session that all mappings share: it takes the commands of a MULTI."""

_LETTING_GO = 1.0
"""Seconds that it may take those that were held to get their answers when the recipe is replaced."""

_INSTALLING = "sync:installing"
"""A lock: RedisGears ends the whole server when one session is replaced twice at a time."""


class Gears1(CallEngine):
    """See `Engine`; the trigger that is called here is registered by `recipes/gears1_register.py`."""

    name: ClassVar[str] = "gears1"

    @cached_property
    def _sessions(self) -> Sessions:
        return Sessions(self.redis)

    @cached_property
    def _code(self) -> str:
        return "".join(map(recipe, RECIPE))

    @cached_property
    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = {
            "name": self.library,
            "prefix": self.mapping.prefix,
            **self._shared_config,
            "refused": self.names.refused,
            "events": sorted(CAPTURED),
            "deletes": sorted(DELETE_EVENTS),
            "hold": list(HELD_COMMANDS) if self.mapping.hold else [],
            "hold_seconds": self.mapping.hold,
        }
        return {"version": version_of_recipe(self._code, repr(config))} | config

    @cached_property
    def _queued_config(self) -> dict[str, Any]:
        config = {"queued": list(HELD_COMMANDS)}
        return {"version": version_of_recipe(self._code, repr(config))} | config

    @cached_property
    def text(self) -> str:
        queued = {"queued": list(HELD_COMMANDS)} if self.mapping.hold else {}
        return f"CONFIG = {self._config | queued!r}\n{self._code}"

    async def libraries(self) -> list[str]:
        return [name for name in await self._sessions.triggers() if name.startswith(OURS)]

    async def install(self) -> bool:
        if self.redis.connection_pool.connection_kwargs.get("db"):
            raise ConfigError("RedisGears 1.x works in database 0 only; leave the database out of REDIS_URL")
        async with self.redis.lock(_INSTALLING, timeout=10, blocking_timeout=10, lock_class=OomLock):
            return await self._install()

    async def _install(self) -> bool:
        status = await self.status()
        if status.working:
            return False
        session = await self._sessions.find_of_trigger(self.library)
        if session and status.version is not None:
            await self._let_all_go()
        if session and session["ID"].decode() != self.library:
            await self.remove()  # somebody sent the text by itself: it isn't replaced by a session of our name
        if not await self._queued_is_there():
            await self._execute(_QUEUED, self._queued_config)
        await self._execute(self.library, self._config)
        return True

    async def _let_all_go(self) -> None:
        """Let those go that the recipe holds, until they have their answers: replacing it drops what is under way."""
        await self._trigger("close")
        mine = await self._registered()
        with anyio.move_on_after(_LETTING_GO):
            while True:
                if not await self._sessions.are_under_way(mine):
                    return
                await anyio.sleep(0.01)

    async def status(self) -> CaptureStatus:
        expected = self._config["version"]
        try:
            said = from_json(await self._trigger("status"))
        except ResponseError as error:
            if _MISSING not in str(error):
                raise
            return CaptureStatus(self.name, installed=False, version=None, expected=expected)
        complete = len(await self._registered()) == said["registrations"]
        queued = await self._queued_is_there()
        return CaptureStatus(
            self.name,
            installed=complete and queued,
            version=said["version"],
            expected=expected,
            captured=said["captured"],
            failures=said["failures"],
            last_error=said["last_error"] or None,
        )

    async def remove(self) -> bool:
        registrations = await self._registered()
        for registration in registrations:
            await self.redis.execute_command("RG.UNREGISTER", registration)
        return bool(registrations)

    async def release(self) -> None:
        if not self.mapping.hold:
            return
        try:
            await self._trigger("release")
        except FAILED as error:
            log.warning("could not release held clients; they are at the next commit", error=str(error))

    async def _registered(self) -> list[bytes]:
        """The ids of what the mapping's session has registered."""
        session = await self._sessions.find_of_trigger(self.library)
        return list(session.get("registrations", ()))

    async def _trigger(self, verb: str) -> Any:
        reply = await self.redis.execute_command("RG.TRIGGER", self.library, verb)
        return reply[0] if isinstance(reply, list) else reply  # for the latter see the recipe

    async def _queued_is_there(self) -> bool:
        """Whether the commands of a MULTI are taken, where any are held: by the session that all mappings share."""
        if not self.mapping.hold:
            return True
        session = await self._sessions.find(_QUEUED)
        description = session.get("sessionDescription")
        if description and len(session.get("registrations", [])) == 2 * len(HELD_COMMANDS):
            return bool(description.decode() == self._queued_config["version"])
        if session:
            return False
        return set(HELD_COMMANDS) <= set(await self._sessions.triggers())  # by a text that was sent by itself

    async def _execute(self, session: str, config: dict[str, Any]) -> None:
        code = f"CONFIG = {config!r}\n{self._code}"
        options = ("ID", session, "DESCRIPTION", config["version"], "UPGRADE")
        await self.redis.execute_command("RG.PYEXECUTE", code, *options)

    async def _call(self, function: str, key: str | bytes | None, *args: str | bytes | int) -> Any:
        keys = () if key is None else (key,)
        try:
            reply = await send_once(self.redis, "RG.TRIGGER", self.library, function, *keys, *args)
            if isinstance(reply, list) and len(reply) == 1 and isinstance(reply[0], list | ResponseError):
                [reply] = reply  # it comes without this list when RedisGears took the call for another; see the recipe
            if isinstance(reply, ResponseError):
                raise reply
            if not isinstance(reply, list):
                raise OutcomeUnknown(f"RedisGears answered {reply!r}"[:500])
        except ResponseError as error:
            if _MISSING in str(error):
                raise CaptureMissing(
                    f"the write-through recipe for {self.mapping.prefix!r} is not installed"
                ) from error
            raise RedisRefused(str(error)) from error
        if function in ("put", "remove"):
            return reply
        return reply[0] if reply else None
