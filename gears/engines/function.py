"""Redis 7 and later, or Valkey, with a JSON module and without Gears: a Lua library per mapping."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from redis.exceptions import ResponseError

from gears.contract.entries import DELETE_EVENTS
from gears.engines.base import CaptureStatus
from gears.engines.recipe_calls import OURS, CallEngine, check_mine, recipe, version_of_recipe
from gears.errors import CaptureMissing, RedisRefused
from gears.in_redis.client import send_once

_MISSING = "function not found"


class Function(CallEngine):
    """See `Engine`; the functions called here are those that `recipes/function.lua` registers."""

    name: ClassVar[str] = "function"
    captures_plain_clients: ClassVar[bool] = False

    @cached_property
    def _config(self) -> dict[str, str | int | frozenset[str]]:
        config: dict[str, str | int | frozenset[str]] = {
            "library": self.library,
            **self._shared_config,
            "own": self.names.own,
            "start": len(self.mapping.prefix) + 2,
            "deletes": DELETE_EVENTS,
        }
        return {"version": version_of_recipe(recipe("function.lua"), _table(config))} | config

    @cached_property
    def text(self) -> str:
        return f"#!lua name={self.library}\nlocal config = {_table(self._config)}\n{recipe('function.lua')}"

    async def install(self) -> bool:
        if (await self.status()).working:
            return False
        await self.redis.execute_command("FUNCTION", "LOAD", "REPLACE", self.text)
        return True

    async def libraries(self) -> list[str]:
        found: Any = await self.redis.execute_command("FUNCTION", "LIST", "LIBRARYNAME", f"{OURS}*")
        return [_fields(library)[b"library_name"].decode() for library in found]

    async def status(self) -> CaptureStatus:
        libraries: Any = await self.redis.execute_command("FUNCTION", "LIST", "LIBRARYNAME", self.library)
        version = next((_description(library) for library in libraries), None)
        expected = str(self._config["version"])
        return CaptureStatus(self.name, installed=version is not None, version=version, expected=expected)

    async def remove(self) -> bool:
        try:
            await self.redis.execute_command("FUNCTION", "DELETE", self.library)
        except ResponseError as error:
            if "not found" in str(error).lower():
                return False
            raise
        return True

    async def observe(self, events: Sequence[tuple[bytes, str]], *, token: str, life: str) -> None:
        args = [part for event in events for part in event]
        check_mine(await self.redis.execute_command("FCALL", f"{self.library}_observe", 0, token, life, *args))

    async def _call(self, function: str, key: str | bytes | None, *args: str | bytes | int) -> Any:
        name = f"{self.library}_{function}"
        keys = () if key is None else (key,)
        try:
            return await send_once(self.redis, "FCALL", name, len(keys), *keys, *args)
        except ResponseError as error:
            if _MISSING in str(error).lower():
                raise CaptureMissing(f"the write-through library for {self.mapping.prefix!r} is not loaded") from error
            raise RedisRefused(str(error)) from error


def _table(values: Mapping[str, str | int | frozenset[str]]) -> str:
    return "{" + ", ".join(f"{name} = {_literal(value)}" for name, value in values.items()) + "}"


def _literal(value: str | int | frozenset[str]) -> str:
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return f"'{value}'"  # prefixes hold neither quotes nor backslashes
    return "{" + ", ".join(f"['{item}'] = true" for item in sorted(value)) + "}"


def _description(library: list[Any]) -> str | None:
    functions = [_fields(each) for each in _fields(library)[b"functions"]]
    description = functions[0][b"description"] if functions else None
    return description.decode() if description else None


def _fields(flat: list[Any]) -> dict[bytes, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
