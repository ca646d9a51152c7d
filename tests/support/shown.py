"""What pages show: files to save, commands to paste, and what these print."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

_BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.M | re.S)
_VARIES = {
    r"\b[0-9a-z]{20,}\.\d+-\d+": "<token>",
    r"\bversion [0-9a-f]+": "version <n>",
    r"[\d,]+ events": "<n> events",
    r"in [\d.]+ s, [\d,]+/s": "in <n> s, <n>/s",
}


@dataclass(frozen=True, slots=True)
class File:
    """One that readers are to save."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Command:
    """One that readers are to paste, and what it prints."""

    line: str
    output: str


def blocks(text: str, language: str) -> list[str]:
    """The texts of the blocks in this language."""
    return [found for kind, _, found in _BLOCK.findall(text) if kind == language]


def steps(text: str) -> Iterator[File | Command]:
    """The named files and the commands of a page, in order."""
    for kind, name, found in _BLOCK.findall(text):
        if name:
            yield File(name, found)
        elif kind == "console":
            for line, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", found, re.M):
                yield Command(line, output)


def same(output: str) -> str:
    """The output without what is another one each time."""
    for pattern, word in _VARIES.items():
        output = re.sub(pattern, word, output)
    return output.rstrip()
