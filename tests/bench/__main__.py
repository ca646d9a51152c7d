"""`python -m tests.bench`: ours beside what people do instead, in interleaved rounds on the same servers."""

import json
import os
import platform
import shutil
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import anyio
import typer

from tests.bench import frozen, scale
from tests.bench.cells import DELAYED, DIRECT, KEYS, Cell
from tests.bench.load import Job, Result
from tests.bench.report import Line, as_dicts, bars, line, plot, table
from tests.bench.stage import Cpu, Stage, peak_memory, stage

DELAY = 0.005


def main(
    mongo: Annotated[
        str | None,
        typer.Option(
            help="URL of a MongoDB on this machine; its database "
            "writethrough_bench is dropped. The embedded one by default."
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="One short round: to see whether it works.")] = False,
    entries: Annotated[int, typer.Option(help="How large the backlogs are.")] = 1_000_000,
    out: Annotated[Path, typer.Option(help="Folder for results.json, results.md and results.svg.")] = Path(".bench"),
) -> None:
    """Measure everything, print tables, write files."""
    out.mkdir(parents=True, exist_ok=True)
    rounds, seconds = (1, 0.5) if quick else (3, 1.5)
    run = partial(_run, mongo, out, rounds, seconds, min(entries, 20_000) if quick else entries)
    anyio.run(run, backend_options={"use_uvloop": True})


async def _run(mongo: str | None, out: Path, rounds: int, seconds: float, entries: int) -> None:
    found: dict[str, Any] = {"machine": _machine(), "mongo": "given" if mongo else "embedded", "rounds": rounds}
    lines: list[Line] = []
    with TemporaryDirectory() as folder:
        async with stage(Path(folder) / "direct", mongo) as direct:
            lines += await _rounds(direct, DIRECT, rounds, seconds)
            found["memory"] = {each.name: peak_memory(each) for each in (direct.stack.api, direct.stack.worker)}
            found["scale"] = await scale.measure(direct, entries)
        shutil.rmtree(Path(folder) / "direct")
        async with stage(Path(folder) / "delayed", mongo, delay=DELAY) as delayed:
            lines += await _rounds(delayed, DELAYED, rounds, seconds)
            found["frozen"] = {}
            for name in ("dual write", "writethrough"):
                writes, pings = await frozen.measure(delayed, name, seconds=min(5.0, 4 * seconds))
                found["frozen"][name] = {"writes": writes.model_dump(), "pings": pings.model_dump()}
    found |= {"lines": as_dicts(lines), "bars": bars(lines)}
    text = f"{table(lines)}\n\n" + "\n".join(
        f"- {name}: {json.dumps(found[name])}" for name in ("memory", "scale", "frozen")
    )
    text += "\n\n" + "\n".join(f"- {bar['bar']}: {bar['is']}, aimed at {bar['aim']}" for bar in found["bars"]) + "\n"
    print(text)
    (out / "results.json").write_text(json.dumps(found, indent=1))
    (out / "results.md").write_text(text)
    (out / "results.svg").write_text(plot(lines))


async def _rounds(on: Stage, cells: Sequence[Cell], rounds: int, seconds: float) -> list[Line]:
    """Every contestant takes its turn under every load, in every round."""
    for contestant in on.contestants.values():
        if contestant.protocol == "http":
            await contestant.under(Job(protocol="", port=0, prefix="", clients=16, keys=KEYS, fill=True))
    results: dict[tuple[str, str], list[tuple[Result, Cpu]]] = defaultdict(list)
    for _ in range(rounds):
        for cell in cells:
            for who in cell.who:
                results[cell.name, who].append(await on.contestants[who].under(cell.job(seconds)))
                await on.stack.drained(within=60)
    return [line(cell, who, each) for (cell, who), each in results.items()]


def _machine() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


if __name__ == "__main__":
    typer.run(main)
