"""`python -m gears access redis|mongo`: the users with least privilege, printed or set up."""

import sys
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Annotated, Any

import typer
from redis.exceptions import ResponseError

from gears.access import mongo_roles as mongo
from gears.access import redis_acl as redis
from gears.access.users import Role, passwords
from gears.cli.command_line import complain, failing_plainly, run_command, saying_whom
from gears.engines.detect import detect
from gears.in_mongo.client import addresses, close_client, open_client, ping
from gears.in_redis.client import address, connect
from gears.process.settings import Settings, read_settings

access = typer.Typer(
    no_args_is_help=True,
    help="Users who may do their work and nothing more: writethrough_service, writethrough_worker and, in Redis, "
    "writethrough_client; those whose password is in SERVICE_PASSWORD, WORKER_PASSWORD, CLIENT_PASSWORD.",
)

ApplyOption = Annotated[bool, typer.Option("--apply", help="Set them up, instead of printing them.")]
DefaultOption = Annotated[
    bool,
    typer.Option("--default-client", help="Print a line for the user default, too: a plain client without password."),
]
EngineOption = Annotated[str | None, typer.Option(help="gears1, gears2 or function; else the server is asked.")]


@access.command("redis")
def redis_command(
    apply: ApplyOption = False, engine: EngineOption = None, default_client: DefaultOption = False
) -> None:
    """Lines for Redis's ACL file; or with --apply the users, set up by the user in REDIS_URL."""
    _run(lambda settings: _redis(settings, apply=apply, engine=engine, default_client=default_client))


@access.command("mongo")
def mongo_command(apply: ApplyOption = False) -> None:
    """A script for mongosh, which holds the passwords; or with --apply the users, set up by the user in MONGO_URI."""
    _run(lambda settings: _mongo(settings, apply=apply))


def _run(work: Callable[[Settings], Coroutine[Any, Any, None]]) -> None:
    async def done() -> int:
        await work(read_settings())
        return 0

    with failing_plainly():
        run_command(done)


async def _redis(settings: Settings, *, apply: bool, engine: str | None, default_client: bool) -> None:
    async with (
        connect(settings.redis_url, timeout=settings.redis_timeout) as server,
        saying_whom({f"Redis at {address(server)}": server.ping}),
    ):
        if engine is None:
            engine = settings.engine if settings.engine != "auto" else await detect(server)
        database = server.connection_pool.connection_kwargs.get("db") or 0
        for role, password in passwords().items():
            rules = redis.rules(role, settings.mappings, engine=engine, database=database)
            user = (role.user, "reset", "on", redis.hashed(password), *rules)
            if apply:
                await server.execute_command("ACL", "SETUSER", *user)
            else:
                sys.stdout.write(f"user {' '.join(user)}\n")
        if apply:
            await _save(server)
        elif default_client:
            rules = redis.rules(Role.CLIENT, settings.mappings, engine=engine, database=database)
            sys.stdout.write(f"user default reset on nopass {' '.join(rules)}\n")


async def _save(server: Any) -> None:
    try:
        await server.execute_command("ACL", "SAVE")
    except ResponseError as error:
        complain(f"the users are gone when Redis restarts, since they could not be saved: {error}")


async def _mongo(settings: Settings, *, apply: bool) -> None:
    found = {role: password for role, password in passwords().items() if role is not Role.CLIENT}
    if not apply:
        for role, password in found.items():
            sys.stdout.write(mongo.script(role, settings.mappings, password))
        return
    client = open_client(settings.mongo_uri, timeout=settings.mongo_timeout)
    try:
        async with saying_whom(
            {f"MongoDB at {addresses(client)}": partial(ping, client, timeout=settings.mongo_timeout)}
        ):
            for role, password in found.items():
                await mongo.set_up(client, role, settings.mappings, password)
    finally:
        close_client(client)
