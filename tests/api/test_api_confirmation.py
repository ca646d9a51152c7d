"""Waiting for MongoDB's confirmation, as the service or the writer would have it."""

import httpx
import pytest

from service.documents.merge_patch import merge
from service.http.prefer_header import Preferences, preferences_of
from tests.support.stack import Stack


async def test_respond_async_is_accepted_at_once_and_can_be_asked_about(
    stack: Stack, api: httpx.AsyncClient, new_id: str
) -> None:
    answer = await api.post("/notes", json={"id": new_id}, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202
    assert answer.headers["Preference-Applied"] == "respond-async"
    assert answer.headers["Location"] == f"/notes/{new_id}"
    assert answer.headers["ETag"] == (await api.get(f"/notes/{new_id}")).headers["ETag"]
    token = answer.headers["Sync-Token"]
    assert answer.json() == {"token": token, "sync": f"/sync/{token}?mapping=notes"}
    await stack.drained("notes")
    standing = (await api.get(answer.json()["sync"])).json()
    assert standing == {"token": token, "committed": True, "mappings": {"notes": "committed"}}
    assert await stack.stored(new_id, "notes") == {"id": new_id}


async def test_respond_async_with_wait_is_confirmed_when_that_is_in_time(
    stack: Stack, api: httpx.AsyncClient, new_id: str
) -> None:
    answer = await api.put(f"/notes/{new_id}", json={}, headers={"Prefer": "respond-async, wait=10"})
    assert answer.status_code == 201
    assert answer.headers["Preference-Applied"] == "wait=10"
    assert await stack.stored(new_id, "notes") == {"id": new_id}


async def test_wait_0_doesnt_wait(api: httpx.AsyncClient, new_id: str) -> None:
    answer = await api.put(f"/notes/{new_id}", json={}, headers={"Prefer": "wait=0"})
    assert answer.status_code in (201, 504)
    assert answer.headers["Preference-Applied"] == "wait=0"
    assert answer.headers["Sync-Token"]


@pytest.mark.parametrize("token", ["x", "1", "1-", "1-1-1", "-1-0", "9" * 30 + "-0", "1-" + "9" * 30, "\u0661-1"])
async def test_a_malformed_token_is_a_bad_request(api: httpx.AsyncClient, token: str) -> None:
    answer = await api.get(f"/sync/{token}")
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:writethrough:problem:bad-request")


async def test_a_token_from_the_future_is_unknown(api: httpx.AsyncClient) -> None:
    assert (await api.get("/sync/nobodys.8000000000000-0")).status_code == 404
    assert (await api.get("/sync/1-0", params={"mapping": "nothing"})).status_code == 404


async def test_a_token_tells_whose_it_is(api: httpx.AsyncClient, new_id: str) -> None:
    token = (await api.put(f"/todos/{new_id}", json={"name": "x"})).headers["Sync-Token"]
    await api.put(f"/notes/{new_id}", json={"name": "x"})
    answer = (await api.get(f"/sync/{token}")).json()
    assert answer == {"token": token, "committed": True, "mappings": {"todos": "committed"}}
    assert (await api.get(f"/sync/{token}", params={"mapping": "notes"})).status_code == 404
    later = f"{token.rpartition('.')[0]}.8000000000000-0"
    assert (await api.get(f"/sync/{later}")).status_code == 404


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], Preferences()),
        (["wait=5"], Preferences(wait=5)),
        (["WAIT = 5"], Preferences(wait=5)),
        (['wait="5"'], Preferences(wait=5)),
        (["wait=0"], Preferences(wait=0)),
        (["wait=601"], Preferences(wait=600)),
        (["wait=99999999999999999999"], Preferences()),
        (["wait=-1"], Preferences()),
        (["wait=1.5"], Preferences()),
        (["wait=x"], Preferences()),
        (["wait"], Preferences()),
        (["wait=\u0665"], Preferences()),
        (["wait=5, wait=6"], Preferences(wait=5)),
        (["respond-async"], Preferences(respond_async=True)),
        (["Respond-Async; x=1, wait=10"], Preferences(10, respond_async=True)),
        (["return=minimal", "wait=3", "respond-async"], Preferences(3, respond_async=True)),
        (['foo="a, wait=1, respond-async"; bar, wait=2'], Preferences(wait=2)),
    ],
)
def test_preferences_are_read_as_rfc_7240_has_them(lines: list[str], expected: Preferences) -> None:
    assert preferences_of(lines) == expected


@pytest.mark.parametrize(
    ("target", "patch", "expected"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_does_what_the_rfc_shows(target: object, patch: object, expected: object) -> None:
    """https://www.rfc-editor.org/rfc/rfc7396#appendix-A"""
    assert merge(target, patch) == expected
