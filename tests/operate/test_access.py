"""Least privilege: the users made by `python -m gears access` do all the work, and nothing more."""

import json
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from subprocess import CompletedProcess
from typing import Any

import pytest
import pytest_asyncio
from anyio import run_process
from bson import Int64
from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError

from gears.access.mongo_roles import privileges
from gears.access.users import Role
from gears.in_mongo.client import Document
from service.embedded import server_commands as servers
from tests.support import mongo
from tests.support.engines import KindStack, needs_gears1
from tests.support.stack import Process, eventually, far_ahead

PASSWORDS = {role: f"{role}-pw-5ecret" for role in Role}
ONE_OF_EACH_ENGINE = ["redis-stack-7.4-gears2", "valkey-9.1-function", pytest.param("gears1", marks=needs_gears1)]
ROOT = "root:root-pw-5ecret"


class Guarded(KindStack):
    """A stack in which everybody has a user of their own."""

    def redis_as(self, role: Role) -> str:
        return self.redis_url.replace("//", f"//{role.user}:{PASSWORDS[role]}@")

    def mongo_as(self, user: str) -> str:
        return self.mongo_uri.replace("//", f"//{user}@") + "/?authSource=admin"

    def env_of(self, role: Role) -> dict[str, str]:
        uri = self.mongo_as(f"{role.user}:{PASSWORDS[role]}")
        return self.env | {"REDIS_URL": self.redis_as(role), "MONGO_URI": uri}

    async def run(self, *command: str, **env: str) -> CompletedProcess[bytes]:
        return await run_process([sys.executable, "-m", *command], env=os.environ | self.env | env, check=False)

    async def set_up(self) -> None:
        """Servers, users, and our own processes under these."""
        mongo.needs_embedded()
        await self.start_redis()
        await self.start(self.mongo)
        await self.mongo_client.admin.command("createUser", "root", pwd=ROOT.split(":")[1], roles=["root"])
        await self.mongo_client.close()
        await self.mongo.stop()
        child = servers.mongo(self.setup)
        self.mongo = Process(replace(child, command=(*child.command, "--auth")), self.folder, {})
        await self.mongo.start()
        self.mongo_client = AsyncMongoClient(self.mongo_as(ROOT), timeoutMS=10_000)
        passwords = {role.variable: password for role, password in PASSWORDS.items()}
        for _ in range(2):  # the second time changes nothing
            for server in ("redis", "mongo"):
                env = passwords | {"MONGO_URI": self.mongo_as(ROOT)}
                done = await self.run("gears", "access", server, "--apply", **env)
                assert done.returncode == 0, done.stderr.decode()
        await self.redis_client.config_set("notify-keyspace-events", "Kgdxe")
        self.worker = self.another_worker("worker", **self.env_of(Role.WORKER))
        self.api = self.another_api("api", self.setup.port, **self.env_of(Role.SERVICE))
        await self.start(self.worker, self.api)

    async def denials(self) -> list[Any]:
        """What was denied to anybody, by Redis's own account."""
        found = await self.redis_client.execute_command("ACL", "LOG")
        entries = [dict(zip(e[::2], e[1::2], strict=True)) if isinstance(e, list) else e for e in found]
        said = [{_text(name): _text(value) for name, value in entry.items()} for entry in entries]
        return [entry for entry in said if entry["object"] not in ("client", "client|setinfo")]  # the driver's manners


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=ONE_OF_EACH_ENGINE)
async def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guarded]:
    """All of it, on this kind of server."""
    stack = Guarded(tmp_path_factory.mktemp("guarded"), request.param)
    try:
        await stack.set_up()
        yield stack
    finally:
        if stack.external:
            await stack.redis_client.execute_command("ACL", "DELUSER", *(role.user for role in Role))
        await stack.close()


