"""`python -m service.embedded`: the embedded setup by itself."""

from pathlib import Path
from typing import Annotated

import anyio
import typer

from service.embedded.launcher import run_embedded


def main(
    host: Annotated[str, typer.Option(help="IPv4 address the API listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="PORT", help="Port of the API.")] = 8000,
    redis_port: Annotated[int, typer.Option(envvar="REDIS_PORT", help="Port of Redis.")] = 6379,
    mongo_port: Annotated[int, typer.Option(envvar="MONGO_PORT", help="Port of MongoDB.")] = 27017,
    data: Annotated[Path, typer.Option(envvar="DATA", help="Folder for data and logs.")] = Path(".data"),
) -> None:
    """Start Redis, MongoDB, the worker and the API; Ctrl-C stops all of them."""

    async def run() -> int:
        return await run_embedded(host=host, port=port, redis_port=redis_port, mongo_port=mongo_port, data=data)

    raise typer.Exit(anyio.run(run))


if __name__ == "__main__":
    typer.run(main)
