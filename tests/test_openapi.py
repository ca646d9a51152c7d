"""The OpenAPI document is valid, says what the API really does, and can be read without the internet."""

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import BaseModel

from gears.mapping import parse_mappings
from service.models import Todo, load_models
from service.openapi import openapi
from service.problems import TYPES

Document = dict[str, Any]


class Address(BaseModel):
    street: str
    next: "Address | None" = None


class Person(BaseModel):
    id: str
    home: Address


@pytest.fixture
def document() -> Document:
    mappings = parse_mappings("todos=test.todos:id,notes=test.notes:key,a:b=test.c:id:tests.test_openapi.Person")
    return openapi(mappings, load_models(mappings))


def test_it_is_valid(document: Document) -> None:
    OpenAPIV31SpecValidator(document).validate()


def test_every_mapping_has_its_paths_and_its_model(document: Document) -> None:
    assert {"/todos", "/todos/{id}", "/notes", "/notes/{id}", "/a:b", "/a:b/{id}"} <= set(document["paths"])
    schemas = document["components"]["schemas"]
    assert schemas["todos"] == Todo.model_json_schema(ref_template="#/components/schemas/todos.{model}")
    assert schemas["new-todos"]["required"] == ["name"]
    assert schemas["notes"]["required"] == ["key"]
    assert schemas["a__b"]["properties"]["home"] == {"$ref": "#/components/schemas/a__b.Address"}


def test_every_type_of_problem_is_listed(document: Document) -> None:
    listed = document["components"]["schemas"]["Problem"]["properties"]["type"]["enum"]
    assert listed == [kind.uri for kind in TYPES]
    assert len(set(listed)) == len(listed)


async def test_what_it_says_is_what_happens(api: httpx.AsyncClient, new_id: str) -> None:
    document = (await api.get("/openapi.json")).json()
    OpenAPIV31SpecValidator(document).validate()
    expect = expecting(document, api)
    todo, path = {"name": "x"}, f"/todos/{new_id}"
    json, bad = {"Content-Type": "application/json"}, {"If-Match": '"other"'}

    tag = (await expect("PUT", "/todos/{id}", path, 201, json=todo)).headers["ETag"]
    await expect("PUT", "/todos/{id}", path, 200, json=todo)
    await expect("PUT", "/todos/{id}", path, 202, json=todo, headers={"Prefer": "respond-async"})
    await expect("PUT", "/todos/{id}", path, 412, json=todo, headers=bad)
    await expect("PUT", "/todos/{id}", path, 400, content=b"{", headers=json)
    await expect("PUT", "/todos/{id}", path, 413, content=b" " * 17_000_000, headers=json)
    await expect("PUT", "/todos/{id}", path, 415, content=b"{}")
    await expect("PUT", "/todos/{id}", path, 422, json={})
    await expect("GET", "/todos/{id}", path, 200)
    await expect("GET", "/todos/{id}", path, 304, headers={"If-None-Match": tag})
    await expect("GET", "/todos/{id}", path, 412, headers=bad)
    await expect("GET", "/todos/{id}", f"{path}x", 404)
    await expect("GET", "/todos/{id}", "/todos/%ff", 400)
    await expect("PATCH", "/todos/{id}", path, 200, json={"due": "2030-01-31"})
    await expect("PATCH", "/todos/{id}", path, 422, json={"due": "never"})
    await expect("PATCH", "/todos/{id}", f"{path}x", 404, json={})
    await expect("POST", "/todos", "/todos", 201, json=todo)
    await expect("POST", "/todos", "/todos", 202, json=todo, headers={"Prefer": "respond-async"})
    await expect("POST", "/todos", "/todos", 409, json=todo | {"id": new_id})
    await expect("GET", "/todos", "/todos?limit=2", 200)
    await expect("GET", "/todos", "/todos?limit=x", 400)
    token = (await expect("DELETE", "/todos/{id}", path, 204)).headers["Sync-Token"]
    await expect("DELETE", "/todos/{id}", path, 404)
    await expect("GET", "/sync", "/sync", 200)
    await expect("GET", "/sync/audits", "/sync/audits?mapping=todos&limit=2", 200)
    await expect("GET", "/sync/audits", "/sync/audits?limit=101", 400)
    await expect("GET", "/sync/audits", "/sync/audits?mapping=nonsense", 404)
    await expect("GET", "/sync/{token}", f"/sync/{token}", 200)
    await expect("GET", "/sync/{token}", "/sync/x", 400)
    await expect("GET", "/sync/{token}", "/sync/8000000000000-0", 404)
    for own in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"):
        await expect("GET", own, own, 200)


async def test_docs_need_nothing_from_elsewhere(api: httpx.AsyncClient) -> None:
    page = await api.get("/docs")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    links = re.findall(r'(?:src|href)="([^"]*)"', page.text)
    assert len(links) == 4
    for link in links:
        assert "//" not in link
        assert (await api.get(f"/{link}")).status_code == 200
    assert "//" not in (await api.get("/docs/show.js")).text


def expecting(document: Document, api: httpx.AsyncClient) -> Callable[..., Any]:
    """A call that checks that the document foresees the answer: status, headers, type and content."""

    async def expect(method: str, route: str, path: str, status: int, **request: Any) -> httpx.Response:
        answer = await api.request(method, path, **request)
        assert answer.status_code == status, answer.text
        foreseen = document["paths"][route][method.lower()]["responses"][str(status)]
        headers = {name.lower() for name in document["components"]["headers"]} & set(answer.headers)
        assert headers <= {name.lower() for name in foreseen.get("headers", {})}
        if answer.content:
            media_type = answer.headers["Content-Type"].split(";")[0]
            schema = foreseen["content"][media_type]["schema"]
            if "json" in media_type:
                Draft202012Validator(schema | {"components": document["components"]}).validate(answer.json())
        else:
            assert "content" not in foreseen
        return answer

    return expect
