"""Clients that are slow, greedy or broken: each is bounded, and none harms the others."""

import json
import os
import resource
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic

import anyio
import httpx
import pytest
import pytest_asyncio
from anyio import to_thread
from anyio.abc import SocketStream

from gears.engines import open_engine
from service.embedded import server_commands as servers
from service.http.protocol import MAX_HEAD, MAX_PIPELINED
from tests.support.impatient import BODY_SECONDS, HEAD_SECONDS, MAX_CONNECTIONS, MAX_UNREAD, MAX_WRITES, UNREAD_SECONDS
from tests.support.stack import Process, Stack, eventually, free_port

PROMPT = 4.0
"""Seconds within which a well-behaved client is answered, whatever others do."""

GONE = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def impatient(stack: Stack) -> AsyncIterator[Process]:
    """An API with short deadlines."""
    api = impatient_api(stack, free_port())
    await api.start()
    try:
        yield api
        log = api.log.read_text()
        assert "Traceback" not in log, log[-3000:]
        assert '"level": "error"' not in log
    finally:
        await api.kill()


def impatient_api(stack: Stack, port: int) -> Process:
    child = servers.api(replace(stack.setup, port=port))
    arguments = child.command[child.command.index("service") + 1 :]
    command = (sys.executable, "-m", "tests.support.impatient", *arguments)
    return Process(replace(child, name=f"impatient-{port}", command=command), stack.folder, stack.env)


@pytest.fixture
def port(impatient: Process) -> int:
    return int(impatient.name.rpartition("-")[2])


@asynccontextmanager
async def others_are_served(port: int) -> AsyncIterator[None]:
    """A well-behaved client's writes and reads are answered promptly all through the block."""
    slowest = 0.0
    done = anyio.Event()

    async def behave() -> None:
        nonlocal slowest
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            while True:
                began = monotonic()
                assert (await client.put("/notes/behaved", json={})).status_code in (200, 201)
                assert (await client.get("/notes/behaved")).status_code == 200
                slowest = max(slowest, monotonic() - began)
                if done.is_set():
                    return
                await anyio.sleep(0.02)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(behave)
        yield
        done.set()
    assert slowest < PROMPT


async def until_closed(stream: SocketStream, within: float) -> bytes:
    """All that comes until the server ends the connection."""
    received = b""
    with anyio.fail_after(within):
        try:
            while True:
                received += await stream.receive()
        except GONE:
            return received


async def drip(stream: SocketStream, data: bytes, every: float) -> None:
    """Send this a byte at a time, until the server has had enough."""
    try:
        for n in range(len(data)):
            await stream.send(data[n : n + 1])
            await anyio.sleep(every)
    except GONE:
        return


def put(path: str, *headers: str) -> bytes:
    return "\r\n".join((f"PUT {path} HTTP/1.1", "Host: x", "Content-Type: application/json", *headers, "", "")).encode()


