"""`Idempotency-Key`: a POST that is sent again makes no second document, and gets the same answer."""

from typing import Any

import anyio
import httpx
import pytest
from starlette.datastructures import Headers

from gears.documents.id_types import ID_TYPES
from gears.errors import Refused
from service.documents.idempotency import KEPT_SECONDS, idempotency_key
from service.http.problems import Problem
from tests.support.stack import Stack, eventually

SAME = ("Location", "ETag", "Sync-Token")


async def post(api: httpx.AsyncClient, key: str, body: Any, **headers: str) -> httpx.Response:
    return await api.post("/notes", json=body, headers={"Idempotency-Key": f'"{key}"', **headers})


def kind(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].removeprefix("urn:writethrough:problem:")


def same(one: httpx.Response, other: httpx.Response, *headers: str) -> bool:
    """Whether two answers are the same, these headers included."""
    return (
        one.status_code == other.status_code
        and one.content == other.content
        and all(one.headers[name] == other.headers[name] for name in headers)
    )


async def count(stack: Stack, **fields: Any) -> int:
    """How many documents MongoDB holds with these fields."""
    return int(await stack.mongo_client.test.notes.count_documents(fields))


@pytest.mark.parametrize("own_id", [False, True])
async def test_the_same_answer_for_ever_and_one_document(
    stack: Stack, api: httpx.AsyncClient, new_id: str, own_id: bool
) -> None:
    body = {"of": new_id} | ({"id": new_id} if own_id else {})
    first = await post(api, new_id, body)
    assert first.status_code == 201
    assert same(await post(api, new_id, body), first, *SAME)
    path = first.headers["Location"]
    await api.patch(path, json={"n": 1})
    assert same(await post(api, new_id, body), first, *SAME)
    assert await count(stack, of=new_id) == 1
    assert (await api.get(path)).json()["n"] == 1
    await api.delete(path)
    assert same(await post(api, new_id, body), first, *SAME)
    assert (await api.get(path)).status_code == 404
    [kept] = [key async for key in stack.redis_client.scan_iter("sync:{notes}:idempotency:*", 1000)][:1]
    assert KEPT_SECONDS - 600 < await stack.redis_client.ttl(kept) <= KEPT_SECONDS


async def test_a_key_is_for_one_body(stack: Stack, api: httpx.AsyncClient, new_id: str) -> None:
    await post(api, new_id, {"of": new_id, "n": 1})
    assert kind(await post(api, new_id, {"of": new_id, "n": 2})) == (422, "idempotency-key-reused")
    assert (await post(api, f"{new_id}-other", {"of": new_id, "n": 1})).status_code == 201
    todo = await api.post("/todos", json={"name": new_id}, headers={"Idempotency-Key": new_id})  # another mapping
    assert todo.status_code == 201
    assert await count(stack, of=new_id) == 2


async def test_a_key_by_which_nothing_was_made_may_be_used_again(api: httpx.AsyncClient, new_id: str) -> None:
    await api.put(f"/notes/{new_id}", json={"n": 0})
    assert kind(await post(api, new_id, {"id": new_id, "n": 1})) == (409, "already-exists")
    assert kind(await post(api, new_id, {"id": 7})) == (422, "invalid-document")
    assert (await post(api, new_id, {"n": 2})).status_code == 201


async def test_of_many_at_a_time_one_makes_the_document(stack: Stack, api: httpx.AsyncClient, new_id: str) -> None:
    answers: list[httpx.Response] = []

    async def send() -> None:
        answers.append(await post(api, new_id, {"of": new_id}))

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(send)
    assert {answer.status_code for answer in answers} <= {201, 409}
    made = [answer for answer in answers if answer.status_code == 201]
    assert made
    assert all(same(answer, made[0], *SAME) for answer in made)
    assert all(kind(answer) == (409, "in-progress") for answer in answers if answer.status_code == 409)
    assert await count(stack, of=new_id) == 1


