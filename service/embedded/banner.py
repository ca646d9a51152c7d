"""What the terminal shows once everything is ready: where it is, and what to try."""

import json
import os
import shlex
import sys

from gears.contract.mapping import Mapping
from service.embedded.ports_and_folder import Setup

AUTHORIZATION = ' -H "Authorization: Bearer $TOKEN"'
"""What a curl command needs where the API takes tokens: a variable, so that no token is shown."""


def banner(setup: Setup, mapping: Mapping, *, tokens: bool) -> str:
    """The URLs, and commands that can be pasted into another terminal.

    Args:
        setup: where everything is.
        mapping: the mapping that the commands use.
        tokens: whether the API asks for a token.
    """
    return "\n".join(
        (
            "",
            "Writethrough is ready. Ctrl-C stops everything.",
            "",
            f"  Page     {setup.api_url}/",
            f"  API      {setup.api_url}/docs",
            f"  Redis    {setup.redis_url}",
            f"  MongoDB  {setup.mongo_uri}",
            f"  Data     {_short(str(setup.data))} (redis.log and mongo.log too)",
            "",
            "Try in another terminal: write over HTTP, write straight into Redis, and find both in MongoDB.",
            *(["(TOKEN must hold a token with the scope write.)"] if tokens else []),
            "",
            *(f"  {command}" for command in commands(setup, mapping, tokens=tokens)),
            "",
        )
    )


def commands(setup: Setup, mapping: Mapping, *, tokens: bool) -> tuple[str, str, str]:
    """Shell commands: a PUT over HTTP, a JSON.SET by a Redis client, a look into MongoDB."""
    body = json.dumps({"name": "some todo", "description": "some description"})
    url = f"{setup.api_url}/{mapping.prefix}/1"
    put = shlex.join(("curl", "-X", "PUT", url, "-H", "Content-Type: application/json", "-d", body))
    if tokens:
        put += AUTHORIZATION
    document = json.dumps({mapping.id_field: "test_id", "name": "some todo", "description": "some description"})
    key = json.dumps(mapping.key("test_id"))
    write = f'import redis; print(redis.Redis(port={setup.redis_port}).json().set({key}, "$", {document}))'
    where = f"[{json.dumps(mapping.database)}][{json.dumps(mapping.collection)}]"
    look = f'import pymongo; print(*pymongo.MongoClient(port={setup.mongo_port}){where}.find(), sep="\\n")'
    return put, _python(write), _python(look)


def _python(code: str) -> str:
    return f"{shlex.quote(_short(sys.executable))} -c {shlex.quote(code)}"


def _short(path: str) -> str:
    """Relative to the working directory, for what lies below it."""
    relative = os.path.relpath(path)
    return path if relative.startswith(os.pardir) else relative
