"""Conditional requests: entity tags tell states of a document apart, and writers don't overwrite each other."""

import httpx
import pytest
from anyio import create_task_group
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from service.http.entity_tags import Conditions, conditions_of, etag_of
from service.http.problems import Problem
from tests.support.stack import Stack

OTHER = '"other"'


@pytest.mark.parametrize(
    ("template", "status"),
    [("{}", 304), ("W/{}", 304), ('"other", {}', 304), ("*", 304), (OTHER, 200), ('W/"other" , "more"', 200)],
)
async def test_a_client_that_has_the_document_isnt_sent_it(
    api: httpx.AsyncClient, new_id: str, template: str, status: int
) -> None:
    tag = (await api.put(f"/notes/{new_id}", json={"n": 1})).headers["ETag"]
    answer = await api.get(f"/notes/{new_id}", headers={"If-None-Match": template.format(tag)})
    assert answer.status_code == status
    assert answer.headers["ETag"] == tag
    assert bool(answer.content) == (status == 200)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    ("name", "template", "passes"),
    [
        ("If-Match", "{}", True),
        ("If-Match", '"other", {}', True),
        ("If-Match", "*", True),
        ("If-Match", OTHER, False),
        ("If-Match", "W/{}", False),
        ("If-None-Match", OTHER, True),
        ("If-None-Match", "{}", False),
        ("If-None-Match", "W/{}", False),
        ("If-None-Match", "*", False),
    ],
)
async def test_a_write_happens_only_on_its_condition(
    api: httpx.AsyncClient, new_id: str, method: str, name: str, template: str, passes: bool
) -> None:
    path = f"/notes/{new_id}"
    tag = (await api.put(path, json={"n": 1})).headers["ETag"]
    body = None if method == "DELETE" else {"n": 2}
    answer = await api.request(method, path, json=body, headers={name: template.format(tag)})
    if passes:
        assert answer.status_code in (200, 204)
    else:
        assert answer.status_code == 412
        assert answer.json()["type"] == "urn:writethrough:problem:precondition-failed"
        assert "Sync-Token" not in answer.headers
        assert (await api.get(path)).json()["n"] == 1


async def test_a_weak_tag_is_told_why_it_never_matches(api: httpx.AsyncClient, new_id: str) -> None:
    path = f"/notes/{new_id}"
    tag = (await api.put(path, json={"n": 1})).headers["ETag"]
    refused = await api.put(path, json={"n": 2}, headers={"If-Match": f"W/{tag}"})
    assert refused.status_code == 412
    assert "send the tag without the W/" in refused.json()["detail"]
    assert (await api.put(path, json={"n": 2}, headers={"If-Match": f"W/{OTHER}, {tag}"})).status_code == 200
    assert "weak" not in (await api.put(path, json={}, headers={"If-Match": OTHER})).json()["detail"]


@pytest.mark.parametrize(("name", "status"), [("If-Match", 412), ("If-None-Match", 201)])
async def test_conditions_on_a_document_that_isnt_there(
    stack: Stack, api: httpx.AsyncClient, new_id: str, name: str, status: int
) -> None:
    path = f"/notes/{new_id}"
    assert (await api.delete(path, headers={"If-Match": "*"})).status_code == 412
    assert (await api.put(path, json={}, headers={name: "*"})).status_code == status
    assert (await stack.stored(new_id, "notes") is not None) == (status == 201)


@pytest.mark.parametrize("value", ["abc", '"abc', "", "*, *", '"a" "b"'])
async def test_a_condition_that_cant_be_understood_is_not_ignored(
    api: httpx.AsyncClient, new_id: str, value: str
) -> None:
    answer = await api.put(f"/notes/{new_id}", json={}, headers={"If-Match": value})
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:writethrough:problem:bad-request")


async def test_of_two_writers_with_the_same_tag_one_wins(api: httpx.AsyncClient, new_id: str) -> None:
    path = f"/notes/{new_id}"
    tag = (await api.put(path, json={"n": 0})).headers["ETag"]
    statuses: list[int] = []

    async def write(number: int) -> None:
        answer = await api.put(path, json={"n": number}, headers={"If-Match": tag})
        statuses.append(answer.status_code)

    async with create_task_group() as tasks:
        for number in range(1, 9):
            tasks.start_soon(write, number)
    assert sorted(statuses) == [200, *[412] * 7]


async def test_of_many_who_create_one_wins(api: httpx.AsyncClient, new_id: str) -> None:
    statuses: list[int] = []

    async def create(number: int) -> None:
        if number % 2:
            answer = await api.post("/notes", json={"id": new_id, "n": number})
        else:
            answer = await api.put(f"/notes/{new_id}", json={"n": number}, headers={"If-None-Match": "*"})
        statuses.append(answer.status_code)

    async with create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(create, number)
    assert statuses.count(201) == 1
    assert set(statuses) <= {201, 409, 412}


async def test_no_patch_is_lost_among_many(stack: Stack, api: httpx.AsyncClient, new_id: str) -> None:
    path = f"/notes/{new_id}"
    await api.put(path, json={})

    async def patch(number: int) -> None:
        answer = await api.patch(path, json={str(number): number})
        assert answer.status_code == 200

    async with create_task_group() as tasks:
        for number in range(12):
            tasks.start_soon(patch, number)
    expected = {"id": new_id} | {str(number): number for number in range(12)}
    assert (await api.get(path)).json() == expected
    assert await stack.stored(new_id, "notes") == expected


@given(st.binary(), st.binary())
def test_tags_are_equal_when_documents_are(one: bytes, other: bytes) -> None:
    assert (etag_of(one) == etag_of(other)) == (one == other)


@given(st.lists(st.binary(max_size=4), min_size=1, max_size=4), st.binary(max_size=4))
def test_a_list_of_tags_matches_its_members(documents: list[bytes], other: bytes) -> None:
    headers = Headers({"If-Match": " ,".join(map(etag_of, documents))})
    conditions = conditions_of(headers)
    assert conditions == Conditions(if_match=frozenset(map(etag_of, documents)))
    for document in [*documents, other]:
        try:
            conditions.check(document)
        except Problem:
            assert document not in documents
        else:
            assert document in documents
