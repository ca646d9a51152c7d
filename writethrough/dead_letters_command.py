"""`writethrough dead-letters`: what MongoDB refused, looked at, written again or given up."""

import json
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer

from gears.cli.command_line import failing_plainly, printable, run_command
from gears.cli.recipe_command import JsonOption
from gears.engines import open_engine
from gears.errors import ConfigError
from gears.in_mongo.dead_letters import KeptLetter
from gears.in_mongo.store import Store
from gears.process.settings import Settings, read_settings
from writethrough.reach_servers import open_both, open_mongo
from writethrough.retry_dead_letter import Outcome, retry_letter

dead_letters = typer.Typer(
    no_args_is_help=True, help="Documents that MongoDB refused: they are kept, and Redis was rolled back."
)

Ids = Annotated[list[str], typer.Argument(help="As `list` shows them.")]
MappingOption = Annotated[str | None, typer.Option("--mapping", help="Only of the mapping with this prefix.")]


@dead_letters.command("list")
def list_letters(mapping: MappingOption = None, as_json: JsonOption = False) -> None:
    """List them, the oldest first."""

    async def work(settings: Settings) -> int:
        async with open_mongo(settings) as mongo:
            for each in settings.mappings:
                if mapping in (None, each.prefix):
                    async for letter in Store(mongo, each).dead_letters.oldest_first():
                        _say(_summary(each.prefix, letter), as_json=as_json)
        return 0

    _run(work)


@dead_letters.command()
def show(ids: Ids, as_json: JsonOption = False) -> None:
    """Show them with their documents."""

    async def work(settings: Settings) -> int:
        async with open_mongo(settings) as mongo:
            stores = [Store(mongo, each) for each in settings.mappings]
            for name in ids:
                store, letter = await _find(stores, name)
                document = letter.document.decode(errors="replace")
                _say(_summary(store.mapping.prefix, letter) | {"document": document}, as_json=as_json)
        return 0

    _run(work)


@dead_letters.command()
def retry(ids: Ids, as_json: JsonOption = False) -> None:
    """Write them again, as they were; those that are committed are dropped. Exits with 1 when any isn't."""

    async def work(settings: Settings) -> int:
        code = 0
        async with open_both(settings) as (redis, mongo):
            stores = [Store(mongo, each) for each in settings.mappings]
            for name in ids:
                store, letter = await _find(stores, name)
                engine = await open_engine(redis, store.mapping, settings.engine)
                outcome, reason = await retry_letter(engine, store, letter, settings)
                report = {"mapping": store.mapping.prefix, "id": name, "key": letter.key, "outcome": outcome}
                _say(report | ({"reason": reason} if reason else {}), as_json=as_json)
                code |= outcome is not Outcome.COMMITTED
        return code

    _run(work)


@dead_letters.command()
def drop(ids: Ids, as_json: JsonOption = False) -> None:
    """Delete them; the refused documents are gone then."""

    async def work(settings: Settings) -> int:
        async with open_mongo(settings) as mongo:
            stores = [Store(mongo, each) for each in settings.mappings]
            for name in ids:
                store, letter = await _find(stores, name)
                await store.dead_letters.drop(name)
                report = {"mapping": store.mapping.prefix, "id": name, "key": letter.key, "outcome": "dropped"}
                _say(report, as_json=as_json)
        return 0

    _run(work)


def _run(work: Callable[[Settings], Awaitable[int]]) -> None:
    async def run() -> int:
        return await work(read_settings())

    with failing_plainly():
        code = run_command(run)
    raise typer.Exit(code)


async def _find(stores: list[Store], name: str) -> tuple[Store, KeptLetter]:
    try:
        for store in stores:
            letter = await store.dead_letters.named(name)
            if letter is not None:
                return store, letter
    except ValueError:
        pass
    raise ConfigError(f"there is no dead letter {name!r}; writethrough dead-letters list shows those that are there")


def _summary(prefix: str, letter: KeptLetter) -> dict[str, Any]:
    return {
        "mapping": prefix,
        "id": letter.id,
        "key": letter.key,
        "at": letter.at.isoformat(),
        "bytes": letter.size,
        "reason": letter.reason,
    }


def _say(report: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(report) + "\n")
        return
    said = [str(report[name]) for name in ("id", "at", "key", "outcome", "reason", "document") if name in report]
    sys.stdout.write(printable("  ".join(said)) + "\n")
