"""`python -m worker`: the write-through worker."""

import signal
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Annotated

import anyio
import typer
from anyio import CancelScope

from gears.cli.command_line import exit_at_once, failing_plainly, run_command
from gears.in_mongo.client import close_client, open_client
from gears.in_redis.client import connect
from gears.process import log_lines as logging
from gears.process.memory import give_back_large_blocks
from gears.process.settings import Settings, read_settings
from worker.audit.reconciler import Reconciler
from worker.cli import audit_and_restore as commands
from worker.lead.leader import Leader
from worker.lead.say_left_behind import tell_left_behind

app = typer.Typer(add_completion=False, help="Brings what the recipe captured to MongoDB.")

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a mapping on stdout.")]
MappingOption = Annotated[str | None, typer.Option(help="Only the mapping with this prefix.")]


@app.callback(invoke_without_command=True)
def main(context: typer.Context) -> None:
    """Without a verb: commit and reconcile, which is all that a sidecar does."""
    if context.invoked_subcommand is None:
        _work(Leader, Reconciler)


@app.command()
def commit() -> None:
    """Commit the sync streams of all mappings to MongoDB, until SIGTERM or Ctrl-C."""
    _work(Leader)


@app.command()
def reconcile() -> None:
    """Audit and repair all mappings whenever something may have been missed, until SIGTERM or Ctrl-C."""
    _work(Reconciler)


def _work(*roles: type[Leader] | type[Reconciler]) -> None:
    with failing_plainly():
        anyio.run(partial(_run, read_settings(), roles), backend_options={"use_uvloop": True})
    exit_at_once(0)


@app.command()
def audit(
    repair: Annotated[bool, typer.Option("--repair", help="Repair missing, stale and ahead keys.")] = False,
    as_json: JsonOption = False,
    listing: Annotated[bool, typer.Option("--list", help="Compare nothing, list the reports that are kept.")] = False,
    mapping: MappingOption = None,
) -> None:
    """Compare Redis and MongoDB; exits with 0 when equal, 1 when drift is left, 2 when they could not be compared."""
    if listing:
        _finish(lambda settings: commands.list_audits(settings, mapping, as_json=as_json))
    _finish(lambda settings: commands.audit(settings, mapping, repairing=repair, as_json=as_json))


@app.command()
def restore(as_json: JsonOption = False, mapping: MappingOption = None) -> None:
    """Give Redis all documents that only MongoDB holds; doing it again goes on where it was interrupted."""
    _finish(lambda settings: commands.restore(settings, mapping, as_json=as_json))


def _finish(work: Callable[[Settings], Awaitable[int]]) -> None:
    with failing_plainly():
        code = run_command(partial(work, read_settings()))
    raise typer.Exit(code)


async def _run(settings: Settings, roles: Sequence[type[Leader] | type[Reconciler]]) -> None:
    logging.configure(settings.log_level)
    give_back_large_blocks()
    redis = connect(settings.redis_url, timeout=settings.redis_timeout, touching=False)
    mongo = open_client(settings.mongo_uri, timeout=settings.mongo_timeout)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_stop_on_signal, tasks.cancel_scope)
            tasks.start_soon(tell_left_behind, redis, settings)
            for mapping in settings.mappings:
                for role in roles:
                    tasks.start_soon(role(redis, mongo, mapping, settings).run)
    finally:
        close_client(mongo)
        with anyio.move_on_after(1, shield=True):
            await redis.aclose()


async def _stop_on_signal(scope: CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            scope.cancel()
            return


if __name__ == "__main__":
    app(prog_name="python -m worker")
