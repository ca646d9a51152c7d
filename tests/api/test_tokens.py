"""Bearer tokens: who may do what, and that nobody beyond this machine may do anything without one."""

import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from openapi_spec_validator import OpenAPIV31SpecValidator

from gears.errors import ConfigError
from gears.process.settings import Settings
from service.auth.authorize import needed_scope
from service.auth.bearer_tokens import Scope, check_exposed, load_tokens
from tests.support.stack import Stack, free_port

READ, WRITE, ADMIN, OLD = (f"{name}-0123456789abcdef" for name in ("read", "write", "admin", "old"))


def settings(text: str = "", file: Path | None = None) -> Settings:
    return Settings.model_validate({"WT_TOKENS": text, "WT_TOKENS_FILE": str(file or "")})


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def secured(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """A client, without a token, of an API that takes tokens from a variable and a file."""
    file = stack.folder / "tokens"
    file.write_text(f"# for the dashboards\nadmin:{ADMIN}\n\nread+admin : {OLD}\n")
    port = free_port()
    api = stack.another_api("secured", port, WT_TOKENS=f"read:{READ}, write:{WRITE}", WT_TOKENS_FILE=str(file))
    await api.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            yield client
    finally:
        await api.kill()
    log = api.log.read_text()
    assert not any(token in log for token in (READ, WRITE, ADMIN, OLD))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/notes/x", {READ, WRITE, OLD}),
        ("HEAD", "/notes/x", {READ, WRITE, OLD}),
        ("GET", "/notes", {READ, WRITE, OLD}),
        ("GET", "/sync/1-0", {READ, WRITE, OLD}),
        ("GET", "/sync/keys/notes/x", {READ, WRITE, OLD}),
        ("OPTIONS", "/notes", {READ, WRITE, OLD}),
        ("PUT", "/notes/x", {WRITE}),
        ("PATCH", "/notes/x", {WRITE}),
        ("POST", "/notes", {WRITE}),
        ("DELETE", "/notes/x", {WRITE}),
        ("GET", "/sync", {ADMIN, OLD}),
        ("GET", "/metrics", {ADMIN, OLD}),
        ("GET", "/nothing", {READ, WRITE, OLD}),
        ("GET", "/notes/%2e%2e/sync", {READ, WRITE, OLD}),
        ("GET", "//sync", {READ, WRITE, OLD}),
        ("GET", "/sync/", {READ, WRITE, OLD}),
        ("GET", "/%73ync", {ADMIN, OLD}),
        ("POST", "/healthz/", {WRITE}),
    ],
)
async def test_each_scope_allows_what_it_says(
    stack: Stack, secured: httpx.AsyncClient, method: str, path: str, allowed: set[str]
) -> None:
    for token in (READ, WRITE, ADMIN, OLD):
        request = secured.build_request(method, "/", headers=bearer(token))
        request.url = secured.base_url.copy_with(raw_path=path.encode())
        answer = await secured.send(request)
        if token in allowed:
            assert answer.status_code not in (401, 403), token
            continue
        assert answer.status_code == 403
        assert re.search('error="insufficient_scope", scope="(read|write|admin)"', answer.headers["WWW-Authenticate"])
        if method != "HEAD":
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert answer.json()["scope"] == needed_scope(method, "/sync" if path == "/%73ync" else path)


@pytest.mark.parametrize("path", ["/notes/x", "/sync", "/metrics", "/nothing"])
@pytest.mark.parametrize(
    "header",
    [
        *({}, bearer("x"), bearer("unknown-0123456789"), bearer(WRITE[:-1]), bearer(WRITE + "x")),
        *(
            bearer("\u00e9" * 20),
            {"Authorization": WRITE},
            {"Authorization": f"Basic {WRITE}"},
            bearer(f"{WRITE} {WRITE}"),
        ),
    ],
)
async def test_without_a_known_token_nothing_is_told(
    secured: httpx.AsyncClient, path: str, header: dict[str, str]
) -> None:
    encoded = [(name, value.encode("latin-1")) for name, value in header.items()]
    answer = await secured.get(path, headers=encoded)  # type: ignore[arg-type]
    assert (answer.status_code, answer.json()["type"]) == (401, "urn:writethrough:problem:unauthorized")
    assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="writethrough"')


async def test_two_authorizations_are_none(secured: httpx.AsyncClient) -> None:
    both = [("Authorization", f"Bearer {READ}"), ("Authorization", f"Bearer {WRITE}")]
    assert (await secured.get("/notes/x", headers=both)).status_code == 401


