"""The configuration of every process, from the environment."""

from dataclasses import replace
from functools import cached_property
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from gears.mapping import Mapping, parse_mappings


class Settings(BaseSettings):
    """Read from the environment; every duration is in seconds."""

    model_config = SettingsConfigDict(populate_by_name=True, hide_input_in_errors=True)

    redis_url: str = Field("redis://127.0.0.1:6379/0", validation_alias="REDIS_URL", repr=False)
    mongo_uri: str = Field("mongodb://127.0.0.1:27017", validation_alias="MONGO_URI", repr=False)
    mappings_text: str = Field("todos=test.todos:id", validation_alias="MAPPINGS")
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

    @field_validator("mappings_text")
    @classmethod
    def _mappings_parse(cls, text: str) -> str:
        parse_mappings(text)
        return text

    @cached_property
    def mappings(self) -> tuple[Mapping, ...]:
        """The parsed `MAPPINGS`."""
        return tuple(replace(mapping, hold=self._hold(mapping)) for mapping in parse_mappings(self.mappings_text))

    def _hold(self, mapping: Mapping) -> float:
        held = self.hold == "all" or mapping.prefix in (prefix.strip() for prefix in self.hold.split(","))
        return self.hold_timeout if held else 0.0
