"""The command."""

import json
import sys
from contextlib import aclosing
from dataclasses import asdict

import typer

from gears.cli.command_line import failing_plainly, printable, run_command
from gears.cli.recipe_command import JsonOption
from gears.process.settings import read_settings
from writethrough.check.finding import Finding
from writethrough.check.mongo_findings import look_at_mongo
from writethrough.check.redis_findings import look_at_redis


def check(as_json: JsonOption = False) -> None:
    """Try out what Redis and MongoDB can do. Exits with 1 when something is missing without which nothing works."""
    lacking = 0

    async def run() -> int:
        nonlocal lacking
        settings = read_settings()
        for look in (look_at_redis, look_at_mongo):
            async with aclosing(look(settings)) as findings:
                async for finding in findings:
                    lacking += finding.needed and not finding.has
                    _say(finding, as_json=as_json)
        return 1 if lacking else 0

    with failing_plainly():
        code = run_command(run)
    raise typer.Exit(code)


def _say(finding: Finding, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(asdict(finding)) + "\n")
    else:
        outcome = "has" if finding.has else "lacks" if finding.needed else "has not"
        follows = f": {finding.follows}" if finding.follows and not finding.has else ""
        sys.stdout.write(printable(f"{finding.server} {outcome} {finding.what}{follows}") + "\n")
    sys.stdout.flush()
