"""Sharded collections, as `mongos` takes them: a proxy refuses each write that doesn't name the shard key."""

import json
from typing import Any

import anyio
import pytest

from tests.audit.test_audit import audit
from tests.support.commands import Commands
from tests.support.stack import Stack, eventually
from tests.wire import Command, WireProxy, change_reply, item_error, on, top_error

Document = dict[str, Any]

SHARD_KEYS: list[Document] = [{"id": 1}, {"id": "hashed"}, {"_id": 1}, {"_id": "hashed"}]


class Mongos:
    """A proxy before a server, whose collection `todos` passes for a sharded one.

    Args:
        proxy: the proxy.
        shard_key: by what it is sharded.
    """

    def __init__(self, proxy: WireProxy, shard_key: Document) -> None:
        [self._field] = shard_key
        listed = {"_id": "test.todos", "key": shard_key}
        sharding = on("find", "collections").where(lambda command: command.body["filter"] == {"_id": "test.todos"})
        proxy.add(sharding, change_reply(lambda reply: reply["cursor"].update(firstBatch=[listed])))
        refused_index = on("createIndexes", "todos").where(self._is_not_by_shard)
        refused_write = on(["update", "delete"], "todos").where(lambda command: any(map(self._is_lost, command.items)))
        self.refused = [
            proxy.add(refused_index, top_error(67, name="CannotCreateIndex")),
            proxy.add(refused_write, item_error(61, index=self._is_lost)),
            proxy.add(on("findAndModify", "todos"), top_error(61, name="ShardKeyNotFound")),
        ]

    def _is_lost(self, item: Document) -> bool:
        """Whether this write is for one document, and doesn't say by itself on which shard that is."""
        named = item["q"].get(self._field)
        several = item.get("multi") or item.get("limit") == 0
        return not several and (named is None or (isinstance(named, dict) and any(k.startswith("$") for k in named)))

    def _is_not_by_shard(self, command: Command) -> bool:
        """Whether an index is to be unique that no shard can see to alone."""
        wanted = [index for index in command.body["indexes"] if index.get("unique")]
        return any(next(iter(index["key"])) not in (self._field, "_id") for index in wanted)


@pytest.mark.parametrize("shard_key", SHARD_KEYS, ids=str)
async def test_sharded_by_the_id(own_stack: Stack, commands: Commands, shard_key: Document) -> None:
    stack, [id_field] = own_stack, shard_key
    await stack.start(stack.redis, stack.mongo)
    async with WireProxy(stack.setup.mongo_port) as proxy:
        mongos = Mongos(proxy, shard_key)
        env = {"MONGO_URI": proxy.uri, "MAPPINGS": f"todos=test.todos:{id_field},notes=test.notes:id"}
        stack.worker = stack.another_worker("worker", **env)
        stack.api = stack.another_api("api", stack.setup.port, **env)
        stack.env |= env
        await stack.start(stack.worker, stack.api)

        patient = {"Prefer": "wait=60"}
        for path, name in [*((f"/todos/{i}", "a") for i in range(7)), ("/todos/1", "b")]:
            assert (await stack.client.put(path, json={"name": name}, headers=patient)).is_success
        patch = patient | {"Content-Type": "application/merge-patch+json"}
        assert (await stack.client.patch("/todos/2", content='{"name": "c"}', headers=patch)).is_success
        assert (await stack.client.delete("/todos/3", headers=patient)).is_success
        await stack.redis_client.execute_command("JSON.SET", "todos:4", "$", json.dumps({"name": "plain"}))
        await stack.redis_client.delete("todos:5")
        await eventually(
            lambda: _names(stack, id_field, {"0": "a", "1": "b", "2": "c", "4": "plain", "6": "a"}), within=30
        )

        assert await _pages(stack, id_field) == ["0", "1", "2", "4", "6"]
        await stack.todos.delete_one({id_field: "0"})
        await stack.todos.update_one({id_field: "6"}, {"$set": {"name": "edited"}, "$unset": {"_sync": 1}})
        await eventually(lambda: _audits(stack), within=60)  # unless a recheck was faster, this repairs both
        await eventually(lambda: _names(stack, id_field, {"0": "a", "1": "b", "2": "c", "4": "plain", "6": "a"}))

        assert [rule.hits for rule in mongos.refused] == [0, 0, 0]
        told = f"unique indexes of yours must begin with '{id_field}'"
        assert told in await anyio.Path(stack.worker.log).read_text()
        [checked] = [line for line in await commands.reports(stack, "check") if "test.todos" in line["what"]]
        assert (checked["has"], told in checked["what"]) == (True, True)
        assert (await stack.client.get("/sync")).json()["mappings"]["todos"]["collection"]["shard_key"] == shard_key


async def _names(stack: Stack, id_field: str, expected: dict[str, str]) -> bool:
    return {found[id_field]: found["name"] async for found in stack.todos.find()} == expected


async def _pages(stack: Stack, id_field: str) -> list[str]:
    ids: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    while query.get("after", "") is not None:
        found = await eventually(lambda: _page(stack, query), within=30)
        ids += [item[id_field] for item in found["items"]]
        query["after"] = found["next"]
    return ids


async def _audits(stack: Stack) -> bool:
    code, reports, _ = await audit(stack, "--repair", "--mapping", "todos")
    return (code, len(reports)) == (0, 1)


async def _page(stack: Stack, query: dict[str, Any]) -> Any:
    answer = await stack.client.get("/todos", params=query)
    return answer.json() if answer.is_success else None  # MongoDB may be too slow for its deadline
