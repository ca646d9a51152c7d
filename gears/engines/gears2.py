"""RedisGears 2.0: a JavaScript library per mapping, loaded with TFUNCTION LOAD."""

import hashlib
import json
from functools import cached_property
from importlib.resources import files
from typing import Any, ClassVar

from redis.exceptions import ResponseError

from gears.engines.base import Absent, Any_, CaptureStatus, Condition, Engine, Equals, Present, Written
from gears.errors import BacklogFull, CaptureMissing, ForeignKey, PreconditionFailed, RedisRefused
from gears.redis import send_once
from gears.stream import DELETE_EVENTS, EVENTS, GONE_TTL, EntryId

_MISSING = ("unknown library", "unknown function", "unknown command")


class Gears2(Engine):
    """See `Engine`; the functions called here are those that `recipes/gears2.js` registers."""

    name: ClassVar[str] = "gears2"

    @cached_property
    def library(self) -> str:
        """The library's name: the prefix with all but letters and digits spelled as hex."""
        spelled = "".join(c if c.isascii() and c.isalnum() else f"_{ord(c):x}" for c in self.mapping.prefix)
        return f"writethrough_{spelled}"

    @cached_property
    def _code(self) -> str:
        recipe = files("gears.recipes").joinpath("gears2.js").read_text("utf-8")
        return f"#!js name={self.library} api_version=1.0\n{recipe}"

    @cached_property
    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = {
            "prefix": self.mapping.prefix,
            "stream": self.names.stream,
            "gone": self.names.gone,
            "events": sorted(EVENTS),
            "deletes": sorted(DELETE_EVENTS),
            "fill_age_ms": GONE_TTL * 500,
        }
        digest = hashlib.sha256(self._code.encode() + json.dumps(config, sort_keys=True).encode())
        return {"version": digest.hexdigest()[:12]} | config

    async def install(self) -> bool:
        status, failed = await self._inspect()
        if status.working:
            return False
        config = json.dumps(self._config | {"failed_before": failed})  # Gears goes on counting when it is loaded again
        await self.redis.execute_command("TFUNCTION", "LOAD", "REPLACE", "CONFIG", config, self._code)
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
        try:
            config = dict(json.loads(library.get("configuration") or b"{}"))
        except (TypeError, ValueError):
            config = {}
        version = config.get("version")
        if trigger is None:
            return CaptureStatus(self.name, installed=False, version=version, expected=expected), 0
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

    async def put(self, document_id: str, document: bytes, condition: Condition, *, backlog_limit: int) -> Written:
        return _written(
            await self._call("put", document_id, document, *_condition(condition), backlog_limit), condition
        )

    async def delete(self, document_id: str, condition: Condition, *, backlog_limit: int) -> Written:
        return _written(await self._call("remove", document_id, *_condition(condition), backlog_limit), condition)

    async def fill(self, document_id: str, document: bytes, *, version: int, age_limit: EntryId) -> bytes | None:
        filled: bytes | None = await self._call("fill", document_id, document, version, age_limit.ms)
        return filled

    async def restore(self, document_id: str, document: bytes | None, *, since: EntryId) -> bool:
        done = await self._call("restore", document_id, document or b"", str(since))
        return bool(done == b"1")

    async def roll_back(self, document_id: str, seen: bytes, document: bytes | None, *, version: int) -> bool:
        done = await self._call("roll_back", document_id, seen, document or b"", version)
        return bool(done == b"1")

    async def _call(self, function: str, document_id: str, *args: str | bytes | int) -> Any:
        name = f"{self.library}.{function}"
        try:
            return await send_once(self.redis, "TFCALL", name, 1, self.mapping.key(document_id), *args)
        except ResponseError as error:
            message = str(error)
            if any(word in message.lower() for word in _MISSING):
                raise CaptureMissing(
                    f"the write-through recipe for {self.mapping.prefix!r} is not installed"
                ) from error
            raise RedisRefused(message) from error


def _condition(condition: Condition) -> tuple[str, bytes]:
    match condition:
        case Any_():
            return "any", b""
        case Absent():
            return "absent", b""
        case Present():
            return "present", b""
        case Equals(document):
            return "equals", document


def _written(reply: list[bytes], condition: Condition) -> Written:
    match reply:
        case [b"ok", entry_id, existed, document]:
            return Written(EntryId.parse(entry_id), existed == b"1", document)
        case [b"foreign"]:
            raise ForeignKey("the key holds another type than a JSON document; rename or delete it in Redis")
        case [b"backlog"]:
            raise BacklogFull("too many writes wait for MongoDB")
        case _:
            raise PreconditionFailed(f"the key is not as asked for: {condition}")


def _as_dict(flat: list[Any] | dict[bytes, Any]) -> dict[str, Any]:
    pairs = flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True)
    return {key.decode(): value for key, value in pairs}
