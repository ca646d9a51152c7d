"""`python -m service`: the API, or with `--embedded` everything that it needs as well."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import anyio
import typer
from pydantic import ValidationError

from gears.errors import ConfigError
from gears.settings import Settings
from service.server import serve

app = typer.Typer(add_completion=False)


@app.command(help=__doc__)
def main(
    *,
    embedded: Annotated[bool, typer.Option("--embedded", help="Start Redis, MongoDB and the worker, too.")] = False,
    host: Annotated[str, typer.Option(envvar="HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="PORT", min=1, max=65535, help="Port of the API.")] = 8000,
    redis_port: Annotated[
        int, typer.Option(envvar="REDIS_PORT", min=1, max=65535, help="Of the embedded Redis.")
    ] = 6379,
    mongo_port: Annotated[
        int, typer.Option(envvar="MONGO_PORT", min=1, max=65535, help="Of the embedded MongoDB.")
    ] = 27017,
    data: Annotated[Path, typer.Option(envvar="DATA", help="Folder for the embedded servers' data.")] = Path(".data"),
) -> None:
    try:
        if embedded:
            from service.embedded.launcher import run_embedded  # needs an extra that others don't install

            run = partial(run_embedded, host=host, port=port, redis_port=redis_port, mongo_port=mongo_port, data=data)
            raise typer.Exit(anyio.run(run))
        serve(Settings(), host=host, port=port)
    except ValidationError as error:
        _fail("; ".join(f"{each['loc'][0]}: {each['msg'].removeprefix('Value error, ')}" for each in error.errors()))
    except ConfigError as error:
        _fail(str(error))


def _fail(message: str) -> None:
    sys.stderr.write(f"service: {message}\n")
    raise typer.Exit(2)


if __name__ == "__main__":
    app(prog_name="python -m service")
