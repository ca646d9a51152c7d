"""Examples of documents: what a mapping takes when somebody tries it out."""

from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json

from gears.contract.mapping import Mapping
from service.models import Model, unwrapped

Json = dict[str, Any]

_TEXTS = {"date": "2030-01-31", "date-time": "2030-01-31T12:00:00Z", "uuid": "3b241101-e2bb-4255-8caf-4136c566a962"}


def example_of(mapping: Mapping, model: Model | None) -> Json | None:
    """A document of the mapping, without an id; None if none was found that the model takes."""
    if model is None:
        return {"name": "some name"}
    schema = model.model_json_schema()
    example = _example(schema, schema.get("$defs", {}))
    example.pop(mapping.id_field, None)
    document_id = unwrapped(mapping.id_type.json(mapping.id_type.example))
    try:
        model.model_validate_json(to_json({mapping.id_field: document_id} | example))
    except ValidationError:
        return None
    return dict(example)


def _example(schema: Json, models: Json) -> Any:
    """A value for a schema as pydantic makes them: its own example, or the plainest one."""
    if "$ref" in schema:
        return _example(models[schema["$ref"].rpartition("/")[2]], models)
    for given in (*schema.get("examples", ()), *schema.get("enum", ())):
        return given
    for given in ("const", "default"):
        if given in schema:
            return schema[given]
    for choice in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        return _example(choice, models)
    match schema.get("type"):
        case "object":
            fields: Json = schema.get("properties", {})
            wanted = {*schema.get("required", ()), *(name for name, field in fields.items() if "examples" in field)}
            return {name: _example(field, models) for name, field in fields.items() if name in wanted}
        case "array":
            return [_example(schema["items"], models)] if schema.get("minItems") else []
        case "string":
            return _TEXTS.get(schema.get("format", ""), "some text")
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case _:
            return None