def problem(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    return int(head.split()[1]), json.loads(body)["type"].removeprefix("urn:writethrough:problem:")


async def test_a_head_that_drips_in_is_ended_at_its_deadline(port: int) -> None:
    async with others_are_served(port), await anyio.connect_tcp("127.0.0.1", port) as stream:
        began = monotonic()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(drip, stream, b"GET /notes/x HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 10_000, 0.05)
            answer = await until_closed(stream, HEAD_SECONDS + 3)
            tasks.cancel_scope.cancel()
        assert problem(answer) == (408, "request-timeout")
        assert monotonic() - began > HEAD_SECONDS / 2


async def test_a_body_that_drips_in_is_ended_at_its_deadline_and_not_written(
    stack: Stack, port: int, new_id: str
) -> None:
    async with others_are_served(port), await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(put(f"/notes/{new_id}", "Content-Length: 10000"))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(drip, stream, b'{"a": "' + b"x" * 9990, 0.05)
            answer = await until_closed(stream, BODY_SECONDS + 3)
            tasks.cancel_scope.cancel()
        assert problem(answer) == (408, "request-timeout")
        assert b"connection: close" in answer
    assert await stack.get(new_id, "notes") is None


async def test_a_body_that_is_cut_short_is_not_written(stack: Stack, port: int, new_id: str) -> None:
    for headers, sent in ((("Content-Length: 10000",), b"{}"), (("Transfer-Encoding: chunked",), b"2\r\n{}\r\n")):
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(put(f"/notes/{new_id}", *headers) + sent)
            await stream.send_eof()
            assert await until_closed(stream, 3) == b""
    assert await stack.get(new_id, "notes") is None


async def test_a_body_nobody_reads_is_ended_too(port: int) -> None:
    async with others_are_served(port), await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(drip, stream, b"1\r\nx\r\n" * 10_000, 0.001)
            answer = await until_closed(stream, HEAD_SECONDS + 3)
            tasks.cancel_scope.cancel()
        assert answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("flood", "expected"),
    [
        (b"10000\r\n" + b"x" * 65536 + b"\r\n", 413),
        (b"1;" + b"x" * 65536, None),
        (b"0\r\n" + b"X: y\r\n" * 10_000, None),
    ],
    ids=["chunks", "an extension", "trailers"],
)
async def test_chunks_without_end_are_refused(
    impatient: Process, stack: Stack, port: int, new_id: str, flood: bytes, expected: int | None
) -> None:
    before = resident(impatient)
    async with others_are_served(port), await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(put(f"/notes/{new_id}", "Transfer-Encoding: chunked") + (b"" if expected else flood))
        sent = 0

        async def pour() -> None:
            nonlocal sent
            more = flood if expected else b"x" * 65536
            try:
                while True:
                    await stream.send(more)
                    sent += len(more)
            except GONE:
                return

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pour)
            answer = await until_closed(stream, BODY_SECONDS + HEAD_SECONDS + 5)
            tasks.cancel_scope.cancel()
    if expected:
        assert int(answer.split()[1]) == expected
    else:
        assert answer == b""
        assert sent < 256 * MAX_HEAD, "more than the kernel keeps"
    assert await stack.get(new_id, "notes") is None
    assert resident(impatient) - before < 64 * 1024 * 1024


async def test_requests_may_be_sent_ahead_but_not_without_end(impatient: Process, port: int) -> None:
    before = resident(impatient)
    request = b"GET /notes/behaved HTTP/1.1\r\nHost: x\r\n\r\n"
    async with others_are_served(port):
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(request * 50)
            received = b""
            with anyio.fail_after(5):
                while received.count(b"HTTP/1.1 200") < 50:
                    received += await stream.receive()
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            with pytest.raises(GONE):  # noqa: PT012
                while True:
                    await stream.send(request * MAX_PIPELINED * 50)
    assert resident(impatient) - before < 64 * 1024 * 1024


async def test_a_client_that_does_not_read_is_ended_and_its_answers_are_dropped(
    impatient: Process, stack: Stack, port: int, new_id: str
) -> None:
    size = 4_000_000
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        await client.put(f"/notes/{new_id}", json={"a": "x" * size})
    before = resident(impatient)
    async with others_are_served(port):
        with ExitStack() as greedy:
            readers = []
            most = 0
            for _ in range(40):
                reader = greedy.enter_context(connect_with_a_small_buffer(port))
                readers.append(reader)
                reader.sendall(f"GET /notes/{new_id} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert await to_thread.run_sync(reader.recv, 100)
                most = max(most, resident(impatient) - before)
            ends = monotonic() + UNREAD_SECONDS + 1
            while monotonic() < ends:
                most = max(most, resident(impatient) - before)
                await anyio.sleep(0.05)
            for reader in readers:
                reader.settimeout(5)
                assert await to_thread.run_sync(drain, reader) < size
    assert most < MAX_UNREAD + 40 * 1024 * 1024, "of 160 MB"


async def test_a_thousand_idle_connections_make_room(impatient: Process, port: int) -> None:
    async with others_are_served(port), AsyncExitStack() as idle:
        for n in range(1000):
            stream = await idle.enter_async_context(await anyio.connect_tcp("127.0.0.1", port))
            if n % 2:
                await stream.send(b"GET /notes/x HTTP/1.1\r\nX: ")
        assert files(impatient) < MAX_CONNECTIONS + 60
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.get("/healthz", timeout=PROMPT)).status_code == 200
        await eventually(partial(_has_let_go, impatient), within=HEAD_SECONDS * 10)


async def _has_let_go(process: Process) -> bool:
    return files(process) < 60


