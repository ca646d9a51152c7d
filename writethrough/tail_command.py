"""`writethrough tail`: what is committed, printed as it happens."""

import json
import os
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Annotated, Any

import anyio
import typer
from anyio import to_thread
from pymongo.errors import PyMongoError

from gears.cli.command_line import NOBODY_READS, failing_plainly, printable, run_command
from gears.cli.recipe_command import JsonOption
from gears.contract.mapping import Mapping
from gears.contract.version import shown
from gears.errors import ConfigError, OutcomeUnknown, RedisAway
from gears.in_mongo.errors.what_errors_mean import Cause, Meaning, judge
from gears.in_mongo.store import Store
from gears.in_redis.client import AWAY
from gears.process.settings import read_settings
from gears.progress.tail import Committed, News, Skipped, Tail
from writethrough.reach_servers import open_both

MappingArgument = Annotated[str | None, typer.Argument(help="Only the mapping with this prefix.")]

_PAUSE = 0.5
"""Seconds until a server that went away is asked again."""


def tail(mapping: MappingArgument = None, as_json: JsonOption = False) -> None:
    """Print what is committed from now on, a line a document, until SIGTERM or Ctrl-C."""

    async def run() -> int:
        settings = read_settings()
        mappings = [each for each in settings.mappings if mapping in (None, each.prefix)]
        if not mappings:
            raise ConfigError(f"there is no mapping {mapping!r} in MAPPINGS")
        async with open_both(settings) as (redis, mongo):
            news = _follow(Tail(redis, [Store(mongo, each) for each in mappings]))
            async with aclosing(news):
                async for some in news:
                    if not some:
                        _say_following(mappings)
                        continue
                    try:
                        await to_thread.run_sync(_print, _text(some, as_json=as_json), abandon_on_cancel=True)
                    except BrokenPipeError:
                        return NOBODY_READS
        return 0

    with failing_plainly():
        code = run_command(run)
    raise typer.Exit(code)


async def _follow(tail: Tail) -> AsyncGenerator[News, None]:
    """What is committed, also after a server was away."""
    while True:
        try:
            async with aclosing(tail.follow()) as following:
                async for news in following:
                    yield news
        except (*AWAY, RedisAway, OutcomeUnknown):
            pass
        except PyMongoError as error:
            verdict = judge(error)
            if verdict.meaning is not Meaning.AWAY and verdict.cause is not Cause.SLOW:
                raise
        await anyio.sleep(_PAUSE)


def _say_following(mappings: Sequence[Mapping]) -> None:
    sys.stderr.write(
        f"following what is committed of {', '.join(each.prefix for each in mappings)}; Ctrl-C ends this\n"
    )
    sys.stderr.flush()


def _text(news: News, *, as_json: bool) -> bytes:
    lines = (json.dumps(_report(one)) if as_json else printable(_line(one)) for one in news)
    return "".join(f"{line}\n" for line in lines).encode()


def _report(one: Committed | Skipped) -> dict[str, Any]:
    if isinstance(one, Skipped):
        versions = {"above": shown(one.above), "upto": shown(one.upto)}
        return {"mapping": one.mapping, "outcome": "skipped"} | versions | {"reason": one.reason}
    report = {
        "mapping": one.mapping,
        "id": one.id,
        "outcome": one.outcome,
        "version": shown(one.version),
        "at": one.at.isoformat(timespec="milliseconds"),
        "seconds": None if one.seconds is None else round(one.seconds, 3),
    }
    return report | ({"reason": one.reason} if one.reason else {})


def _line(one: Committed | Skipped) -> str:
    if isinstance(one, Skipped):
        return f"{one.mapping}: skipped what is above {shown(one.above)}, up to {shown(one.upto)}: {one.reason}"
    took = "" if one.seconds is None else f"{one.seconds * 1000:.0f} ms"
    key, at = f"{one.mapping}:{one.id}", one.at.isoformat(timespec="milliseconds")
    return "  ".join(part for part in (at, key, one.outcome, shown(one.version), took, one.reason) if part)


def _print(text: bytes) -> None:
    """Write on stdout, in a thread: should nobody read there, this waits, and a signal ends the command nonetheless."""
    while text:
        text = text[os.write(sys.stdout.fileno(), text) :]