async def test_after_504_after_restarts_and_after_redis_lost_everything(own_stack: Stack, new_id: str) -> None:
    stack, api, body = own_stack, own_stack.client, {"of": new_id}
    await stack.start()
    stack.worker.freeze()
    late: list[httpx.Response] = []

    async def send() -> None:
        late.append(await post(api, new_id, body))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        await eventually(lambda: stack.redis_client.xlen("sync:{notes}"))
        again = await post(api, new_id, body)
        assert kind(again) == (409, "in-progress")
        assert again.headers["Retry-After"]
    assert kind(late[0]) == (504, "not-confirmed")
    assert kind(await post(api, new_id, body, Prefer="wait=0")) == (504, "not-confirmed")
    accepted = await post(api, new_id, body, Prefer="respond-async")
    assert accepted.status_code == 202
    stack.worker.thaw()
    made = await post(api, new_id, body, Prefer="wait=20")
    assert made.status_code == 201
    for name in ("Location", "Sync-Token"):
        assert made.headers[name] == accepted.headers[name] == late[0].headers[name]

    for process in stack.processes:
        await process.kill()
    await stack.start()
    await eventually(lambda: ready(stack))
    assert same(await post(api, new_id, body), made, *SAME)

    await stack.redis_client.flushall()
    other = await past_503(stack, new_id, body | {"n": 1})
    assert kind(other) == (409, "already-exists")  # it can't be told from a change that came later
    assert same(await past_503(stack, new_id, body), made, "Location", "ETag")
    assert await count(stack) == 1


async def test_a_process_that_died_holds_a_key_for_a_moment_only(own_stack: Stack, new_id: str) -> None:
    stack = own_stack
    await stack.start(stack.redis, stack.mongo, stack.worker)
    await stack.api.start(FAILPOINTS="kill made by a key")
    with pytest.raises(httpx.TransportError):
        await post(stack.client, new_id, {"of": new_id})
    await stack.api.ends()
    await stack.api.start()

    async def sent_again() -> httpx.Response | None:
        answer = await post(stack.client, new_id, {"of": new_id})
        return None if answer.status_code == 409 else answer

    answer = await eventually(sent_again, pause=0.1)
    assert answer.status_code == 201
    assert await count(stack) == 1


async def past_503(stack: Stack, key: str, body: Any) -> httpx.Response:
    """The answer once a committer has looked what Redis has forgotten."""

    async def answer() -> httpx.Response | None:
        answer = await post(stack.client, key, body)
        return None if answer.status_code == 503 else answer

    found: httpx.Response = await eventually(answer, pause=0.1)
    return found


async def ready(stack: Stack) -> bool:
    return (await stack.client.get("/readyz")).status_code == 200


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ([], None),
        (['"8e03978e-40d5-43dd-bc93-6894a57f9324"'], "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        (["8e03978e-40d5-43dd-bc93-6894a57f9324"], "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        (['"a b, c"'], "a b, c"),
        ([r'"a\"b\\c"'], r'a"b\c'),
        (['"a"; b=1'], "a"),
    ],
)
def test_a_key_is_a_string(lines: list[str], key: str | None) -> None:
    assert idempotency_key(Headers(raw=[(b"idempotency-key", line.encode()) for line in lines])) == key


@pytest.mark.parametrize("lines", [[""], ['""'], ['"a'], ["a, b"], ["a b"], ['"\u00e4"'], ["x" * 256], ["a", "a"]])
def test_what_is_no_key(lines: list[str]) -> None:
    with pytest.raises(Problem, match="Idempotency-Key must be"):
        idempotency_key(Headers(raw=[(b"idempotency-key", line.encode("latin-1")) for line in lines]))


@pytest.mark.parametrize("id_type", [t for t in ID_TYPES.values() if t.makes_ids], ids=lambda t: t.name)
def test_ids_are_derived(id_type: Any) -> None:
    one = id_type.new("notes a")
    assert one == id_type.new("notes a") != id_type.new("notes b")
    id_type.parse(one)


def test_whole_numbers_are_not() -> None:
    with pytest.raises(Refused):
        ID_TYPES["int"].new("notes a")
