"""RedisGears 2.0: a JavaScript library per mapping, loaded with TFUNCTION LOAD."""

import json
from functools import cached_property
from typing import Any, ClassVar

from redis.exceptions import ResponseError

from gears.contract.entries import CAPTURED, DELETE_EVENTS
from gears.engines.base import CaptureStatus
from gears.engines.recipe_calls import OURS, CallEngine, recipe, version_of_recipe
from gears.errors import CaptureMissing, OutcomeUnknown, RedisRefused
from gears.in_redis.client import send_once

_MISSING = ("unknown library", "unknown function", "unknown command")

_ENDED = "execution was terminated"
"""Gears ended a script, which took too long (`lock-redis-timeout`) or too much memory: what it did until then stays."""

_WRITES = frozenset({"put", "remove"})


class Gears2(CallEngine):
    """See `Engine`; the functions called here are those that `recipes/gears2.js` registers."""

    name: ClassVar[str] = "gears2"

    @cached_property
    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = {
            "prefix": self.mapping.prefix,
            "database": self.redis.connection_pool.connection_kwargs.get("db") or 0,
            **self._shared_config,
            "events": sorted(CAPTURED),
            "deletes": sorted(DELETE_EVENTS),
        }
        code = f"{self.library}\n{recipe('gears2.js')}"
        return {"version": version_of_recipe(code, json.dumps(config, sort_keys=True))} | config

    @cached_property
    def text(self) -> str:
        head = f"#!js name={self.library} api_version=1.0\nconst config = {json.dumps(self._config)};\n"
        return head + recipe("gears2.js")

    async def libraries(self) -> list[str]:
        found = await self.redis.execute_command("TFUNCTION", "LIST")
        names = [_as_dict(library)["name"].decode() for library in found]
        return [name for name in names if name.startswith(OURS)]

    async def install(self) -> bool:
        status, failed = await self._inspect()
        if status.working:
            return False
        config = json.dumps({"failed_before": failed})  # Gears goes on counting when it is loaded again
        await self.redis.execute_command("TFUNCTION", "LOAD", "REPLACE", "CONFIG", config, self.text)
        return True

    async def status(self) -> CaptureStatus:
        return (await self._inspect())[0]

    async def _inspect(self) -> tuple[CaptureStatus, int]:
        """The status, and the failures that Gears has counted, also those before the recipe was loaded last."""
        expected = self._config["version"]
        libraries = await self.redis.execute_command("TFUNCTION", "LIST", "LIBRARY", self.library, "vv")
        if not libraries:
            return CaptureStatus(self.name, installed=False, version=None, expected=expected), 0
        library = _as_dict(libraries[0])
        triggers = [_as_dict(trigger) for trigger in library.get("keyspace_triggers", [])]
        trigger = next((t for t in triggers if t.get("name") == b"capture"), None)
        if trigger is None:
            return CaptureStatus(self.name, installed=False, version=None, expected=expected), 0
        try:
            config = dict(json.loads(library.get("configuration") or b"{}"))
        except (TypeError, ValueError):
            config = {}
        described = trigger.get("description")
        version = described.decode(errors="replace").rpartition(" ")[2] if described else None
        error, failed, before = (
            trigger.get("last_error"),
            int(trigger.get("num_failed", 0)),
            config.get("failed_before", 0),
        )
        status = CaptureStatus(
            self.name,
            installed=True,
            version=version,
            expected=expected,
            captured=int(trigger.get("num_success", 0)),
            failures=failed - before if failed >= before else failed,
            last_error=error.decode(errors="replace") if error else None,
        )
        return status, failed

    async def remove(self) -> bool:
        try:
            await self.redis.execute_command("TFUNCTION", "DELETE", self.library)
        except ResponseError as error:
            if "does not exist" in str(error).lower() or any(word in str(error).lower() for word in _MISSING):
                return False
            raise
        return True

    async def _call(self, function: str, key: str | bytes | None, *args: str | bytes | int) -> Any:
        name = f"{self.library}.{function}"
        keys = () if key is None else (key,)
        try:
            return await send_once(self.redis, "TFCALL", name, len(keys), *keys, *args)
        except ResponseError as error:
            message = str(error)
            if any(word in message.lower() for word in _MISSING):
                raise CaptureMissing(
                    f"the write-through recipe for {self.mapping.prefix!r} is not installed"
                ) from error
            if function in _WRITES and _ENDED in message.lower():
                raise OutcomeUnknown(f"RedisGears ended the script: {message}") from error
            raise RedisRefused(message) from error


def _as_dict(flat: list[Any] | dict[bytes, Any]) -> dict[str, Any]:
    pairs = flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True)
    return {key.decode(): value for key, value in pairs}
