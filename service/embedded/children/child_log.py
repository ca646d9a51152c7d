"""The log file of one start of a process: appended to, and quoted when the start fails."""

from pathlib import Path

_TAIL_LINES = 15
_TAIL_BYTES = 16_384


class Log:
    """A log file and where this start's part of it begins.

    Args:
        path: the file; None when the output goes to the terminal.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._begin = path.stat().st_size if path is not None and path.exists() else 0

    def end(self) -> str:
        """Its last lines, introduced by where they are from."""
        if self.path is None:
            return "Its output is above."
        with self.path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(min(self._begin, size), size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()[-_TAIL_LINES:]
        if not lines:
            return f"It wrote nothing to {self.path}."
        return "\n".join([f"The end of {self.path}:", *(f"    {line}" for line in lines)])
