"""The commands `serve` and `run`: the API alone, and everything embedded."""

from pathlib import Path
from typing import Annotated

import anyio
import typer

from gears.cli.command_line import failing_plainly
from gears.process.settings import read_settings
from service.embedded.licences import LICENCES

HostOption = Annotated[str, typer.Option(envvar="HOST", help="Address to listen on.")]
PortOption = Annotated[int, typer.Option(envvar="PORT", min=1, max=65535, help="Port of the API.")]
RedisPortOption = Annotated[
    int, typer.Option(envvar="REDIS_PORT", min=1, max=65535, help="Port of the embedded Redis.")
]
MongoPortOption = Annotated[
    int, typer.Option(envvar="MONGO_PORT", min=1, max=65535, help="Port of the embedded MongoDB.")
]
DataOption = Annotated[Path, typer.Option(envvar="DATA", help="Folder for the embedded servers' data.")]


def _show_licences(asked: bool) -> None:
    if asked:
        typer.echo(LICENCES)
        raise typer.Exit


LicencesOption = Annotated[
    bool,
    typer.Option("--licences", callback=_show_licences, is_eager=True, help="Show the embedded servers' licences."),
]

HOST, PORT, REDIS_PORT, MONGO_PORT, DATA = "127.0.0.1", 8000, 6379, 27017, Path(".data")


def serve(host: HostOption = HOST, port: PortOption = PORT) -> None:
    """Serve the API until SIGTERM or Ctrl-C."""
    from service.server import serve as serve_api  # what only the API needs takes a while to load

    with failing_plainly():
        serve_api(read_settings(), host=host, port=port)


def run(
    host: HostOption = HOST,
    port: PortOption = PORT,
    redis_port: RedisPortOption = REDIS_PORT,
    mongo_port: MongoPortOption = MONGO_PORT,
    data: DataOption = DATA,
    licences: LicencesOption = False,
) -> None:
    """Start Redis, MongoDB, the worker and the API on this machine, for trying out; Ctrl-C stops all of it."""
    from service.embedded.launcher import run_embedded  # needs an extra that others don't install

    async def start() -> int:
        return await run_embedded(host=host, port=port, redis_port=redis_port, mongo_port=mongo_port, data=data)

    raise typer.Exit(anyio.run(start))