async def test_each_can_do_its_work(guarded: Guarded, new_id: str) -> None:
    stack, api, path = guarded, guarded.client, f"/notes/{new_id}"
    notes, redis = stack.mongo_client.test.notes, stack.redis_client
    await redis.execute_command("ACL", "LOG", "RESET")

    assert (await api.put(path, json={"n": 1})).status_code == 201
    tag = (await api.patch(path, json={"n": 2})).headers["ETag"]
    token = (await api.put(path, json={"n": 3}, headers={"If-Match": tag})).headers["Sync-Token"]
    assert (await api.get(f"/sync/{token}")).json()["committed"] is True
    assert (await api.get(f"/sync/keys{path}")).json()["state"] == "equal"
    assert (await api.get("/notes")).json()["items"] == [{"id": new_id, "n": 3}]
    key = {"Idempotency-Key": new_id}
    made, again = [await api.post("/todos", json={"name": "once"}, headers=key) for _ in range(2)]
    assert (made.status_code, made.content) == (201, again.content)
    await notes.create_index("slug", unique=True, partialFilterExpression={"slug": {"$exists": True}})
    await notes.insert_one({"id": f"{new_id}-holder", "slug": new_id})
    refused = await api.put(path, json={"slug": new_id}, headers={"Prefer": "wait=20"})
    assert refused.json()["type"] == "urn:writethrough:problem:refused"
    assert (await api.get(path)).json() == {"id": new_id, "n": 3}
    assert (await api.delete(path)).status_code == 204

    await notes.insert_one({"id": f"{new_id}-cold", "n": 1})
    assert (await api.get(f"{path}-cold")).json()["n"] == 1
    assert (await api.delete(f"{path}-cold")).status_code == 204

    plain = Redis.from_url(stack.redis_as(Role.CLIENT), socket_timeout=10, protocol=2)
    await plain.json().set(f"notes:{new_id}-plain", "$", {"n": 1})
    await plain.json().numincrby(f"notes:{new_id}-plain", "$.n", 1)
    await eventually(lambda: _stored(stack, f"{new_id}-plain", {"id": f"{new_id}-plain", "n": 2}))
    await plain.delete(f"notes:{new_id}-plain")
    await eventually(lambda: _stored(stack, f"{new_id}-plain", None))
    await plain.aclose()

    assert (await api.put(path, json={"n": 4})).status_code == 201
    await notes.delete_one({"id": new_id})
    await redis.set("sync:{notes}:sweep", "for the test")
    await eventually(lambda: _stored(stack, new_id, {"id": new_id, "n": 4}))
    ahead = {"n": 5, "_sync.v": Int64(await far_ahead(stack))}
    await notes.update_one({"id": new_id}, {"$set": ahead})
    await redis.set("sync:{notes}:sweep", "for the test")
    await eventually(lambda: _held(stack, new_id, {"id": new_id, "n": 5}))

    async def listening() -> bool:
        notes = (await api.get("/sync")).json()["mappings"]["notes"]
        assert notes["errors"] == {}
        return bool(notes["reconciler"]["state"] == "listening")

    await eventually(listening)
    await redis.flushall()
    await eventually(lambda: _held(stack, new_id, {"id": new_id, "n": 5}), within=20)

    async def ready() -> bool:
        return (await api.get("/readyz")).status_code == 200

    await eventually(ready)
    assert (await api.put(path, json={"n": 6})).status_code == 200
    overview = (await api.get("/sync")).json()
    assert overview["errors"] == {}
    assert all(mapping["errors"] == {} for mapping in overview["mappings"].values())
    assert (await api.get("/metrics")).status_code == 200
    worker = stack.env_of(Role.WORKER)
    for command in (("worker", "audit", "--repair"), ("worker", "restore"), ("gears", "status"), ("gears", "install")):
        done = await stack.run(*command, **worker)
        assert done.returncode == 0, done.stderr.decode()

    assert await stack.denials() == []
    for process in (stack.api, stack.worker):
        log = process.log.read_text().lower()
        assert not any(word in log for word in ("not authorized", "noperm", "permission", "traceback")), log[-3000:]


async def _stored(stack: Guarded, document_id: str, expected: object) -> bool:
    return await stack.stored(document_id, "notes") == expected


async def _held(stack: Guarded, document_id: str, expected: Any) -> bool:
    found = await stack.get(document_id, "notes")
    return bool(found == expected)


ALWAYS = (
    *("FLUSHALL", "FLUSHDB", "CONFIG SET maxmemory 1", "CONFIG REWRITE", "KEYS *", "SHUTDOWN NOSAVE", "ACL LIST"),
    *("CLIENT LIST", "LATENCY RESET", "MONITOR", "REPLICAOF NO ONE", "SAVE", "SLOWLOG GET"),
    *("GET other", "SET other 1", "JSON.SET todosx $ 1", "JSON.GET todos", "DEL sync:{other}", "SUBSCRIBE other"),
    *("SCRIPT FLUSH", "FUNCTION FLUSH", "FUNCTION DUMP", "XADD sync:{other} * k v", "PSUBSCRIBE *"),
)
DENIED = {
    Role.SERVICE: (
        *(*ALWAYS, "SCAN 0", "CONFIG GET *", "SET sync:{todos}:lease x", "FUNCTION LOAD x"),
        *("TFUNCTION LOAD x", "TFUNCTION DELETE x", "XTRIM sync:{todos} MAXLEN 0", "RG.PYEXECUTE x", "DBSIZE"),
    ),
    Role.WORKER: (*ALWAYS, "FUNCTION DELETE x", "TFUNCTION DELETE x", "SORT todos:x"),
    Role.CLIENT: (
        *(*ALWAYS, "EVAL return{} 0", "CONFIG GET *", "FUNCTION LOAD x", "TFUNCTION LOAD x", "RG.PYEXECUTE x"),
        *("XADD sync:{todos} * k v", "DEL sync:{todos}", "GET sync:{todos}:acked", "RENAME todos:a other"),
    ),
}


@pytest.mark.parametrize("role", list(Role))
async def test_redis_lets_each_do_nothing_more(guarded: Guarded, role: Role) -> None:
    redis = Redis.from_url(guarded.redis_as(role), protocol=2, single_connection_client=True)
    denied = list(DENIED[role])
    if guarded.kind.engine != "gears1" and role is Role.SERVICE:  # Redis 6.2 doesn't tell reading from writing
        denied += ["SET sync:{todos}:acked 0", "DEL sync:{todos}:worker"]
    await redis.ping()
    allowed = []
    for command in denied:
        try:
            await redis.execute_command(*command.split())
        except NoPermissionError:
            continue
        except ResponseError as error:
            if "unknown command" in str(error):
                continue
        allowed.append(command)
    await redis.aclose()
    assert allowed == []


