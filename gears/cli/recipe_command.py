"""What the commands on the recipe do: `writethrough recipe ...` and `python -m gears ...`."""

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Annotated, Any

import typer
from redis.asyncio import Redis

from gears.cli.command_line import failing_plainly, run_command, saying_whom, while_read
from gears.contract.mapping import Mapping
from gears.engines import Engine, open_engine
from gears.engines.detect import ENGINES, detect
from gears.engines.left_behind_recipes import find_left_behind, remove_left_behind
from gears.errors import ConfigError
from gears.in_redis.client import address, connect
from gears.process.settings import Settings, read_settings

Report = dict[str, Any]


class EngineName(StrEnum):
    """Names of the engines; auto asks the server."""

    auto = "auto"
    gears1 = "gears1"
    gears2 = "gears2"
    function = "function"


EngineOption = Annotated[EngineName | None, typer.Option(help="Which engine; auto asks the server. [env: WT_ENGINE]")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a mapping on stdout.")]
LeftOption = Annotated[
    str | None,
    typer.Option("--mapping", help="Of a mapping that MAPPINGS has no more: the recipe, and all keys kept for it."),
]
OneOption = Annotated[str | None, typer.Option("--mapping", help="Of the mapping with this prefix.")]


def install(engine: EngineName | None, *, as_json: bool) -> None:
    """Install the recipe for every mapping."""

    async def run(each: Engine) -> Report:
        return {"changed": await each.install(), **(await each.status()).as_dict()}

    def tell(report: Report) -> str:
        return f"{'installed' if report['changed'] else 'was installed'}; {_state(report)}"

    _report(engine, run, tell, as_json=as_json)


def status(engine: EngineName | None, *, as_json: bool) -> None:
    """Show how capture is doing for every mapping, and which recipes were left behind."""

    async def run(each: Engine) -> Report:
        return (await each.status()).as_dict()

    async def more(server: Redis, settings: Settings) -> list[Report]:
        opened = await open_engine(server, settings.mappings[0], engine or settings.engine)
        left = await find_left_behind(opened, settings.mappings)
        return [
            {"mapping": each.prefix, "engine": opened.name, "left_behind": True, "problem": each.problem}
            for each in left
        ]

    _report(engine, run, _state, more, as_json=as_json)


def remove(engine: EngineName | None, *, as_json: bool) -> None:
    """Remove the recipe of every mapping; documents and sync streams stay."""

    async def run(each: Engine) -> Report:
        return {"removed": await each.remove(), "working": True}

    _report(engine, run, lambda report: "removed" if report["removed"] else "there was none", as_json=as_json)


def remove_one(engine: EngineName | None, prefix: str, *, as_json: bool) -> None:
    """Remove the recipe and the keys of a mapping that MAPPINGS has no more."""
    reports: list[Report] = []

    async def run() -> int:
        settings = read_settings()
        async with _server(settings) as server:
            name = await _name(server, engine or settings.engine)
            removed, keys = await remove_left_behind(server, name, prefix, settings.mappings)
            reports.append({"mapping": prefix, "engine": name, "removed": removed, "keys": keys})
        return 0

    def tell(report: Report) -> str:
        return f"{'removed' if report['removed'] else 'there was no recipe'}; {report['keys']:,} keys deleted"

    with failing_plainly():
        run_command(run)
    _write(reports, tell, as_json=as_json)


def print_text(engine: EngineName | None, prefix: str | None) -> None:
    """Print the recipe of one mapping, for other tools to send."""
    texts: list[str] = []

    async def run() -> int:
        settings = read_settings()
        mapping = _only(settings.mappings, prefix)
        server = connect(settings.redis_url, timeout=settings.redis_timeout)
        named: str = engine or settings.engine
        if named == EngineName.auto:
            async with _server(settings) as asked:
                named = await _name(asked, named)
        texts.append(ENGINES[named](server, mapping).text)
        return 0

    with failing_plainly():
        run_command(run)
    with while_read():
        sys.stdout.write("".join(texts))


async def _name(server: Redis, engine: str) -> str:
    return await detect(server) if engine == EngineName.auto else engine


def _only(mappings: Sequence[Mapping], prefix: str | None) -> Mapping:
    chosen = [mapping for mapping in mappings if prefix in (None, mapping.prefix)]
    if len(chosen) == 1:
        return chosen[0]
    have = ", ".join(mapping.prefix for mapping in mappings)
    if chosen:
        raise ConfigError(f"each mapping has a recipe of its own; choose one with --mapping: {have}")
    raise ConfigError(f"there is no mapping {prefix!r}; MAPPINGS has {have}")


def _state(report: Report) -> str:
    if report.get("problem"):
        return str(report["problem"])
    return f"working; {report['engine']}, version {report['version']}, {report['captured']:,} events captured"


def _report(
    engine: EngineName | None,
    run: Callable[[Engine], Awaitable[Report]],
    tell: Callable[[Report], str],
    more: Callable[[Redis, Settings], Awaitable[list[Report]]] | None = None,
    *,
    as_json: bool,
) -> None:
    """Run it for each mapping, print what came of each, exit by what they say."""
    reports: list[Report] = []

    async def collect() -> int:
        settings = read_settings()
        async with _server(settings) as server:
            for mapping in settings.mappings:
                opened = await open_engine(server, mapping, engine or settings.engine)
                reports.append({"mapping": mapping.prefix, "engine": opened.name} | await run(opened))
            code = 0 if all(each["working"] for each in reports) else 1
            reports.extend(await more(server, settings) if more is not None else ())
        return code

    with failing_plainly():
        code = run_command(collect)
    _write(reports, tell, as_json=as_json)
    raise typer.Exit(code)


def _write(reports: Sequence[Report], tell: Callable[[Report], str], *, as_json: bool) -> None:
    with while_read():
        for report in reports:
            sys.stdout.write(json.dumps(report) if as_json else f"{report['mapping']}: {tell(report)}")
            sys.stdout.write("\n")


@asynccontextmanager
async def _server(settings: Settings) -> AsyncIterator[Redis]:
    async with (
        connect(settings.redis_url, timeout=settings.redis_timeout) as redis,
        saying_whom({f"Redis at {address(redis)}": redis.ping}),
    ):
        yield redis
