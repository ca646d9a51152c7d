"""`python -m gears`: install, inspect and remove the recipe."""

import json
import sys
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from gears.access.command import access
from gears.command import run_command, saying_whom
from gears.engines import Engine, open_engine
from gears.errors import ConfigError
from gears.redis import AWAY, RedisError, address, connect
from gears.settings import Settings

app = typer.Typer(add_completion=False, no_args_is_help=True, help="The recipe that makes Redis write through.")

app.add_typer(access, name="access")


class EngineName(StrEnum):
    """Names of the engines; auto asks the server."""

    auto = "auto"
    gears1 = "gears1"
    gears2 = "gears2"
    function = "function"


EngineOption = Annotated[EngineName | None, typer.Option(help="Which engine; auto asks the server. [env: WT_ENGINE]")]


@app.command()
def install(engine: EngineOption = None) -> None:
    """Install the recipe for every mapping; doing it again changes nothing."""

    async def run(each: Engine) -> dict[str, Any]:
        return {"changed": await each.install(), **(await each.status()).as_dict()}

    _report(engine, run)


@app.command()
def status(engine: EngineOption = None) -> None:
    """Show how capture is doing; exits with 1 when it isn't working for every mapping, with 2 when nobody can tell."""

    async def run(each: Engine) -> dict[str, Any]:
        return (await each.status()).as_dict()

    _report(engine, run)


@app.command()
def remove(engine: EngineOption = None) -> None:
    """Remove the recipe; documents and sync streams stay."""

    async def run(each: Engine) -> dict[str, Any]:
        return {"removed": await each.remove(), "working": True}

    _report(engine, run)


def _report(engine: EngineName | None, run: Callable[[Engine], Awaitable[dict[str, Any]]]) -> None:
    """Run it for each mapping, print one JSON object a mapping, exit by what they say."""
    reports: list[dict[str, Any]] = []

    async def collect() -> int:
        reports.extend(await _for_each_mapping(engine, run))
        return 0 if all(each["working"] for each in reports) else 1

    try:
        code = run_command(collect)
    except (ConfigError, ValidationError, RedisError, *AWAY) as error:
        sys.stderr.write(f"gears: {error}\n")
        raise typer.Exit(2) from None
    for report in reports:
        sys.stdout.write(json.dumps(report) + "\n")
    raise typer.Exit(code)


async def _for_each_mapping(
    engine: EngineName | None, run: Callable[[Engine], Awaitable[dict[str, Any]]]
) -> list[dict[str, Any]]:
    settings = Settings()
    async with (
        connect(settings.redis_url, timeout=settings.redis_timeout) as redis,
        saying_whom({f"Redis at {address(redis)}": redis.ping}),
    ):
        return [
            {"mapping": mapping.prefix, "engine": opened.name} | await run(opened)
            for mapping in settings.mappings
            for opened in [await open_engine(redis, mapping, engine or settings.engine)]
        ]


if __name__ == "__main__":
    app(prog_name="python -m gears")