async def test_a_write_without_a_token_writes_nothing(secured: httpx.AsyncClient, stack: Stack, new_id: str) -> None:
    assert (await secured.put(f"/notes/{new_id}", json={})).status_code == 401
    assert (await secured.put(f"/notes/{new_id}", json={}, headers=bearer(READ))).status_code == 403
    assert await stack.get(new_id, "notes") is None
    assert (await secured.put(f"/notes/{new_id}", json={}, headers=bearer(WRITE))).status_code == 201
    assert (await secured.get(f"/notes/{new_id}", headers={"authorization": f"bearer  {READ}"})).status_code == 200


async def test_everybody_may_see_that_it_is_ready_and_only_some_why_not(secured: httpx.AsyncClient) -> None:
    assert (await secured.get("/healthz")).status_code == 200
    assert (await secured.get("/readyz")).json() == {"status": "ready"}
    assert "checks" not in (await secured.get("/readyz", headers=bearer(WRITE))).json()
    assert (await secured.get("/readyz", headers=bearer(ADMIN))).json()["checks"]["redis"] == "ok"


async def test_why_it_is_not_ready_is_for_some_only(own_stack: Stack) -> None:
    api = own_stack.another_api("alone", own_stack.setup.port, WT_TOKENS=f"admin:{ADMIN}")
    await api.start()
    try:
        told, shown = [
            (await own_stack.client.get("/readyz", headers=headers)).json() for headers in ({}, bearer(ADMIN))
        ]
        assert "checks" not in told
        assert str(own_stack.setup.redis_port) not in told["detail"]
        assert str(own_stack.setup.redis_port) in shown["checks"]["redis"]
    finally:
        await api.kill()


async def test_the_docs_can_be_read_and_tell_which_scope_is_needed(secured: httpx.AsyncClient) -> None:
    page = await secured.get("/docs")
    assert page.status_code == 200
    for link in [*re.findall(r'(?:src|href)="([^"]*)"', page.text), "openapi.json"]:
        assert (await secured.get(f"/{link}")).status_code == 200
    document = (await secured.get("/openapi.json")).json()
    OpenAPIV31SpecValidator(document).validate()
    assert document["components"]["securitySchemes"] == {"token": {"type": "http", "scheme": "bearer"}}
    item = document["paths"]["/notes/{id}"]
    assert item["get"]["security"] == [{"token": ["read"]}]
    assert item["put"]["security"] == [{"token": ["write"]}]
    assert {"401", "403"} <= item["put"]["responses"].keys()
    assert document["paths"]["/sync"]["get"]["security"] == [{"token": ["admin"]}]
    assert "security" not in document["paths"]["/healthz"]["get"]


async def test_without_tokens_nothing_is_asked_for(api: httpx.AsyncClient) -> None:
    assert "securitySchemes" not in (await api.get("/openapi.json")).json()["components"]
    assert (await api.get("/sync", headers=bearer("whatever"))).status_code == 200


def test_several_tokens_hold_at_a_time_and_may_share_a_scope() -> None:
    tokens = load_tokens(settings(f"read:{READ},read:{OLD}\nwrite+admin:{WRITE},"))
    assert tokens is not None
    assert tokens.scopes(READ) == tokens.scopes(OLD) == {Scope.READ}
    assert tokens.scopes(WRITE) == set(Scope)
    assert tokens.scopes(READ[:-1]) == tokens.scopes("") == set()


@pytest.mark.parametrize(
    "entry",
    ["0123456789abcdef0123", "read:short", "root:0123456789abcdef", "+:0123456789abcdef", "read:has a space 0123"],
)
def test_a_token_that_cannot_be_used_is_explained_and_not_shown(entry: str) -> None:
    with pytest.raises(ConfigError, match="WT_TOKENS: entry 2") as raised:
        load_tokens(settings(f"read:{READ},{entry}"))
    assert entry.partition(":")[2] not in str(raised.value) or ":" not in entry
    assert "0123456789" not in str(raised.value)


def test_a_file_without_tokens_is_no_open_door(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("# none yet\n")
    for file in (empty, tmp_path / "missing"):
        with pytest.raises(ConfigError, match="WT_TOKENS_FILE"):
            load_tokens(settings(file=file))
    assert load_tokens(settings()) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::", "192.0.2.1", "example.org"])
def test_beyond_loopback_there_must_be_tokens(host: str) -> None:
    with pytest.raises(ConfigError, match="WT_TOKENS is not set"):
        check_exposed(settings(), host)
    check_exposed(settings(f"read:{READ}"), host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_on_loopback_there_need_not_be(host: str) -> None:
    check_exposed(settings(), host)


@pytest.mark.parametrize("more", [[], ["--embedded"]])
def test_it_refuses_to_start_where_others_could_use_it(tmp_path: Path, more: list[str]) -> None:
    command = [sys.executable, "-m", "service", "--host", "0.0.0.0", "--port", str(free_port()), *more]
    ran = subprocess.run([*command, "--data", str(tmp_path)], capture_output=True, text=True, check=False, timeout=30)
    assert ran.returncode != 0
    assert "WT_TOKENS is not set" in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1
