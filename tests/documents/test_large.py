"""Large documents: what goes through their text piece by piece says the same as what makes a tree of it."""

import json
from collections.abc import AsyncIterator, Callable
from time import monotonic
from typing import Any

import bson
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import from_json

from gears.contract import mongo_form as stored
from gears.contract.mapping import Mapping
from gears.documents.json_bson import value_bson
from gears.documents.large_documents import Scan
from gears.documents.measured_bson import MOST_BYTES
from gears.documents.validate import parse_object
from gears.errors import MalformedJson, Refused
from tests.documents.test_json_bson import JSON, NAMES
from tests.support.stack import Stack

RESERVED = frozenset({"_id", "_sync"})
THINGS = Mapping("things", "test", "things")
USERS = Mapping("users", "shop", "users", "_id", id_type_name="oid")
OID = "5f0c5f5b8f1c2b0001a0b0c1"

DOCUMENTS = st.dictionaries(
    NAMES.filter(lambda name: not name.startswith("$") and name not in RESERVED), JSON, max_size=8
)


def scanned(text: bytes) -> bytes:
    """The BSON of a document by the way for large ones."""
    measured, kept = Scan(text, RESERVED), Scan(text, RESERVED, keep=True)
    measured.run()
    kept.run()
    assert measured.bson.size == kept.bson.size == len(kept.bson.kept)
    return bytes(kept.bson.kept)


@given(DOCUMENTS, st.sampled_from([None, 1, "\t"]), st.booleans())
@settings(max_examples=120, deadline=None)
def test_bson_is_the_same(document: dict[str, Any], indent: Any, ascii_only: bool) -> None:
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only).encode()
    assert scanned(text) == value_bson(from_json(text))[1]


@given(DOCUMENTS, st.data())
@settings(max_examples=200, deadline=None)
def test_what_is_malformed_for_one_is_for_the_other(document: dict[str, Any], data: st.DataObject) -> None:
    text = bytearray(json.dumps(document, ensure_ascii=data.draw(st.booleans())).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        what = data.draw(
            st.sampled_from(
                [b"", b",", b"]", b"}", b"{", b"[", b'"', b"\\", b":", b"1", b"-", b"\xff", b" ", b"NaN", b"0"]
            )
        )
        text[at : at + data.draw(st.integers(0, 2))] = what
    outcomes = []
    ways: list[Callable[[], bytes]] = [
        lambda: value_bson(parse_object(bytes(text), RESERVED))[1],
        lambda: scanned(bytes(text)),
    ]
    for read in ways:
        try:
            outcomes.append(read())
        except MalformedJson:
            outcomes.append(b"malformed")
        except Refused:
            outcomes.append(b"refused")
    if len(set(outcomes)) > 1:  # of several faults, each may name another
        assert set(outcomes) == {b"malformed", b"refused"} or _repeats_a_name(bytes(text)), (bytes(text), outcomes)


def _repeats_a_name(text: bytes) -> bool:
    """What is repeated within a large document is kept in the size, and by MongoDB; RedisJSON never shows it."""
    repeated = []

    def note(pairs: list[tuple[str, Any]]) -> None:
        repeated.append(len({name for name, _ in pairs}) < len(pairs))

    json.loads(text, object_pairs_hook=note)
    return any(repeated)


@pytest.mark.parametrize("mapping", [THINGS, USERS], ids=["id", "_id"])
@pytest.mark.parametrize("place", [None, "front", "middle", "end", "wrong"])
def test_the_id_is_put_where_it_belongs(mapping: Mapping, place: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {mapping.id_field: mapping.id_type.json(OID)}
    rest: dict[str, Any] = {"a": {"_id": 1, "b": [{"_id": 2, "c": 1.5}]}, "at": {"$date": "2020-01-02T03:04:05Z"}}
    document = {
        None: rest,
        "front": own | rest,
        "middle": {"z": 1} | own | rest,
        "end": rest | own,
        "wrong": {"z": [1]} | {mapping.id_field: [{"x": 1}]} | rest,
    }[place]
    text = json.dumps(document, separators=(",", ":")).encode()
    small = stored.encode(mapping, OID, text, 7)
    monkeypatch.setattr(stored, "LARGE", 0)
    assert stored.encode(mapping, OID, text, 7) == small
    found = stored.read_stored(mapping, small.raw)
    assert found is not None
    large = stored.stored_text(mapping, found)
    monkeypatch.undo()
    assert stored.stored_text(mapping, found) == large


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b'{"a":[' + b"[" * 97 + b"{}" + b"]" * 97 + b"]}", None),
        (b'{"a":[' + b"[" * 98 + b"{}" + b"]" * 98 + b"]}", "100 levels"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "100 levels"),
        (b'{"a":[{"b":[1,9223372036854775808]}]}', "'a.0.b.1'"),
        (b'{"a":[1e400]}', "number"),
        (b'{"a":{"x\\u0000y":{}}}', "NUL"),
        (b'{"_sync":1}', "'_sync'"),
        (b'{"$set":{"a":1}}', "starts with"),
        (b"[1]", "object"),
        (b'{"a":1}x', "follows"),
        (b'{"a":"\\ud800"}', "not valid JSON"),
        (b'{"a":[NaN]}', "not valid JSON"),
    ],
    ids=range(12),
)
def test_faults_are_named(text: bytes, says: str | None) -> None:
    for padding in (b"", b'{"pad":"' + b"x" * 100_000 + b'",'):
        whole = padding + text[1:] if padding and text.startswith(b'{"') else text
        if says is None:
            assert scanned(whole)
        else:
            with pytest.raises(Refused, match=says):
                scanned(whole)


