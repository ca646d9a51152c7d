"""`python -m service`: the API, or with `--embedded` everything that it needs as well."""

from typing import Annotated

import typer

from service.commands import (
    DATA,
    HOST,
    MONGO_PORT,
    PORT,
    REDIS_PORT,
    DataOption,
    HostOption,
    MongoPortOption,
    PortOption,
    RedisPortOption,
    run,
    serve,
)

app = typer.Typer(add_completion=False)


@app.command(help=__doc__)
def main(
    *,
    embedded: Annotated[bool, typer.Option("--embedded", help="Start Redis, MongoDB and the worker, too.")] = False,
    host: HostOption = HOST,
    port: PortOption = PORT,
    redis_port: RedisPortOption = REDIS_PORT,
    mongo_port: MongoPortOption = MONGO_PORT,
    data: DataOption = DATA,
) -> None:
    if embedded:
        run(host, port, redis_port, mongo_port, data)
    serve(host, port)


if __name__ == "__main__":
    app(prog_name="python -m service")
