"""What the README shows is what happens."""

import argparse
import re
import shlex
import sys
import tomllib
from pathlib import Path

import httpx
import pytest
from anyio import run_process

from gears.process.settings import Settings
from tests.support.stack import Stack

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def section(title: str) -> str:
    """The text of a section, those below it included."""
    match = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,2}} |\Z)", README, re.M | re.S)
    assert match is not None, f"the README has no section {title!r}"
    return match[2]


async def test_the_commands_over_http_work(api: httpx.AsyncClient) -> None:
    commands = re.findall(r"^    (curl .*)$", section("See it work"), re.M)
    assert len(commands) == 2
    for command in commands:
        curl = argparse.ArgumentParser()
        curl.add_argument("-i", action="store_true")
        curl.add_argument("-X", default="GET")
        curl.add_argument("-H", action="append", default=[])
        curl.add_argument("-d")
        curl.add_argument("url")
        asked = curl.parse_args(shlex.split(command)[1:])
        headers = dict(header.split(": ", 1) for header in asked.H)
        path = asked.url.removeprefix("localhost:8000")
        answer = await api.request(asked.X, path, headers=headers, content=asked.d)
        assert answer.status_code in (200, 201)
        assert answer.json() == {"id": "1", "name": "write the README"}


WAIT = """
import time

def shows(find, there):
    end = time.time() + 5
    while bool(find()) != there:
        assert time.time() < end, "not shown"
"""


async def test_the_python_example_says_what_it_shows(stack: Stack) -> None:
    [example] = re.findall(r"^```python\n(.*?)^```", section("See it work"), re.M | re.S)
    example = example.replace("redis.Redis()", f"redis.Redis(port={stack.setup.redis_port})")
    example = example.replace("MongoClient()", f"MongoClient(port={stack.setup.mongo_port})")
    shown = re.findall(r"(?m)^(todos\.find_one\(.*\))  # (.*)$", example)
    assert [comment for _, comment in shown] == ["there, within milliseconds", "None"]
    for (call, comment), there in zip(shown, (True, False), strict=True):
        example = example.replace(f"{call}  # {comment}", f"shows(lambda: {call}, {there})")
    await run_process([sys.executable, "-c", WAIT + example], stderr=None)


@pytest.mark.parametrize("name", sorted(str(field.validation_alias) for field in Settings.model_fields.values()))
def test_every_setting_is_in_the_readme_with_its_default(name: str) -> None:
    row = re.search(rf"^\| `{name}` \| (.*?) \|", README, re.M)
    assert row is not None, f"{name} is missing"
    default = next(f.default for f in Settings.model_fields.values() if f.validation_alias == name)
    shown = row[1].strip("`")
    assert shown == (f"{default:g}" if isinstance(default, float) else str(default))


PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_into_the_project_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert links
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_changelog_begins_with_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    versions = re.findall(r"^## (\S+), ", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert versions[0] == version
