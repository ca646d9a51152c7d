"""Requests made from the OpenAPI document, good ones and bad: every answer is one that the document foresees."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi import checks

from gears.contract.mapping import parse_mappings
from service.documents.resource.bulk import NDJSON
from service.models import load_models
from service.openapi.openapi import openapi
from tests.support.stack import MAPPINGS, Stack

CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
schemathesis.serializer.alias(NDJSON, "text/plain")
MAPPED = parse_mappings(MAPPINGS)
DOCUMENT = schemathesis.openapi.from_dict(openapi(MAPPED, load_models(MAPPED)))
GOOD, BAD = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE


def requests() -> Iterator[object]:
    """Every operation with good requests and, where the document tells these apart, with bad ones."""
    for result in DOCUMENT.get_all_operations():
        operation: Any = result.ok()  # type: ignore[union-attr]
        yield pytest.param(operation, GOOD, id=f"{operation.label}, good")
        if operation.body or operation.query or operation.path == "/sync/{token}":
            yield pytest.param(operation, BAD, id=f"{operation.label}, bad")


@pytest_asyncio.fixture(scope="module", loop_scope="session", autouse=True)
async def no_documents_that_models_refuse(stack: Stack) -> None:
    """Plain clients may have written some: none is checked by models."""
    if keys := [key async for key in stack.redis_client.scan_iter("todos:*", count=1000)]:
        await stack.redis_client.unlink(*keys)
    await stack.drained()
    await stack.todos.delete_many({})


@pytest.mark.parametrize(("operation", "mode"), list(requests()))
def test_answers_are_as_foreseen(
    stack: Stack,
    api: httpx.AsyncClient,
    operation: Any,
    mode: schemathesis.GenerationMode,
) -> None:
    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=15 if "{" in operation.path or operation.method == "post" else 5,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Any) -> None:
        answer = case.call(base_url=stack.setup.api_url, timeout=10)
        assert answer.status_code < 500 or answer.status_code in (503, 504), answer.text
        case.validate_response(answer, checks=CHECKS)

    ask()
