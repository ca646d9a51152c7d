"""Passwords reach the servers, over TLS too, and come out nowhere."""

import os
import ssl
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from time import monotonic
from urllib.parse import quote

import anyio
import pymongo
import pytest
import trustme
from redis.asyncio import Redis

from gears.errors import ConfigError
from gears.in_mongo.client import open_client
from gears.in_redis.client import connect
from gears.process.settings import Settings
from service.embedded import server_commands as servers
from tests.support.mongo import needs_embedded
from tests.support.stack import Process, Stack, eventually, free_port

SECRET = "s3cr/et@%:?#"
"""Awkward in a URL."""

TOKEN = "write+admin:t0ken-0123456789abcdef"


def traces(text: str) -> list[str]:
    """What of the secrets can be found in a text."""
    return [secret for secret in (SECRET, quote(SECRET, safe=""), "s3cr", TOKEN.split(":")[1]) if secret in text]


async def test_everything_works_with_passwords_over_tls(own_stack: Stack, new_id: str) -> None:
    needs_embedded()
    stack = own_stack
    certificates = tls(stack.folder)
    redis_port, mongo_port, password = free_port(), free_port(), quote(SECRET, safe="")
    redis_url = f"rediss://writer:{password}@127.0.0.1:{redis_port}/0?ssl_ca_certs={certificates}/ca.pem"
    mongo_uri = f"mongodb://writer:{password}@127.0.0.1:{mongo_port}/?tls=true&tlsCAFile={certificates}/ca.pem"

    await stack.start(stack.mongo)
    await stack.mongo_client.admin.command("createUser", "writer", pwd=SECRET, roles=["root"])
    await stack.mongo_client.close()
    await stack.mongo.stop()

    acl = stack.folder / "users.acl"
    acl.write_text(f"user default off\nuser writer on >{SECRET} ~* &* +@all\n")
    redis = servers.redis(replace(stack.setup, redis_port=0))
    options: tuple[str, ...] = (
        "--tls-port",
        str(redis_port),
        "--tls-cert-file",
        f"{certificates}/server.pem",
        "--tls-key-file",
    )
    options += (f"{certificates}/server.key", "--tls-auth-clients", "no", "--aclfile", str(acl))
    client = Redis.from_url(redis_url, protocol=2)

    async def redis_ready() -> bool:
        return bool(await client.ping())

    stack.redis = Process(replace(redis, command=(*redis.command, *options)), stack.folder, {}, redis_ready)
    mongo = servers.mongo(replace(stack.setup, mongo_port=mongo_port))
    options = (
        "--auth",
        "--tls-cert-file",
        f"{certificates}/server.pem",
        "--tls-key-file",
        f"{certificates}/server.key",
    )

    async def mongo_ready() -> bool:
        async with pymongo.AsyncMongoClient[dict[str, object]](mongo_uri, serverSelectionTimeoutMS=5000) as asking:
            await asking.test.notes.find_one()
        return True

    stack.mongo = Process(replace(mongo, command=(*mongo.command, *options)), stack.folder, {}, mongo_ready)
    env = {"REDIS_URL": redis_url, "MONGO_URI": mongo_uri, "WT_TOKENS": TOKEN}
    stack.worker = stack.another_worker("worker", **env)
    stack.api = stack.another_api("api", stack.setup.port, **env)
    try:
        await stack.start(stack.redis, stack.mongo)
        await stack.worker.start(wait=False)
        await stack.api.start()
        headers = {"Authorization": f"Bearer {TOKEN.split(':')[1]}"}

        async def ready() -> bool:
            return (await stack.client.get("/readyz")).status_code == 200

        await eventually(ready, within=20)
        assert (await stack.client.put(f"/notes/{new_id}", json={}, headers=headers)).status_code == 201
        seen = [(await stack.client.get(path, headers=headers)).text for path in ("/sync", "/metrics", "/readyz")]
        assert traces("".join(seen) + stack.api.log.read_text() + stack.worker.log.read_text()) == []
        assert traces(processes()) == []
    finally:
        await client.aclose()


