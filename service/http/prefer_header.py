"""How long a writer wants to wait: the `Prefer` header (RFC 7240)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

MAX_WAIT = 600
"""Most seconds that a request may wait for MongoDB's confirmation."""

_PREFERENCE = re.compile(
    r'\s*(?P<name>[\w!#$%&\'*+.^`|~-]+)\s*(?:=\s*(?:"(?P<quoted>[^"]*)"|(?P<plain>[^;,\s]*)))?\s*(?:;(?:[^",]|"[^"]*")*)?'
)


@dataclass(frozen=True, slots=True)
class Preferences:
    """What a writer prefers.

    Args:
        wait: seconds to wait for the confirmation; None for the service's own default.
        respond_async: answer 202 instead of waiting longer than that (not at all without `wait`).
    """

    wait: int | None = None
    respond_async: bool = False

    def applied(self, *, accepted: bool) -> dict[str, str]:
        """The `Preference-Applied` header, if any.

        Args:
            accepted: whether the answer is a 202.
        """
        applied = ["respond-async"] if accepted else []
        if self.wait is not None:
            applied.append(f"wait={self.wait}")
        return {"Preference-Applied": ", ".join(applied)} if applied else {}


def preferences_of(lines: Iterable[str]) -> Preferences:
    """Parse `Prefer` headers; unknown and unusable preferences are ignored, the first of a name counts."""
    found: dict[str, str] = {}
    for line in lines:
        for match in _PREFERENCE.finditer(line):
            found.setdefault(match["name"].lower(), match["quoted"] or match["plain"] or "")
    wait = found.get("wait", "")
    seconds = min(int(wait), MAX_WAIT) if wait.isascii() and wait.isdigit() and len(wait) < 10 else None
    return Preferences(seconds, "respond-async" in found)
