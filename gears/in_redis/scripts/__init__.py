"""The scripts that are sent to Redis, a file each, named by what they do."""

from importlib.resources import files


def script_text(name: str) -> str:
    """The text of a script, given the name of its file without the ending."""
    return files(__name__).joinpath(f"{name}.lua").read_text("utf-8")
