"""`python -m tests.torture`: torture a system of one's own."""

import signal
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from time import strftime
from typing import Annotated

import anyio
import typer

from service.embedded.children.child import CannotStart
from tests.torture.report import text, write_report
from tests.torture.run import Run, torture

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    minutes: Annotated[float, typer.Option(help="How long to torture.")] = 2.0,
    seed: Annotated[int, typer.Option(help="The same seed draws the same schedule.")] = 1,
    engine: Annotated[str, typer.Option(help="gears2, function, or gears1 (see GEARS1_SERVER).")] = "gears2",
    rate: Annotated[float, typer.Option(help="Most operations per second.")] = 300.0,
    folder: Annotated[Path | None, typer.Option(help="For data, logs, report and history; a new one.")] = None,
) -> None:
    """Torture Redis, MongoDB, two workers and two APIs; exits with 1 when a promise was broken."""
    place = folder or Path(mkdtemp(prefix=f"torture-{engine}-{strftime('%H%M%S')}-"))
    place.mkdir(parents=True, exist_ok=True)
    sys.stdout.write(f"{place}\n")
    sys.stdout.flush()
    try:
        run = anyio.run(
            partial(_until_done, place, engine, seed=seed, seconds=minutes * 60, rate=rate),
            backend_options={"use_uvloop": True},
        )
    except CannotStart as error:
        sys.stderr.write(f"torture: {error}\n")
        raise typer.Exit(2) from None
    if run is None:
        sys.stderr.write("torture: interrupted\n")
        raise typer.Exit(130)
    write_report(run, place)
    sys.stdout.write(text(run) + "\n")
    raise typer.Exit(1 if run.violations else 0)


async def _until_done(folder: Path, engine: str, *, seed: int, seconds: float, rate: float) -> Run | None:
    """The run; None when it was told to end."""
    run = None
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_stop_on, signals, tasks.cancel_scope)
            run = await torture(folder, engine, seed=seed, seconds=seconds, rate=rate)
            tasks.cancel_scope.cancel()
    return run


async def _stop_on(signals: AsyncIterator[signal.Signals], scope: anyio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()
        return


if __name__ == "__main__":
    app(prog_name="python -m tests.torture")
