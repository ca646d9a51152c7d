"""What documents must look like: the tutorial's todo, and models that mappings name by import path."""

from collections.abc import Iterable
from datetime import date
from importlib import import_module
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from gears.errors import ConfigError
from gears.mapping import ID_MAX_BYTES, Mapping

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


def load_models(mappings: Iterable[Mapping]) -> dict[str, Model | None]:
    """The model of each mapping by its prefix; None for any JSON object.

    Raises:
        ConfigError: a model can't be imported, or isn't one.
    """
    return {mapping.prefix: _load(mapping) for mapping in mappings}


def _load(mapping: Mapping) -> Model | None:
    if mapping.model is None:
        return Todo if (mapping.prefix, mapping.id_field) == ("todos", "id") else None
    module, _, name = mapping.model.rpartition(".")
    try:
        model = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"MAPPINGS: the model {mapping.model} of {mapping.prefix!r} can't be loaded: {error}"
        ) from error
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise ConfigError(f"MAPPINGS: {mapping.model}, the model of {mapping.prefix!r}, is no pydantic model")
    return model
