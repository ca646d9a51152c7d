"""The MongoDB roles grant, collection by collection, what service and worker ask for, and nothing more.

The server of the other tests asks for privileges by database only. So everything is done once, what was really sent is
recorded, and compared with the roles by what MongoDB's documentation says of each command.
"""

import json
import sys
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import anyio
from bson import Int64

from gears.access.mongo_roles import privileges
from gears.access.users import Role
from gears.in_mongo.reports.kept_reports import KEPT_AUDITS
from service.embedded import server_commands as servers
from service.embedded.children.child import Child
from tests.support.recorded import VARIABLE
from tests.support.stack import Process, Stack, eventually, far_ahead

Privileges = dict[tuple[str, str], set[str]]

NEEDS = {
    # https://www.mongodb.com/docs/manual/reference/privilege-actions/, and "Access Control" of each command's page
    "find": {"find"},
    "getMore": {"find"},
    "killCursors": {"find"},  # one's own
    "count": {"find"},
    "aggregate": {"find"},
    "insert": {"insert"},
    "update": {"find", "update"},
    "delete": {"remove"},
    "findAndModify": {"find", "update"},
    "createIndexes": {"createIndex"},
    "listIndexes": {"listIndexes"},
    "listCollections": {"listCollections"},
}
FOR_EVERYBODY = {"ping", "endSessions"}
NOT_MISSED = {"currentOp"}  # how far a build is, where that may be asked
READING_STAGES = {"$match", "$group", "$sort", "$limit"}


def needed(requests: Path) -> Privileges:
    """What the recorded requests take, by database and collection."""
    found: Privileges = defaultdict(set)
    for request in map(json.loads, requests.read_text().splitlines()):
        if request["command"] not in FOR_EVERYBODY | NOT_MISSED:
            assert set(request["stages"]) <= READING_STAGES, "look up what it takes"
            actions = NEEDS[request["command"]] | ({"insert"} if request["upsert"] else set())
            found[request["database"], request["collection"]] |= actions
    return dict(found)


def granted(role: Role, stack: Stack) -> Privileges:
    return {
        (privilege["resource"]["db"], privilege["resource"]["collection"]): set(privilege["actions"])
        for privilege in privileges(role, stack.settings.mappings)
    }


