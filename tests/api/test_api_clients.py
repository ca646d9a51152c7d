"""HTTP as browsers, proxies and libraries do it."""

import httpx
import pytest

from gears.errors import ConfigError
from service.http.cors import cors
from tests.support.stack import Stack, free_port

JSON = {"Content-Type": "application/json"}
PAGE, OTHER = "https://app.example:8443", "https://other.example"
WANTED = {
    "Access-Control-Request-Method": "PUT",
    "Access-Control-Request-Headers": "authorization,content-type,if-match",
}


async def test_pages_of_the_origins_that_are_named_may_use_the_api(stack: Stack, new_id: str) -> None:
    token = "a-token-of-this-test"
    port = free_port()
    process = stack.another_api(
        "cors", port, WT_CORS_ORIGINS=f"http://localhost:3000, {PAGE}", WT_TOKENS=f"write:{token}"
    )
    await process.start()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as api:
        path = f"/notes/{new_id}"
        preflight = await api.options(path, headers={"Origin": PAGE, **WANTED})
        assert preflight.status_code == 200
        assert preflight.headers["Access-Control-Allow-Origin"] == PAGE
        assert "PUT" in preflight.headers["Access-Control-Allow-Methods"]
        assert preflight.headers["Access-Control-Allow-Headers"] == WANTED["Access-Control-Request-Headers"]
        written = await api.put(path, json={}, headers={"Origin": PAGE, "Authorization": f"Bearer {token}"})
        assert written.status_code == 201
        assert written.headers["Access-Control-Allow-Origin"] == PAGE
        exposed = written.headers["Access-Control-Expose-Headers"].split(", ")
        assert {"ETag", "Location", "Sync-Token"} <= set(exposed)
        refused = await api.put(path, json={}, headers={"Origin": PAGE})
        assert (refused.status_code, refused.headers["Access-Control-Allow-Origin"]) == (401, PAGE)  # a page sees why
        assert (await api.options(path, headers={"Origin": OTHER, **WANTED})).status_code == 400
        assert "Access-Control-Allow-Origin" not in (await api.get("/healthz", headers={"Origin": OTHER})).headers
    await process.stop()


async def test_no_page_from_elsewhere_may_use_the_api_by_default(api: httpx.AsyncClient) -> None:
    for answer in (
        await api.get("/healthz", headers={"Origin": PAGE}),
        await api.options("/notes/x", headers={"Origin": PAGE, **WANTED}),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("origin", ["app.example", "https://app.example/", "https://App.example", "https://*.example"])
def test_what_no_browser_sends_as_an_origin_is_no_setting(origin: str) -> None:
    with pytest.raises(ConfigError, match="WT_CORS_ORIGINS"):
        cors(f"https://fine.example,{origin}")


async def test_a_slash_after_a_collection_changes_nothing(api: httpx.AsyncClient, new_id: str) -> None:
    created = await api.post("/notes/", json={"id": new_id})
    assert (created.status_code, created.headers["Location"]) == (201, f"/notes/{new_id}")
    one, other = await api.get("/notes?limit=1"), await api.get("/notes/?limit=1")
    assert one.json() == other.json()
    assert (await api.delete("/notes/")).status_code == 405


@pytest.mark.parametrize("document_id", [".", "..", "x/", "/", "a//"])
async def test_an_id_that_paths_dont_keep_is_refused_where_it_is_made(
    stack: Stack, api: httpx.AsyncClient, document_id: str
) -> None:
    path = "/notes/" + document_id.replace(".", "%2E").replace("/", "%2F")
    for answer in (await api.post("/notes", json={"id": document_id}), await raw_put(stack, path)):
        assert answer.status_code == 422
        assert "use another" in answer.json()["detail"]
    assert await stack.stored(document_id, "notes") is None
    await stack.set(document_id, {"n": 1}, "notes")
    assert (await raw_put(stack, path)).status_code == 200  # others have made it: then it can be used
    await stack.redis_client.delete(f"notes:{document_id}")


async def raw_put(stack: Stack, path: str) -> httpx.Response:
    """A PUT of this very path, which httpx would take for another one."""
    url = httpx.URL(stack.setup.api_url, raw_path=path.encode())
    return await stack.client.put(url, json={})


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/notes?limt=1"),
        ("GET", "/notes?limit=1&limit=2"),
        ("GET", "/notes?after=a&after=a"),
        ("GET", "/notes/x?limit=1"),
        ("POST", "/notes?limit=1"),
        ("PUT", "/notes/x?wait=1"),
        ("DELETE", "/notes/x?y"),
        ("GET", "/sync/1-0?maping=notes"),
        ("GET", "/sync/audits?limit=1&limit=1"),
        ("GET", "/readyz?verbose"),
    ],
)
async def test_a_query_parameter_that_is_unknown_or_there_twice_is_a_bad_request(
    api: httpx.AsyncClient, method: str, path: str
) -> None:
    answer = await api.request(method, path)
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:writethrough:problem:bad-request")
    assert "query parameter" in answer.json()["detail"]


async def test_a_byte_order_mark_is_skipped(stack: Stack, api: httpx.AsyncClient, new_id: str) -> None:
    body = b"\xef\xbb\xbf" + b'{"id": "%b"}' % new_id.encode()
    assert (await api.post("/notes", content=body, headers=JSON)).status_code == 201
    path = f"/notes/{new_id}"
    assert (await api.put(path, content=body, headers=JSON)).status_code == 200
    assert (await api.patch(path, content=b'\xef\xbb\xbf{"n": 1}', headers=JSON)).status_code == 200
    assert await stack.stored(new_id, "notes") == {"id": new_id, "n": 1}
    empty = await api.put(path, content=b"\xef\xbb\xbf", headers=JSON)
    assert (empty.status_code, empty.json()["type"]) == (400, "urn:writethrough:problem:malformed-json")
