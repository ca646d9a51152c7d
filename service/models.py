"""What documents must look like: the tutorial's todo, and models that mappings name by import path."""

import sys
from collections.abc import Iterable
from datetime import date
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import to_json

from gears.contract.mapping import Mapping
from gears.documents.id_types import ID_MAX_BYTES
from gears.documents.json_bson import special
from gears.errors import ConfigError

NonEmpty = Annotated[str, Field(min_length=1)]


class Todo(BaseModel):
    """A todo; fields beside these are kept as they are."""

    model_config = ConfigDict(extra="allow", strict=True)

    id: str = Field(min_length=1, max_length=ID_MAX_BYTES, description="Chosen by the client, or a new UUIDv7.")
    name: NonEmpty = Field(description="What is to be done.", examples=["some todo"])
    description: str | None = Field(None, description="More about it.", examples=["some description"])
    done: bool = Field(False, description="Whether it has been done.")
    due: date | None = Field(None, description="The day by which it must be done.", examples=["2030-01-31"])
    priority: Literal["low", "normal", "high"] = Field("normal", description="How much it matters.")
    tags: list[NonEmpty] = Field(default_factory=list, description="Words to find it by.")


Model = type[BaseModel]


_TEXTS = ("7", "3b241101-e2bb-4255-8caf-4136c566a962", "2030-01-31", "2030-01-31T00:00:00Z", "00:00", "PT1S", "::1")
"""Strings that are the JSON of other types."""

_OTHER_KIND = ("_type", "_parsing")
"""How pydantic's names for errors end that say: this is of another type."""


def load_models(mappings: Iterable[Mapping]) -> dict[str, Model | None]:
    """The model of each mapping by its prefix; None for any JSON object.

    Raises:
        ConfigError: a model can't be imported, isn't one, or wants ids of another type than the mapping's.
    """
    return {mapping.prefix: _load(mapping) for mapping in mappings}


def _load(mapping: Mapping) -> Model | None:
    if mapping.model is None:
        return Todo if (mapping.prefix, mapping.id_field) == ("todos", "id") else None
    module, _, name = mapping.model.rpartition(".")
    try:
        model = getattr(_import(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"MAPPINGS: the model {mapping.model} of {mapping.prefix!r} can't be loaded: {error}"
        ) from error
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise ConfigError(f"MAPPINGS: {mapping.model}, the model of {mapping.prefix!r}, is no pydantic model")
    _check_id(mapping, model)
    return model


def _import(module: str) -> ModuleType:
    """A module of the project from whose folder this was started; all that is installed comes first."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    return import_module(module)


def unwrapped(value: Any) -> Any:
    """Parsed JSON in which each value that JSON lacks is what is in its wrapper: what a model sees of it."""
    if isinstance(value, list):
        return [unwrapped(each) for each in value]
    if not isinstance(value, dict):
        return value
    if special(value) is None:
        return {name: unwrapped(each) for name, each in value.items()}
    while isinstance(value, dict):
        value = next(iter(value.values()))
    return value


def _check_id(mapping: Mapping, model: Model) -> None:
    """Raise `ConfigError` if the model takes no ids of the mapping's type."""
    fields = model.model_fields.items()
    field = next((f for name, f in fields if mapping.id_field in (f.validation_alias, f.alias, name)), None)
    if field is None:
        return
    only_id = create_model("Id", __config__=ConfigDict(strict=True), id=(field.rebuild_annotation(), ...))
    examples = [
        unwrapped(mapping.id_type.json(mapping.id_type.example)),
        *(_TEXTS if mapping.id_type.name == "str" else ()),
    ]
    if not any(_takes(only_id, example) for example in examples):
        raise ConfigError(
            f"MAPPINGS: the ids of {mapping.prefix!r} are of type {mapping.id_type.name}, such as "
            f"{mapping.id_type.example}, but the model {mapping.model} takes none of these as {mapping.id_field!r}; "
            "change one of the two"
        )


def _takes(only_id: Model, example: Any) -> bool:
    """Whether an id of this type may do, though this one may not."""
    try:
        only_id.model_validate_json(to_json({"id": example}))
    except ValidationError as error:
        return not any(each["type"].endswith(_OTHER_KIND) for each in error.errors())
    return True