async def test_connections_leave_file_descriptors_for_redis_and_mongodb(impatient: Process, port: int) -> None:
    before = resource.prlimit(impatient.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(impatient.pid, resource.RLIMIT_NOFILE, (356, before[1]))
    try:
        async with others_are_served(port), AsyncExitStack() as idle:
            for _ in range(400):
                await idle.enter_async_context(await anyio.connect_tcp("127.0.0.1", port))
            assert files(impatient) < 160
    finally:
        resource.prlimit(impatient.pid, resource.RLIMIT_NOFILE, before)


async def test_what_is_no_http_after_a_write_is_not_taken_for_its_answer(stack: Stack, port: int, new_id: str) -> None:
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(put(f"/notes/{new_id}", "Content-Length: 2") + b"{}nonsense\r\n\r\n")
        answer = await until_closed(stream, 5)
    assert b"400" not in answer.split(b"\r\n")[0]


async def test_a_client_that_asks_first_is_told_to_go_on(stack: Stack, port: int, new_id: str) -> None:
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(put(f"/notes/{new_id}", "Content-Length: 2", "Expect: 100-continue"))
        with anyio.fail_after(BODY_SECONDS / 2):
            assert await stream.receive() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await stream.send(b"{}")
        with anyio.fail_after(5):
            assert (await stream.receive()).startswith(b"HTTP/1.1 201")
    assert await stack.get(new_id, "notes") == {"id": new_id}


async def test_answers_without_a_body_are_sent_at_once(stack: Stack, port: int, new_id: str) -> None:
    await stack.set(new_id, {"id": new_id}, "notes")
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        for method, status in ((b"HEAD", 200), (b"OPTIONS", 204), (b"HEAD", 200), (b"DELETE", 204), (b"HEAD", 404)):
            await stream.send(b"%s /notes/%s HTTP/1.1\r\nHost: x\r\n\r\n" % (method, new_id.encode()))
            with anyio.fail_after(5):
                answer = await stream.receive()
            assert answer.startswith(b"HTTP/1.1 %d " % status)
            assert answer.endswith(b"\r\n\r\n")


async def test_no_more_writes_wait_than_may_and_slow_bodies_take_no_place(own_stack: Stack) -> None:
    stack = own_stack
    await stack.start(stack.redis, stack.mongo)
    await (await open_engine(stack.redis_client, stack.settings.mappings[1])).install()
    stack.api = impatient_api(stack, stack.setup.port)
    await stack.api.start()
    answers: list[int] = []

    async def write(n: int) -> None:
        answer = await stack.client.put(f"/notes/{n}", json={}, headers={"Prefer": "wait=2"})
        answers.append(answer.status_code)

    async with AsyncExitStack() as slow:
        for n in range(MAX_WRITES):
            stream = await slow.enter_async_context(await anyio.connect_tcp("127.0.0.1", stack.setup.port))
            await stream.send(put(f"/notes/slow-{n}", "Content-Length: 10000") + b"{")
        async with anyio.create_task_group() as tasks:
            for n in range(MAX_WRITES + 10):
                tasks.start_soon(write, n)
    assert sorted(answers) == [503] * 10 + [504] * MAX_WRITES
    assert await stack.redis_client.xlen("sync:{notes}") == MAX_WRITES, "one for each 504, none for a 503"


async def test_writes_are_confirmed_though_redis_drops_a_subscription(
    stack: Stack, api: httpx.AsyncClient, new_id: str
) -> None:
    """As it does with one that is too slow for client-output-buffer-limit."""
    for n in range(5):
        await stack.redis_client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        assert (await api.put(f"/notes/{new_id}", json={"n": n})).status_code in (200, 201)


async def test_a_page_ends_where_it_gets_too_large(stack: Stack, api: httpx.AsyncClient, new_id: str) -> None:
    ids = [f"{new_id}-{n}" for n in range(4)]
    for document_id in ids:
        answer = await api.put(f"/notes/{document_id}", json={"a": "x" * 7_000_000})
        assert answer.status_code == 201
    page = (await api.get("/notes", params={"after": new_id, "limit": 4})).json()
    assert [item["id"] for item in page["items"]] == ids[:3]
    assert page["next"] == ids[2]
    rest = (await api.get("/notes", params={"after": page["next"], "limit": 1})).json()
    assert [item["id"] for item in rest["items"]] == ids[3:]
    for document_id in ids:
        await api.delete(f"/notes/{document_id}")


def resident(process: Process) -> int:
    """Bytes of memory that the process takes."""
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * resource.getpagesize()


def files(process: Process) -> int:
    """File descriptors that the process has, nearly all of them connections."""
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def connect_with_a_small_buffer(port: int) -> socket.socket:
    """A connection of which the kernel keeps little for the client."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", port))
    return connection


def drain(connection: socket.socket) -> int:
    """How many bytes come until the server ends the connection."""
    received = 0
    with suppress(ConnectionError):
        while data := connection.recv(65536):
            received += len(data)
    return received
