"""The OpenAPI document is valid, says what the API really does, and can be read without the internet."""

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import BaseModel, Field
from pydantic_core import to_json

from gears.contract.mapping import parse_mappings
from service.http.problems import TYPES
from service.models import Todo, load_models
from service.openapi.examples import example_of
from service.openapi.openapi import openapi
from service.openapi.schemas import SCHEMAS

Document = dict[str, Any]


class Address(BaseModel):
    street: str
    next: "Address | None" = None


class Person(BaseModel):
    id: str
    home: Address


class Picky(BaseModel):
    id: str
    code: str = Field(pattern="^[A-Z]{3}-[0-9]{7}$")


@pytest.fixture
def document() -> Document:
    mappings = parse_mappings("todos=test.todos:id,notes=test.notes:key,a:b=test.c:id:tests.api.test_openapi.Person")
    return openapi(mappings, load_models(mappings))


def test_it_is_valid(document: Document) -> None:
    OpenAPIV31SpecValidator(document).validate()


def test_every_mapping_has_its_paths_and_its_model(document: Document) -> None:
    assert {"/todos", "/todos/{id}", "/notes", "/notes/{id}", "/a:b", "/a:b/{id}"} <= set(document["paths"])
    schemas = document["components"]["schemas"]
    assert schemas["todos.document"] == Todo.model_json_schema(ref_template="#/components/schemas/todos.model.{model}")
    assert schemas["todos.new"]["required"] == ["name"]
    assert schemas["notes.document"]["required"] == ["key"]
    assert schemas["a_3ab.document"]["properties"]["home"] == {"$ref": "#/components/schemas/a_3ab.model.Address"}


def test_no_two_schemas_have_the_same_name() -> None:
    prefixes = ("Problem", "Sync", "new-x", "x", "x.new", "x.model.Address", "a:b", "a__b", "a_3ab", "a_5f3ab", "a.b")
    model = "tests.api.test_openapi.Person"
    mappings = parse_mappings(",".join(f"{prefix}=test.c{n}:id:{model}" for n, prefix in enumerate(prefixes)))
    document = openapi(mappings, load_models(mappings))
    OpenAPIV31SpecValidator(document).validate()
    names = document["components"]["schemas"].keys()
    assert len(names - SCHEMAS.keys()) == 3 * len(prefixes)  # Person, as stored and as sent, and Address
    ids = [each["operationId"] for item in document["paths"].values() for each in item.values() if "tags" in each]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("model", "example"),
    [
        (None, {"name": "some name"}),
        (Todo, {"name": "some todo", "description": "some description", "due": "2030-01-31"}),
        (Person, {"home": {"street": "some text"}}),
        (Picky, None),
    ],
)
def test_an_example_is_what_the_model_takes(model: type[BaseModel] | None, example: Any) -> None:
    [mapping] = parse_mappings("a=test.a:id")
    assert example_of(mapping, model) == example


async def test_its_examples_work_when_they_are_tried(api: httpx.AsyncClient) -> None:
    document = (await api.get("/openapi.json")).json()
    for route, item in document["paths"].items():
        for method in ("put", "post", "patch", "get", "delete"):
            if method not in item or "{token}" in route:
                continue
            operation = item[method]
            [path] = [route.format(id=each["example"]) for each in item.get("parameters", [])] or [route]
            for media_type, content in operation.get("requestBody", {}).get("content", {None: {}}).items():
                example = content.get("example")
                body = example if example is None or isinstance(example, str) else to_json(example)
                headers = {"Content-Type": media_type} if media_type else {}
                answer = await api.request(method, path, content=body, headers=headers)
                assert answer.is_success, f"{method} {path}: {answer.text}"


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
    await expect("GET", "/sync/{token}", "/sync/nobodys.8000000000000-0", 404)
    await expect("POST", "/todos/_bulk", "/todos/_bulk", 415, json=todo)
    await expect("POST", "/todos/_bulk", "/todos/_bulk?x=1", 400, content=b"")
    for own in ("/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"):
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