class Recorded(Stack):
    """A stack whose own processes are recorded, by role."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, MAPPINGS="notes=test.notes:id", WT_LEASE_TTL="1", WT_COMMIT_TIMEOUT="20")
        self.requests = {role: folder / f"{role}.requests" for role in (Role.SERVICE, Role.WORKER)}
        self.worker = Process(_recorded(servers.worker(self.setup)), folder, self._env(Role.WORKER), self._worker_ready)
        self.api = Process(_recorded(servers.api(self.setup)), folder, self._env(Role.SERVICE))

    def _env(self, role: Role) -> dict[str, str]:
        return self.env | {VARIABLE: str(self.requests[role])}

    async def run(self, *command: str, **env: str) -> str:
        """A command of the worker, which must succeed; what it printed."""
        line = [sys.executable, "-m", "tests.support.recorded", "worker", *command]
        done = await anyio.run_process(line, env=self._env(Role.WORKER) | env, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()


def _recorded(child: Child) -> Child:
    command = child.command[child.command.index("-m") + 1 :]
    return replace(child, command=(sys.executable, "-m", "tests.support.recorded", *command))


async def test_each_role_grants_what_is_asked_for_and_nothing_more(tmp_path: Path) -> None:
    stack = Recorded(tmp_path)
    try:
        await stack.start()
        await serve(stack)
        await repair(stack)
        await rewind(stack)
        await mend_duplicates(stack)
        await delete_cold(stack)
        await look(stack)
    finally:
        await stack.close()
    for role, requests in stack.requests.items():
        asked = needed(requests)
        if role is Role.WORKER:
            asked["test", "sync_log"].add("remove")  # once the log has more than a thousand batches
        assert asked == granted(role, stack), role


async def serve(stack: Stack) -> None:
    """Reads and writes, one of them refused, and a document that only MongoDB holds."""
    api, notes = stack.client, stack.mongo_client.test.notes
    await notes.create_index("slug", unique=True, partialFilterExpression={"slug": {"$exists": True}})
    assert (await api.post("/notes", json={"id": "a", "slug": "taken"})).status_code == 201
    written = await api.put("/notes/b", json={"n": 1})
    assert (await api.get(f"/sync/{written.headers['Sync-Token']}")).json()["committed"] is True
    assert (await api.patch("/notes/b", json={"n": 2})).status_code == 200
    assert (await api.put("/notes/b", json={"slug": "taken"})).status_code == 422
    assert (await api.delete("/notes/b")).status_code == 204
    assert (await api.put("/notes/b", json={"n": 3})).status_code == 201
    await notes.insert_many([{"id": f"cold-{n}"} for n in range(3)])
    assert (await api.get("/notes/cold-0")).status_code == 200
    assert (await api.post("/notes", json={"id": "cold-1"})).status_code == 409
    assert (await api.get("/notes?limit=2")).json()["next"]
    assert (await api.put("/notes/c", json={"slug": "other"})).status_code == 201
    await stack.redis_client.execute_command(  # they exchange what must be unique
        *("JSON.MSET", "notes:a", "$", '{"id":"a","slug":"other"}', "notes:c", "$", '{"id":"c","slug":"taken"}')
    )
    await stack.drained("notes")
    assert await stack.stored("c", "notes") == {"id": "c", "slug": "taken"}


async def repair(stack: Recorded) -> None:
    """Missing and ahead, by an audit."""
    notes = stack.mongo_client.test.notes
    await stack.drained("notes")
    await notes.delete_one({"id": "a"})
    ahead = Int64(await far_ahead(stack))
    await notes.update_one({"id": "b"}, {"$set": {"n": 4, "_sync.v": ahead}})
    await stack.run("audit", "--repair")
    assert await stack.get("b", "notes") == {"id": "b", "n": 4}
    assert await stack.stored("a", "notes") is not None


async def rewind(stack: Recorded) -> None:
    """Redis is emptied; what it had is given back when somebody says so, and a token of before is asked about."""
    token = (await stack.client.delete("/notes/a")).headers["Sync-Token"]
    await stack.worker.stop()
    await stack.redis_client.flushall()
    worker = stack.worker.armed(WT_REWIND="report")
    await worker.start(wait=False)
    try:
        await eventually(lambda: stack.mongo_client.test.sync_rewinds.find_one())
        await stack.redis_client.set("sync:{notes}:rewind", "restore")
        await eventually(lambda: stack.get("b", "notes"))
    finally:
        await worker.stop()
    await stack.worker.start()
    assert (await stack.client.put("/notes/c", json={})).is_success
    assert (await stack.client.get(f"/sync/{token}")).json()["committed"]


async def mend_duplicates(stack: Recorded) -> None:
    """A document is stored twice while the unique index is gone."""
    notes = stack.mongo_client.test.notes
    await stack.worker.stop()
    await notes.drop_index("id_1")
    await notes.insert_one({"id": "b", "n": 0, "_sync": {"v": Int64(1)}})
    await stack.worker.start()
    assert await notes.count_documents({"id": "b"}) == 1


async def delete_cold(stack: Recorded) -> None:
    """A document whose key expires is given back, and deleted when it expires again; old reports make room."""
    reports = stack.mongo_client.test.sync_audits
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    await reports.insert_many([{"mapping": "notes", "started_at": long_ago} for _ in range(KEPT_AUDITS)])
    assert (await stack.client.put("/notes/expiring", json={"n": 1})).status_code == 201
    await expire(stack)
    await stack.run("restore")
    assert await stack.get("expiring", "notes") == {"id": "expiring", "n": 1}
    await expire(stack)
    assert (await stack.client.get("/notes/expiring")).status_code == 200
    await expire(stack)
    await stack.run("audit", "--repair", WT_COLD="delete")
    assert await stack.stored("expiring", "notes") is None
    assert not await reports.count_documents({"started_at": long_ago})


async def expire(stack: Stack) -> None:
    await stack.redis_client.pexpire("notes:expiring", 1)

    async def expired() -> bool:
        return not await stack.redis_client.exists("notes:expiring")

    await eventually(expired)


async def look(stack: Recorded) -> None:
    """All that tells how it goes."""
    assert "notes" in await stack.run("audit", "--list")
    for path in ("/sync", "/sync/audits?mapping=notes", "/metrics", "/readyz"):
        assert (await stack.client.get(path)).status_code == 200, path
