"""`writethrough config`: which settings are in force, and where they come from."""

import json
import re
import sys

from pydantic import SecretStr

from gears.cli.command_line import failing_plainly, while_read
from gears.cli.recipe_command import JsonOption
from gears.contract.mapping import Mapping
from gears.process.config_file import variables
from gears.process.settings import Settings, read_settings, source_of

_HIDDEN = "***"
_OPTION = re.compile(r"([?&][^=&]*password[^=&]*=)[^&]*", re.IGNORECASE)
_BEFORE_HOST = re.compile(r"(://[^:/@]*:).*(@)")
"""Where a password is in a URL."""


def config(as_json: JsonOption = False) -> None:
    """Show what is in force and where it comes from: environment, configuration file or default. Secrets are hidden."""
    with failing_plainly():
        settings = read_settings()
    with while_read():
        for variable in variables(Settings):
            shown, source = _shown(settings, variable), source_of(variable)
            report = {"setting": variable, "value": shown, "source": source}
            sys.stdout.write((json.dumps(report) if as_json else f"{variable}={shown}  ({source})") + "\n")


def _shown(settings: Settings, variable: str) -> str:
    if variable == "MAPPINGS":
        return ", ".join(map(_written, settings.mappings))
    name = next(name for name, field in Settings.model_fields.items() if field.validation_alias == variable)
    value = getattr(settings, name)
    if isinstance(value, SecretStr):
        return _HIDDEN if value.get_secret_value() else ""
    return hide_password(str(value)) if variable in ("REDIS_URL", "MONGO_URI") else str(value)


def hide_password(url: str) -> str:
    """A URL without the password in it."""
    return _BEFORE_HOST.sub(rf"\1{_HIDDEN}\2", _OPTION.sub(rf"\1{_HIDDEN}", url))


def _written(mapping: Mapping) -> str:
    model = f":{mapping.model}" if mapping.model else ""
    return f"{mapping.prefix}={mapping.namespace}:{mapping.id_field}/{mapping.id_type_name}{model}"
