"""The live page: what it is made of, what its stream tells and to whom, and what it costs others."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from time import time
from typing import Any

import anyio
import httpx
import pytest
from starlette.requests import Request

from gears.contract.mapping import parse_mappings
from gears.contract.write_tokens import ZERO
from gears.engines import CaptureStatus
from gears.in_mongo.log.batches import Acked
from gears.progress.backlog import Backlog, WorkerState
from service.http.problems import Problem
from service.page.freeze_button import check_same_origin
from service.page.rates import Meter, Rates
from service.page.sampler import MAX_VIEWERS
from service.page.sentence import Measured, sentence
from service.watch.gather_state import Inspection, MappingState
from service.watch.latest_writes import Latest
from tests.support.stack import Stack, eventually, free_port

READ, ADMIN = "read-0123456789abcdef", "admin-0123456789abcdef"
EVENTS = "/-/events"

Event = tuple[str, Any]


@asynccontextmanager
async def looking(api: httpx.AsyncClient, **headers: str) -> AsyncIterator[AsyncIterator[Event]]:
    """What somebody who looks at the page is sent."""
    async with api.stream("GET", EVENTS, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "text/event-stream"
        yield _events(answer)


async def _events(answer: httpx.Response) -> AsyncIterator[Event]:
    name = ""
    async for line in answer.aiter_lines():
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)


async def sample_that(events: AsyncIterator[Event], fits: Any) -> Any:
    """The first sample that does."""
    async for name, data in events:
        if name == "sample" and fits(data):
            return data
    raise AssertionError("the stream ended")


async def test_the_page_is_made_of_files_from_here_and_nothing_in_line(api: httpx.AsyncClient) -> None:
    page = await api.get("/")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert not re.search(r"<style|<script(?! type=\"module\" src)| style=| on[a-z]+=", page.text)
    assert (await api.head("/")).headers["Content-Length"] == str(len(page.content))
    links = {link for link in re.findall(r'(?:src|href)="([^"#]+)"', page.text) if link not in ("docs", "sync")}
    checked = set[str]()
    while links:
        link = links.pop()
        checked.add(link)
        file = await api.get(f"/{link}")
        assert (link, file.status_code) == (link, 200)
        assert "//" not in re.sub(r"http://www\.w3\.org/2000/svg|// .*", "", file.text)
        links |= {f"-/{name}" for name in re.findall(r'from "\./([^"]+)"', file.text)} - checked
    assert len(checked) >= 10


async def test_who_looks_is_sent_how_it_is_and_sees_a_write_but_no_value_of_a_document(
    api: httpx.AsyncClient, stack: Stack, new_id: str
) -> None:
    async with looking(api) as events:
        name, hello = await anext(events)
        assert name == "hello"
        assert [mapping["prefix"] for mapping in hello["mappings"]] == ["todos", "notes"]
        assert hello["mappings"][1]["example"] == {"name": "some name"}
        await api.put(f"/notes/{new_id}", json={"secret": f"value-{new_id}"})
        posted = await api.post("/notes", json={"secret": f"value-{new_id}"})
        paths = {f"/notes/{new_id}", posted.headers["Location"]}
        sample = await sample_that(events, lambda data: paths <= {write["path"] for write in data["latest"]})
        assert f"value-{new_id}" not in json.dumps([hello, sample])
        assert all(0 < write["seconds"] < 30 for write in sample["latest"])
        await sample_that(events, lambda data: data["mappings"][1]["committed"] is not None)
        sample = await sample_that(events, lambda data: data["sentence"]["kind"] == "well")
    assert re.fullmatch(r"All writes reach MongoDB in \d+ ms\.", sample["sentence"]["text"])
    assert sample["servers"]["mongo"]["error"] is None
    notes = sample["mappings"][1]
    assert (notes["prefix"], notes["namespace"], notes["waiting"]) == ("notes", "test.notes", 0)
    assert [(part["name"], part["state"]) for part in notes["parts"]][:2] == [
        ("capture", "capturing"),
        ("committer", "committing"),
    ]
    async with looking(api) as events:  # and again: what the charts show is still there
        assert len((await anext(events))[1]["history"]) >= 2


async def test_a_dead_letter_is_shown_with_its_reason_and_without_its_document(
    api: httpx.AsyncClient, stack: Stack, new_id: str
) -> None:
    notes = stack.mongo_client.test.notes
    await notes.create_index("page", unique=True, partialFilterExpression={"page": {"$exists": True}})
    await notes.insert_one({"id": f"{new_id}-holder", "page": new_id})
    refused = await api.put(f"/notes/{new_id}", json={"page": new_id, "secret": "value"}, headers={"Prefer": "wait=20"})
    assert refused.json()["type"] == "urn:writethrough:problem:refused"
    async with looking(api) as events:
        sample = await sample_that(events, lambda data: data["dead_letters"])
    letter = sample["dead_letters"][0]
    assert (letter["prefix"], letter["key"]) == ("notes", f"notes:{new_id}")
    assert letter["id"] == refused.headers["Sync-Token"]
    assert letter["reason"]
    assert "document" not in letter
    assert sample["latest"] == [] or "secret" not in json.dumps(sample["latest"])


async def test_with_tokens_the_page_is_for_all_and_what_it_shows_for_admins(stack: Stack) -> None:
    port = free_port()
    process = stack.another_api("page-secured", port, WT_TOKENS=f"read:{READ},admin:{ADMIN}")
    await process.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            assert (await client.get("/")).status_code == 200
            assert (await client.get("/-/page.js")).status_code == 200
            assert (await client.get(EVENTS)).status_code == 401
            for method, path in (("GET", EVENTS), ("POST", "/-/freeze")):
                answer = await client.request(method, path, headers={"Authorization": f"Bearer {READ}"})
                assert (answer.status_code, answer.json()["scope"]) == (403, "admin")
            async with looking(client, Authorization=f"Bearer {ADMIN}") as events:
                assert (await anext(events))[0] == "hello"
                await sample_that(events, lambda data: data["mappings"])
                await process.stop()  # while somebody looks, who is told the end of it
                assert [name async for name, _ in events if name != "sample"] == []
    finally:
        if process.running:
            await process.kill()
    assert not any(text in process.log.read_text() for text in ("Traceback", "timeout graceful shutdown exceeded"))


async def test_so_many_may_look_and_no_more(api: httpx.AsyncClient) -> None:
    limits = httpx.Limits(max_connections=MAX_VIEWERS + 5)
    async with httpx.AsyncClient(base_url=api.base_url, timeout=30, limits=limits) as many, AsyncExitStack() as viewers:
        first = AsyncExitStack()
        await viewers.enter_async_context(first)
        await first.enter_async_context(looking(many))
        for _ in range(MAX_VIEWERS - 1):
            events = await viewers.enter_async_context(looking(many))
        refused = await many.get(EVENTS)
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:writethrough:problem:too-many-viewers")
        assert "Retry-After" in refused.headers
        await sample_that(events, lambda data: True)
        await first.aclose()

        async def there_is_room() -> bool:
            async with many.stream("GET", EVENTS) as answer:
                return answer.status_code == 200

        await eventually(there_is_room)


async def test_it_is_sampled_only_while_somebody_looks(api: httpx.AsyncClient) -> None:
    async with looking(api) as events:
        await sample_that(events, lambda data: data["point"])
    left = time() * 1000
    await anyio.sleep(3)
    async with looking(api) as events:
        history = (await anext(events))[1]["history"]
    assert history
    assert [point for point in history if point[0] > left + 1700] == []  # one may have been under way


async def test_without_the_launcher_nothing_can_be_frozen(api: httpx.AsyncClient) -> None:
    assert (await api.post("/-/freeze")).status_code == 404
    async with looking(api) as events:
        assert (await anext(events))[1]["freeze"] is None


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Origin": "http://localhost:8000", "Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": "http://localhost:9000"}, False),
        ({"Origin": "null"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
    ],
)
def test_pages_of_other_origins_freeze_nothing(headers: dict[str, str], allowed: bool) -> None:
    sent = {"Host": "localhost:8000"} | headers
    request = Request({"type": "http", "headers": [(n.lower().encode(), v.encode()) for n, v in sent.items()]})
    if allowed:
        check_same_origin(request)
        return
    with pytest.raises(Problem) as refused:
        check_same_origin(request)
    assert refused.value.kind.status == 403


WORKER = WorkerState(owner="me", run="run", state="committing", since=0)
WELL = MappingState(
    parse_mappings("todos=test.todos:id")[0],
    capture=CaptureStatus("gears2", installed=True, version="1", expected="1"),
    backlog=Backlog(ZERO, Acked(), 0, None, 0.0, WORKER, added=0),
)


def backlogged(entries: int, lag: float = 0.0, worker: WorkerState | None = WORKER) -> MappingState:
    assert WELL.backlog is not None
    return replace(WELL, backlog=replace(WELL.backlog, entries=entries, lag=lag, worker=worker))


def committer(**said: object) -> WorkerState:
    return WORKER.model_copy(update=said)


NOTHING = Measured()


@pytest.mark.parametrize(
    ("state", "errors", "measured", "text"),
    [
        (WELL, {}, NOTHING, "All writes are in MongoDB."),
        (WELL, {}, Measured(0.0042, 0.001), "All writes reach MongoDB in 4 ms."),
        (WELL, {}, Measured(None, 0.0124), "All writes reach MongoDB, which takes 12 ms for a batch of them."),
        (WELL, {}, Measured(0.1, caught_up=1355), "MongoDB answers again and has all 1,355 writes that waited."),
        (WELL, {}, Measured(0.1, caught_up=1), "MongoDB answers again and has the write that waited."),
        (backlogged(1355), {"mongo": "timeout"}, NOTHING, "MongoDB does not answer: 1,355 writes wait."),
        (backlogged(0), {"mongo": "timeout"}, NOTHING, "MongoDB does not answer: no write waits."),
        (WELL, {"redis": "x", "mongo": "x"}, NOTHING, "Redis does not answer: no write is taken."),
        (backlogged(1, worker=None), {}, NOTHING, "No worker commits todos: 1 write waits."),
        (backlogged(5, worker=committer(state="blocked")), {}, NOTHING, "Commits of todos are held up: 5 writes wait."),
        (backlogged(5, 2.34), {}, NOTHING, "MongoDB is behind with todos: 5 writes wait, the oldest for 2.3 s."),
        (backlogged(5, 0.5), {}, NOTHING, "All writes reach MongoDB."),
        (
            backlogged(100),
            {},
            NOTHING,
            "Too many writes to todos wait for MongoDB, no more are taken: 100 writes wait.",
        ),
        (
            backlogged(2, worker=committer(state="restoring")),
            {},
            NOTHING,
            "Redis is given back what it lost of todos: 2 writes wait.",
        ),
        (
            backlogged(0, worker=committer(warmed=1200, to_warm=5000)),
            {},
            NOTHING,
            "Writes reach MongoDB; Redis has 1,200 of about 5,000 documents of todos again.",
        ),
        (
            backlogged(0, worker=committer(aside=2)),
            {},
            NOTHING,
            "All writes reach MongoDB but 2 of todos, which it does not take now.",
        ),
        (
            replace(WELL, capture=CaptureStatus("gears2", installed=False, version=None, expected="1")),
            {},
            NOTHING,
            "Writes to todos are not captured: the recipe is not installed.",
        ),
    ],
)
def test_how_it_is_is_said_in_one_sentence(
    state: MappingState, errors: dict[str, str], measured: Measured, text: str
) -> None:
    assert sentence(Inspection([state], errors=errors), measured, backlog_limit=100).text == text


def test_the_time_of_a_write_is_that_until_mongodb_has_one_document() -> None:
    latest = Latest()
    assert latest.typical() is None
    latest.note("PUT", "/todos/1", 202, 0.001, [])
    latest.note("PUT", "/todos/2", 504, 5.0, [])
    latest.note("POST", "/todos/_bulk", 200, 9.0, [])
    latest.note("POST", "/-/freeze", 202, 0.001, [])
    assert latest.typical() is None
    latest.note("POST", "/todos", 201, 0.02, [(b"location", b"/todos/3%20")])
    latest.note("PUT", "/todos/4", 200, 0.01, [])
    latest.note("DELETE", "/todos/5", 204, 0.03, [])
    assert latest.typical() == 0.02
    paths = ["/todos/5", "/todos/4", "/todos/3 ", "/todos/_bulk", "/todos/2", "/todos/1"]
    assert [write["path"] for write in latest.shown()] == paths


def test_rates_are_what_was_added_and_taken_off_a_second() -> None:
    meter = Meter()

    def backlog(added: int, entries: int) -> Backlog:
        return Backlog(ZERO, Acked(), entries, None, 0.0, WORKER, added=added)

    assert meter.measured(backlog(100, 0), 1.0) is None
    assert meter.measured(backlog(120, 20), 2.0) == Rates(20, 0)
    assert meter.measured(backlog(140, 10), 3.0) == Rates(20, 15)
    assert meter.measured(None, 4.0) is None
    assert meter.measured(backlog(140, 0), 5.0) is None
    assert meter.measured(backlog(10, 0), 6.0) == Rates(0, 0)  # Redis was emptied
    assert meter.measured(backlog(10, 0), 60.0) is None  # nobody looked
