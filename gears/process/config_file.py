"""The configuration file that WT_CONFIG names: TOML, with the settings in small letters, and mappings as tables.

redis_url = "redis://redis.example:6379/0"
commit_timeout = 2

[mappings.todos]
collection = "test.todos"
"""

import os
import tomllib
from collections.abc import Iterable
from collections.abc import Mapping as Dict
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, TomlConfigSettingsSource

from gears.contract.mapping import Mapping, make_mapping
from gears.errors import ConfigError

VARIABLE = "WT_CONFIG"
"""The environment variable that names the file; there is none by default."""

_TABLES = "MAPPINGS"


class MappingTable(BaseModel):
    """A mapping as a table; see `Mapping`."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    collection: str = Field(pattern=r"^[^.]+\.[^.].*$")
    """`database.collection`."""
    id: str = "id"
    id_type: str = "str"
    model: str | None = None
    hold: bool | None = None
    """Whether plain clients are answered when MongoDB has their write; None for what WT_HOLD says."""

    def mapping(self, prefix: str) -> Mapping:
        """The mapping with this prefix; raises `ConfigError`."""
        database, _, collection = self.collection.partition(".")
        return make_mapping(prefix, database, collection, self.id, id_type=self.id_type, model=self.model)


class ConfigFile(TomlConfigSettingsSource):
    """The settings in the file, by the names of their environment variables.

    Args:
        settings: what settings there are.

    Raises:
        ConfigError: the file can't be read, or names what is no setting.
    """

    def __init__(self, settings: type[BaseSettings]) -> None:
        self._names = {name.lower().removeprefix("wt_"): name for name in variables(settings)}
        path = config_path()
        if path is not None and not path.is_file():
            raise ConfigError(f"{VARIABLE}: there is no file {path}; name one that is there, or unset {VARIABLE}")
        super().__init__(settings, path)

    def _read_file(self, file_path: Any) -> dict[str, Any]:
        try:
            found = tomllib.loads(file_path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{VARIABLE}: {file_path} can't be read: {error}") from None
        for name in found:
            if name not in self._names:
                raise ConfigError(f"{file_path}: {name} is no setting{meant(name, self._names)}")
        return {self._names[name]: value for name, value in found.items()}


def config_path() -> Path | None:
    """The file that WT_CONFIG names, if it does."""
    name = os.environ.get(VARIABLE)
    return Path(name).expanduser() if name else None


def variables(settings: type[BaseSettings]) -> list[str]:
    """The environment variables of these settings."""
    return [str(field.validation_alias) for field in settings.model_fields.values()]


def unknown_variables(settings: type[BaseSettings], environment: Dict[str, str]) -> dict[str, str]:
    """The variables that look like ours and are none, each with what `meant` says."""
    known = [*variables(settings), VARIABLE]
    return {
        name: meant(name.upper(), known)
        for name in sorted(environment)
        if name.upper().startswith("WT_") and name.upper() not in known
    }


def meant(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about a name that is not known: what may be meant."""
    close = get_close_matches(name, list(known), 1)
    return f"; {close[0]} is one" if close else ""
