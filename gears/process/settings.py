"""The configuration of every process: from the environment, and from the file that WT_CONFIG names.

The environment wins, setting by setting; `MAPPINGS` is one.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from gears.contract.mapping import Mapping, check_mappings, parse_mappings
from gears.errors import ConfigError
from gears.process.config_file import ConfigFile, MappingTable, config_path, unknown_variables

_BRANCHES = ("str", "dict[str,MappingTable]")
"""What pydantic says of which kind of value an error is of."""

_PLAIN = {"extra_forbidden": "there is no such setting", "string_pattern_mismatch": "write it as database.collection"}
"""What is said instead of pydantic's words, by the type of its error."""

_ENVIRONMENT, _DEFAULT = "environment", "default"


class Settings(BaseSettings):
    """See `read_settings`; every duration is in seconds."""

    model_config = SettingsConfigDict(populate_by_name=True, hide_input_in_errors=True)

    redis_url: str = Field("redis://127.0.0.1:6379/0", validation_alias="REDIS_URL", repr=False)
    mongo_uri: str = Field("mongodb://127.0.0.1:27017", validation_alias="MONGO_URI", repr=False)
    mappings_text: Annotated[str | dict[str, MappingTable], NoDecode] = Field(
        "todos=test.todos:id", validation_alias="MAPPINGS"
    )
    """As text, or as tables of the configuration file."""
    engine: Literal["auto", "gears1", "gears2", "function"] = Field("auto", validation_alias="WT_ENGINE")
    tokens: SecretStr = Field(SecretStr(""), validation_alias="WT_TOKENS")
    """Bearer tokens that the API takes: `scope+scope:token`, comma separated."""
    tokens_file: str = Field("", validation_alias="WT_TOKENS_FILE")
    """A file with more of them, one a line."""
    cors_origins: str = Field("", validation_alias="WT_CORS_ORIGINS")
    """Origins whose pages may use the API in browsers, comma separated, or `*`."""
    commit_timeout: float = Field(5.0, gt=0, validation_alias="WT_COMMIT_TIMEOUT")
    """How long a write waits for MongoDB's confirmation unless the request says otherwise."""
    redis_timeout: float = Field(3.0, ge=1, validation_alias="WT_REDIS_TIMEOUT")
    """Deadline of every command to Redis; the committer waits for entries half a second at a time."""
    mongo_timeout: float = Field(10.0, gt=0, validation_alias="WT_MONGO_TIMEOUT")
    """Deadline of every operation on MongoDB, the build of an index aside."""
    backlog_limit: int = Field(100_000, ge=1, validation_alias="WT_BACKLOG_LIMIT")
    """Uncommitted entries on a sync stream above which the API takes no more writes."""
    batch_size: int = Field(500, ge=1, validation_alias="WT_BATCH_SIZE")
    """Most documents in one commit."""
    lease_ttl: float = Field(5.0, ge=1, validation_alias="WT_LEASE_TTL")
    """How long a committer that stopped renewing its lease keeps a standby waiting."""
    hold: str = Field("all", validation_alias="WT_HOLD")
    """Whose plain clients are answered when MongoDB has their write (RedisGears 1.x): `all`, `none` or prefixes."""
    hold_timeout: float = Field(5.0, gt=0, validation_alias="WT_HOLD_TIMEOUT")
    """How long such a client is kept waiting before it is told that its write is not confirmed."""
    audit_rate: float = Field(0.0, ge=0, validation_alias="WT_AUDIT_RATE")
    """Most documents per second that an audit reads; 0 for no limit."""
    audit_interval: float = Field(3600.0, gt=0, validation_alias="WT_AUDIT_INTERVAL")
    """Seconds between sweeps of the reconciler when nothing else asks for one."""
    cold: Literal["keep", "delete"] = Field("keep", validation_alias="WT_COLD")
    """What sweeps and `audit --repair` do with documents that Redis doesn't hold, though no delete is known."""
    rewind: Literal["restore", "report"] = Field("restore", validation_alias="WT_REWIND")
    """What is done when Redis has forgotten what was committed: give it back, or wait for somebody to decide."""
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", validation_alias="WT_LOG_LEVEL")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Where they come from; the first that has one wins."""
        return init_settings, env_settings, ConfigFile(settings_cls)

    @field_validator("mappings_text")
    @classmethod
    def _mappings_parse(cls, given: str | dict[str, MappingTable]) -> str | dict[str, MappingTable]:
        _parse(given)
        return given

    @cached_property
    def mappings(self) -> tuple[Mapping, ...]:
        """The parsed `MAPPINGS`."""
        return tuple(replace(mapping, hold=self._hold(mapping)) for mapping in _parse(self.mappings_text))

    def _hold(self, mapping: Mapping) -> float:
        held = self.hold == "all" or mapping.prefix in (prefix.strip() for prefix in self.hold.split(","))
        if isinstance(self.mappings_text, dict) and not in_environment("WT_HOLD"):
            told = self.mappings_text[mapping.prefix].hold
            held = held if told is None else told
        return self.hold_timeout if held else 0.0


def read_settings() -> Settings:
    """The settings of this process; variables that may have been meant as one are named on stderr.

    Raises:
        ConfigError: one can't be used; in one line, each with what is wrong.
    """
    for name, close in unknown_variables(Settings, os.environ).items():
        sys.stderr.write(f"warning: {name} is no setting, and changes nothing{close}\n")
    try:
        return Settings()
    except ValidationError as error:
        raise ConfigError("; ".join(dict.fromkeys(_complaints(error.errors())))) from None


def forget_unknown_variables() -> None:
    """Take those of which `read_settings` warns out of the environment of this process, and of those it starts."""
    for name in unknown_variables(Settings, os.environ):
        del os.environ[name]


def source_of(variable: str) -> str:
    """Where a setting comes from: `environment`, the name of the configuration file, or `default`."""
    if in_environment(variable):
        return _ENVIRONMENT
    return str(config_path()) if variable in ConfigFile(Settings).toml_data else _DEFAULT


def in_environment(variable: str) -> bool:
    """Whether the environment has it; names count in any case, as pydantic-settings has it."""
    return any(name.upper() == variable for name in os.environ)


def _complaints(errors: Sequence[Any]) -> Iterator[str]:
    """What pydantic found wrong with settings, each named by its variable."""
    for error in errors:
        variable, *within = (str(part) for part in error["loc"] if part not in _BRANCHES)
        if error["type"] == "string_type" and not within and len(errors) > 1:
            continue  # it is no text, but tables, in which something else is wrong
        where = ".".join((variable, *within))
        what = _PLAIN.get(error["type"]) or error["msg"].removeprefix("Value error, ").removeprefix(f"{variable}: ")
        source = source_of(variable)
        yield f"{where}: {what}" if source in (_ENVIRONMENT, _DEFAULT) else f"{where}: {what} (in {source})"


def _parse(given: str | dict[str, MappingTable]) -> tuple[Mapping, ...]:
    if isinstance(given, str):
        return parse_mappings(given)
    return check_mappings(table.mapping(prefix) for prefix, table in given.items())