@pytest.mark.parametrize("fill", [b"x", "é😀".encode(), b"\\u00e9\\ud83d\\ude00", b"\\n\\\\"], ids=range(4))
def test_long_strings_are_cut_between_characters(fill: bytes) -> None:
    for shift in range(len(fill)):
        text = b'{"a":"' + b"y" * shift + fill * (200_000 // len(fill)) + b'","b":1}'
        assert scanned(text) == bson.encode(from_json(text))


@pytest.mark.parametrize("more", [0, 1])
def test_the_limit_is_exact(more: int) -> None:
    text = b'{"a":"' + b"x" * (MOST_BYTES - len(bson.encode({"a": ""})) + more) + b'"}'
    if more:
        with pytest.raises(Refused, match="bytes as BSON"):
            scanned(text)
    else:
        assert len(scanned(text)) == MOST_BYTES


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A system of its own, since memory is measured."""
    stack = Stack(tmp_path_factory.mktemp("large"))
    try:
        await stack.start()
        yield stack
    finally:
        await stack.close()


def most_memory(pid: int) -> int:
    """MiB of memory that a process has had at most."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) // 1024


async def test_millions_of_small_objects_are_refused_at_once(system: Stack) -> None:
    body = b'{"v":[' + b",".join([b"{}"] * 3_000_000) + b"]}"
    began = monotonic()
    answer = await system.client.put("/notes/many-small", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert "bytes as BSON" in answer.json()["detail"]
    assert monotonic() - began < 10, "a second or two on a machine with nothing else to do"
    assert most_memory(system.api.pid) < 300
    assert not await system.redis_client.exists("notes:many-small")


@pytest.mark.parametrize("shape", ["records", "chains"])
async def test_a_large_document_comes_back_and_takes_little_memory(system: Stack, shape: str) -> None:
    inner: Any = {"abc": 1.25, "at": "x"} if shape == "records" else json.loads('{"":' * 90 + "{}" + "}" * 90)
    document = {"v": [inner] * (150_000 if shape == "records" else 1_500)}
    body = json.dumps(document, separators=(",", ":")).encode()
    headers = {"Content-Type": "application/json", "Prefer": "wait=60"}
    put = await system.client.put(f"/notes/{shape}", content=body, headers=headers, timeout=90)
    assert put.status_code == 201, put.text
    assert put.content == b'{"id":"%b",' % shape.encode() + body[1:]
    await system.redis_client.delete(f"sync:{{notes}}:ticket:{shape}")
    await system.redis_client.pexpire(f"notes:{shape}", 1)
    got = await system.client.get(f"/notes/{shape}", timeout=60)
    assert (got.content, got.headers["ETag"]) == (put.content, put.headers["ETag"])
    assert most_memory(system.api.pid) < 300
    assert most_memory(system.worker.pid) < 300


async def test_a_large_refused_document_is_rolled_back(system: Stack) -> None:
    body = json.dumps({"v": [{"abc": n} for n in range(200_000)]}, separators=(",", ":")).encode()
    headers = {"Content-Type": "application/json", "Prefer": "wait=60"}
    put = await system.client.put("/notes/back", content=body, headers=headers, timeout=90)
    assert put.status_code == 201, put.text
    await system.redis_client.execute_command("JSON.SET", "notes:back", "$.n", str(2**63))
    await system.drained("notes", within=60)
    assert (await system.client.get("/notes/back")).content == put.content