def tls(folder: Path) -> Path:
    """An authority and a server's certificate for 127.0.0.1."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate.private_key_pem.write_to_path(folder / "server.key")
    for n, part in enumerate(certificate.cert_chain_pems):
        part.write_to_path(folder / "server.pem", append=n > 0)
    assert ssl.create_default_context(cafile=folder / "ca.pem")
    return folder


def processes() -> str:
    """The process list as everybody can see it."""
    return "\n".join(
        path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if path.exists()
    )


async def test_nothing_shows_the_passwords_when_nobody_answers(own_stack: Stack, new_id: str) -> None:
    stack, password = own_stack, quote(SECRET, safe="")
    env = {
        "REDIS_URL": f"redis://writer:{password}@127.0.0.1:{free_port()}/0",
        "MONGO_URI": f"mongodb://writer:{password}@127.0.0.1:{free_port()}",
        "WT_TOKENS": TOKEN,
        "WT_LOG_LEVEL": "debug",
    }
    stack.worker = stack.another_worker("worker", **env)
    stack.api = stack.another_api("api", stack.setup.port, **env)
    await stack.worker.start(wait=False, forked=False)
    await stack.api.start(forked=False)
    headers = {"Authorization": f"Bearer {TOKEN.split(':')[1]}"}
    began = monotonic()
    told = [
        (await stack.client.get(path, headers=headers)).text
        for path in ("/readyz", "/sync", "/metrics", f"/notes/{new_id}", "/notes", "/sync/1-0", "/openapi.json")
    ]
    told += [(await stack.client.put(f"/notes/{new_id}", json={}, headers=headers)).text]
    assert "127.0.0.1" in told[0], "the reason is told"
    for command in (
        ["gears", "status"],
        ["worker", "audit", "--mapping", "notes"],
        ["gears", "access", "redis", "--apply"],
    ):
        ran = await anyio.run_process(
            [sys.executable, "-m", *command],
            env=os.environ | stack.env | env | {"SERVICE_PASSWORD": SECRET},
            check=False,
        )
        assert ran.returncode == 2, command
        told += [ran.stdout.decode(), ran.stderr.decode()]
    await anyio.sleep(max(0.0, 3 - (monotonic() - began)))  # the worker has tried, and said why it failed
    log = stack.worker.log.read_text()
    assert "Error" in log or "error" in log
    assert traces("".join(told) + log + stack.api.log.read_text()) == []
    assert traces(processes()) == []


@pytest.mark.parametrize(
    ("command", "variables"),
    [
        ("worker", {"REDIS_URL": f"redis://writer:{SECRET}@127.0.0.1:1/0"}),
        ("gears status", {"REDIS_URL": f"redis://writer:{SECRET}@127.0.0.1:1/0"}),
        ("service", {"REDIS_URL": f"redis://writer:{SECRET}@127.0.0.1:1/0"}),
        ("service", {"REDIS_URL": f"http://writer:{quote(SECRET, safe='')}@127.0.0.1:1/0"}),
        ("service", {"REDIS_URL": "redis://writer:pw@127.0.0.1:s3cr/0"}),
        ("service", {"REDIS_URL": f"redis+sentinel://writer:{SECRET}@127.0.0.1:1/my/0"}),
        ("service", {"MONGO_URI": f"mongodb://writer:{SECRET}@127.0.0.1"}),
        ("service", {"MONGO_URI": f"http://writer:{quote(SECRET, safe='')}@127.0.0.1"}),
        ("service", {"MONGO_URI": "mongodb://writer:pw@127.0.0.1:s3cr"}),
        ("service", {"WT_TOKENS": "s3cr"}),
        ("service", {"WT_TOKENS": "nobody:s3cr"}),
    ],
)
def test_a_url_that_cannot_be_used_is_not_shown(command: str, variables: dict[str, str]) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", *command.split()],
        env=os.environ | {"PORT": str(free_port())} | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert ran.returncode == 2
    [name] = variables
    assert name in ran.stderr
    assert "Traceback" not in ran.stderr
    assert traces(ran.stdout + ran.stderr) == []


def test_the_settings_do_not_show_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REDIS_URL", "MONGO_URI"):
        monkeypatch.setenv(name, f"redis://:{quote(SECRET, safe='')}@x")
    monkeypatch.setenv("WT_TOKENS", TOKEN)
    assert traces(repr(Settings()) + str(Settings())) == []
    with pytest.raises(ConfigError):
        connect("nonsense://", timeout=1)
    with pytest.raises(ConfigError):
        open_client("nonsense://", timeout=1)
