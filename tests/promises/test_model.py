"""Whatever is written, both ways, with workers killed in between: Redis, MongoDB and a plain dict agree."""

import asyncio
from collections.abc import Awaitable
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.support.stack import Stack, eventually

Json = Any

NAMES = st.sampled_from(["a", "b", "ü", "", "it's", "x.y"])
LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text('aé"\\\n', max_size=3)
VALUES = st.recursive(LEAVES, lambda v: st.lists(v, max_size=2) | st.dictionaries(NAMES, v, max_size=2), max_leaves=4)
DOCUMENTS = st.dictionaries(NAMES, VALUES, max_size=4)
IDS = st.sampled_from(["1", "a:b", "a/b", "é *"])
REFUSED = st.sampled_from(["[1]", '{"_id":1}', '{"n":9223372036854775808}', '"text"'])


def merged(target: Json, patch: Json) -> Json:
    """RFC 7396, section 2, to the letter."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


class Model(RuleBasedStateMachine):
    """The documents of the mapping `notes`, by id, under a prefix of this run's own."""

    stack: Stack
    loop: asyncio.AbstractEventLoop

    @initialize()
    def begin(self) -> None:
        self.run_name = uuid4().hex[:8]
        self.documents: dict[str, dict[str, Json]] = {}
        self.cold: set[str] = set()

    # Through the API

    @rule(i=IDS, document=DOCUMENTS)
    def put(self, i: str, document: dict[str, Json]) -> None:
        response = self._http("PUT", i, json=document)
        assert response.status_code == (200 if i in self.documents else 201)
        self._now(i, document)

    @rule(i=IDS, document=DOCUMENTS)
    def post(self, i: str, document: dict[str, Json]) -> None:
        response = self._await(
            self.stack.client.post("/notes", json=document | {"id": self._id(i)}, headers={"Prefer": "wait=30"})
        )
        assert response.status_code == (409 if i in self.documents else 201)
        if response.status_code == 201:
            self._now(i, document)

    @rule(i=IDS, patch=DOCUMENTS)
    def patch(self, i: str, patch: dict[str, Json]) -> None:
        response = self._http("PATCH", i, json=patch)
        assert response.status_code == (200 if i in self.documents else 404)
        if i in self.documents:
            self._now(i, merged(self.documents[i], patch))

    @rule(i=IDS)
    def delete(self, i: str) -> None:
        response = self._http("DELETE", i)
        assert response.status_code == (204 if i in self.documents else 404)
        self._now(i, None)

    @rule(i=IDS)
    def get(self, i: str) -> None:
        response = self._http("GET", i)
        assert response.status_code == (200 if i in self.documents else 404)
        if i in self.documents:
            assert self._without_id(response.json()) == self.documents[i]
            self.cold.discard(i)

    # By plain clients

    @rule(i=IDS, document=DOCUMENTS)
    def plain_set(self, i: str, document: dict[str, Json]) -> None:
        self._await(self.stack.set(self._id(i), document, prefix="notes"))
        self._now(i, document)

    @rule(i=IDS, value=VALUES)
    def plain_set_path(self, i: str, value: Json) -> None:
        if i in self.documents and i not in self.cold:
            self._await(self.stack.redis_client.json().set(self._key(i), "$.a", value))
            self.documents[i] = self.documents[i] | {"a": value}

    @rule(i=IDS)
    def plain_delete(self, i: str) -> None:
        self._await(self.stack.redis_client.delete(self._key(i)))
        if i not in self.cold:  # Redis says nothing when a client deletes what isn't there
            self._now(i, None)

    @rule(i=IDS, to=IDS)
    def plain_rename(self, i: str, to: str) -> None:
        if i in self.documents and i not in self.cold and i != to:
            self._await(self.stack.redis_client.rename(self._key(i), self._key(to)))
            self._now(to, self.documents[i])
            self._now(i, None)

    @rule(i=IDS, text=REFUSED)
    def plain_set_refused(self, i: str, text: str) -> None:
        self._drain()
        self._await(self.stack.redis_client.execute_command("JSON.SET", self._key(i), "$", text))
        self._drain()
        if i in self.documents:  # a roll-back brings a cold document back
            self.cold.discard(i)

    # Bad luck

    @rule(i=IDS)
    def expire(self, i: str) -> None:
        if i in self.documents and i not in self.cold:
            self._drain()
            self._await(self.stack.redis_client.pexpire(self._key(i), 1))
            self._await(eventually(lambda: self._is_gone(i)))
            self.cold.add(i)

    @rule()
    def kill_the_worker(self) -> None:
        self._await(self.stack.worker.kill())
        self._await(self.stack.worker.start(wait=False))

    @rule()
    def commit(self) -> None:
        self._compare()

    def teardown(self) -> None:
        if hasattr(self, "documents"):
            self._compare()

    def _compare(self) -> None:
        self._drain()
        for i in ["1", "a:b", "a/b", "é *"]:
            stored = self._await(self.stack.stored(self._id(i), "notes"))
            in_redis = self._await(self.stack.get(self._id(i), prefix="notes"))
            expected = self.documents.get(i)
            assert self._without_id(stored) == expected, f"MongoDB differs at {i}"
            assert self._without_id(in_redis) == (None if i in self.cold else expected), f"Redis differs at {i}"

    def _now(self, i: str, document: dict[str, Json] | None) -> None:
        self.cold.discard(i)
        if document is None:
            self.documents.pop(i, None)
        else:
            self.documents[i] = document

    def _http(self, method: str, i: str, **request: Any) -> Any:
        path = f"/notes/{quote(self._id(i), safe='')}"
        return self._await(self.stack.client.request(method, path, headers={"Prefer": "wait=30"}, **request))

    def _without_id(self, document: Json) -> Json:
        return None if document is None else {name: value for name, value in document.items() if name != "id"}

    def _id(self, i: str) -> str:
        return f"{self.run_name}-{i}"

    def _key(self, i: str) -> str:
        return f"notes:{self._id(i)}"

    def _drain(self) -> None:
        self._await(self.stack.drained("notes", within=30))

    async def _is_gone(self, i: str) -> bool:
        return not await self.stack.redis_client.exists(self._key(i))

    def _await(self, work: Awaitable[Any]) -> Any:
        async def run() -> Any:
            return await work

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(60)


@pytest.mark.timeout(240)
async def test_redis_mongodb_and_the_model_agree(own_stack: Stack) -> None:
    await own_stack.start()
    Model.stack, Model.loop = own_stack, asyncio.get_running_loop()
    await asyncio.to_thread(
        run_state_machine_as_test,
        Model,
        settings=settings(
            max_examples=14,
            stateful_step_count=25,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],  # to shrink a failure, it would be done again for minutes
            suppress_health_check=list(HealthCheck),
        ),
    )