async def test_redis_lets_nobody_in_with_a_wrong_password(guarded: Guarded) -> None:
    redis = Redis.from_url(guarded.redis_url.replace("//", f"//{Role.WORKER.user}:wrong@"))
    with pytest.raises((AuthenticationError, ResponseError), match=r"WRONGPASS|invalid username-password"):
        await redis.ping()
    await redis.aclose()


async def test_mongodb_lets_each_do_nothing_more(guarded: Guarded) -> None:
    """As far as SecantusDB tells, which asks for the action in the database; for more see `test_mongo_privileges`."""
    for role in (Role.SERVICE, Role.WORKER):
        client: AsyncMongoClient[Document] = AsyncMongoClient(
            guarded.mongo_as(f"{role.user}:{PASSWORDS[role]}"), timeoutMS=5000
        )
        attempts: list[Awaitable[object]] = [
            client.drop_database("test"),
            client.test.todos.drop(),
            client.other.todos.find_one(),
            client.other.todos.insert_one({}),
            client.admin.command("createUser", "x", pwd="x", roles=["root"]),
            client.admin.command("usersInfo"),
        ]
        if role is Role.SERVICE:
            attempts += [
                client.test.todos.insert_one({}),
                client.test.todos.update_one({}, {"$set": {"a": 1}}),
                client.test.todos.delete_one({}),
                client.test.todos.create_index("a"),
            ]
        for attempt in attempts:
            with pytest.raises(OperationFailure) as denied:
                await attempt
            assert denied.value.code == 13
        await client.close()


@pytest.mark.parametrize("kind", ["redis-stack-7.4-gears2", "redis-8.2-function"])
async def test_an_acl_file_does_the_same(tmp_path_factory: pytest.TempPathFactory, kind: str, new_id: str) -> None:
    """As in docker-compose.yml: everybody without a password is a plain client."""
    stack = Guarded(tmp_path_factory.mktemp("file"), kind)
    try:
        passwords = {role.variable: PASSWORDS[role] for role in (Role.SERVICE, Role.WORKER)}
        printed = await stack.run(
            *("gears", "access", "redis", "--default-client"), **passwords, WT_ENGINE=stack.kind.engine
        )
        file = stack.folder / "users.acl"
        file.write_bytes(printed.stdout)
        assert not any(password in file.read_text() for password in PASSWORDS.values())
        child = stack.kind.child(servers.redis(stack.setup))
        options = ("--aclfile", str(file), "--notify-keyspace-events", "Kgd")
        stack.redis = Process(replace(child, command=(*child.command, *options)), stack.folder, {}, stack._pings)
        stack.worker = stack.another_worker("worker", REDIS_URL=stack.redis_as(Role.WORKER))
        stack.api = stack.another_api("api", stack.setup.port, REDIS_URL=stack.redis_as(Role.SERVICE))
        await stack.start(stack.redis, stack.mongo)
        await stack.worker.start(wait=False)
        await stack.api.start()

        async def ready() -> bool:
            return (await stack.client.get("/readyz")).status_code == 200

        await eventually(ready)
        assert (await stack.client.put(f"/notes/{new_id}", json={"n": 1})).status_code == 201
        await stack.set(new_id, {"n": 2}, prefix="notes")
        await eventually(lambda: _stored(stack, new_id, {"id": new_id, "n": 2}))
        for command in ("FLUSHALL", "GET sync:{notes}:acked", "ACL LIST"):
            with pytest.raises(NoPermissionError):
                await stack.redis_client.execute_command(*command.split())
    finally:
        await stack.close()


async def test_mongodb_is_told_the_same_by_a_script(guarded: Guarded) -> None:
    passwords = {role.variable: password for role, password in PASSWORDS.items()}
    printed = (await guarded.run("gears", "access", "mongo", **passwords)).stdout.decode()
    calls = dict(re.findall(r"db\.(createRole|createUser)\((\{.*\"writethrough_worker\".*\})\);", printed))
    role, user = (json.loads(calls[name]) for name in ("createRole", "createUser"))
    assert role["privileges"] == privileges(Role.WORKER, guarded.settings.mappings)
    assert user == {
        "user": "writethrough_worker",
        "pwd": PASSWORDS[Role.WORKER],
        "roles": [{"role": user["user"], "db": "admin"}],
    }
    assert "writethrough_client" not in printed


@pytest.mark.parametrize("server", ["redis", "mongo"])
async def test_wrong_settings_are_said_plainly(server: str) -> None:
    env = os.environ | {"MAPPINGS": "wrong", Role.SERVICE.variable: PASSWORDS[Role.SERVICE]}
    done = await run_process([sys.executable, "-m", "gears", "access", server], env=env, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(b"gears: ")
    assert b"MAPPINGS" in done.stderr
    assert b"Traceback" not in done.stderr
