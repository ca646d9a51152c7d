"""The OpenAPI 3.1 document of an app: its mappings with their models, and the service's own resources."""

from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version

from gears.contract.mapping import Mapping as KeyMapping
from service.auth.authorize import needed_scope
from service.http import problems
from service.models import Model
from service.openapi.fixed_parts import EXTENDED_JSON, HEADERS, PARAMETERS, Json
from service.openapi.mapping_paths import paths_of_mapping, schemas_of_documents
from service.openapi.operation_parts import problems_of
from service.openapi.schemas import SCHEMAS
from service.openapi.service_paths import paths_of_service


def openapi(mappings: Iterable[KeyMapping], models: Mapping[str, Model | None], *, secured: bool = False) -> Json:
    """The document, as a JSON object.

    Args:
        mappings: the mappings served.
        models: the model of each by its prefix; None for any JSON object.
        secured: whether tokens are needed.
    """
    schemas = dict(SCHEMAS)
    paths: Json = {}
    for mapping in mappings:
        model = models[mapping.prefix]
        schemas |= schemas_of_documents(mapping, model)
        paths |= paths_of_mapping(mapping, model)
    paths |= paths_of_service()
    components: Json = {"schemas": schemas, "parameters": PARAMETERS, "headers": HEADERS}
    if secured:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        _secure(paths)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Writethrough",
            "version": _version(),
            "description": f"Documents in Redis, acknowledged by MongoDB.\n\n{EXTENDED_JSON}",
        },
        "paths": paths,
        "components": components,
    }


def _secure(paths: Json) -> None:
    """Say of each operation which scope it needs."""
    for path, item in paths.items():
        for method in item.keys() & {"get", "post", "put", "patch", "delete"}:
            scope = needed_scope(method.upper(), path)
            if scope is not None:
                item[method]["security"] = [{"token": [scope]}]
                item[method]["responses"] |= problems_of(problems.UNAUTHORIZED, problems.FORBIDDEN)


def _version() -> str:
    try:
        return version("writethrough")
    except PackageNotFoundError:
        return "0"
