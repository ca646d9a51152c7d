"""The paths of the service's own resources in the OpenAPI document."""

from collections.abc import Iterable

from service.http import problems
from service.http.problems import ProblemType
from service.openapi.fixed_parts import Json
from service.openapi.operation_parts import ANY, answer, problems_of, ref


def paths_of_service() -> Json:
    """What is there whatever the mappings are."""

    def get(name: str, summary: str, answers: Json, *kinds: ProblemType, parameters: Iterable[str] = ()) -> Json:
        return {
            "get": {
                "operationId": name,
                "summary": summary,
                "tags": ["service"],
                "parameters": [ref("parameters", parameter) for parameter in parameters],
                "responses": answers | problems_of(*kinds, *ANY, reading=True),
            }
        }

    def other(media_type: str) -> Json:
        return {"200": {"description": "It.", "content": {media_type: {"schema": {"type": "string"}}}}}

    standing = (problems.NOT_FOUND, problems.REDIS_UNAVAILABLE, problems.MONGO_UNAVAILABLE)
    return {
        "/sync": get("sync", "How far each mapping is committed", {"200": answer("So far.", ref("schemas", "Sync"))}),
        "/sync/audits": get(
            "audits",
            "What the latest audits found, the newest first",
            {"200": answer("The reports.", ref("schemas", "Audits"))},
            problems.NOT_FOUND,
            problems.MONGO_UNAVAILABLE,
            parameters=("mapping", "audits"),
        ),
        "/sync/{token}": get(
            "sync-token",
            "Whether a write is committed",
            {"200": answer("Known.", ref("schemas", "Standing"))},
            *standing,
            parameters=("token", "mapping"),
        ),
        "/healthz": get("health", "Whether the process answers", {"200": answer("It does.", {"type": "object"})}),
        "/readyz": get(
            "ready",
            "Whether it can do its work",
            {"200": answer("It can.", ref("schemas", "Ready"))},
            problems.NOT_READY,
        ),
        "/metrics": get("metrics", "Metrics for Prometheus", other("text/plain")),
        "/openapi.json": get("openapi", "This document", {"200": answer("It.", {"type": "object"})}),
        "/": get("page", "The live page", other("text/html")),
        "/docs": get("docs", "This document, to be read", other("text/html")),
    }
