"""What the README and the docs show is what happens."""

import json
import os
import re
import sys
import tomllib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
import pytest_asyncio
import yaml
from typer.core import TyperGroup
from typer.main import get_command

from gears.contract.redis_names import Names
from gears.process.settings import Settings
from service.embedded import server_commands as servers
from tests.support.shown import PAGES, ROOT, Command, File, blocks, same, steps
from tests.support.stack import Process, Stack, eventually
from writethrough.__main__ import app

README = (ROOT / "README.md").read_text()
DOCS = ROOT / "docs"


def section(title: str) -> str:
    """The text of a section of the README, those below it included."""
    match = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,2}} |\Z)", README, re.M | re.S)
    assert match is not None, f"the README has no section {title!r}"
    return match[2]


def lines(text: str, word: str) -> list[str]:
    """The commands in indented blocks that begin with this word."""
    return [line.split("  #")[0].strip() for line in re.findall(rf"^    ({word} .*)$", text, re.M)]


class Reader:
    """Somebody who saves and pastes what a page shows, in a folder of their own, with the ports of this stack.

    Args:
        stack: what runs.
        folder: where files are saved and commands run.
    """

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.stack = stack
        self.folder = folder
        self.waits = True
        """Whether MongoDB is to have what was written before the next command."""

    def save(self, name: str, text: str) -> None:
        """Save a file."""
        (self.folder / name).write_text(self._fitted(text))

    async def paste(self, line: str) -> str:
        """Run a command; returns what it prints."""
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        env = os.environ | self.stack.env | {"PATH": path, "MAPPINGS": "todos=test.todos:id"}
        command = ["sh", "-c", self._fitted(line)]
        return (await anyio.run_process(command, env=env, cwd=self.folder, stderr=None)).stdout.decode()

    def _fitted(self, text: str) -> str:
        setup = self.stack.setup
        text = text.replace("localhost:8000", f"127.0.0.1:{setup.port}")
        text = text.replace("redis.Redis()", f"redis.Redis(port={setup.redis_port})")
        return text.replace("MongoClient()", f"MongoClient(port={setup.mongo_port})")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def reader(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Reader]:
    """One who has followed the README, the model of their own included."""
    folder = tmp_path_factory.mktemp("reader")
    [model] = blocks(section("Your own model"), "python")
    (folder / "models.py").write_text(model)
    [mappings] = re.findall(r"export MAPPINGS='(.*)'", section("Your own model"))
    stack = Stack(tmp_path_factory.mktemp("shown"), MAPPINGS=mappings)
    child = servers.api(stack.setup)
    stack.api = Process(replace(child, command=("env", "-C", str(folder), *child.command)), stack.folder, stack.env)
    try:
        await stack.start()
        yield Reader(stack, folder)
    finally:
        await stack.close()


async def test_the_commands_over_http_work(reader: Reader) -> None:
    put, get = lines(section("See it work"), "curl")
    for command, statuses in ((put, ("200", "201")), (get, ("200",))):
        head, _, body = (await reader.paste(command)).partition("\r\n\r\n")
        assert head.split()[1] in statuses
        assert json.loads(body) == {"id": "1", "name": "write the README"}


async def test_the_python_example_prints_what_it_says(reader: Reader) -> None:
    [example] = blocks(section("See it work"), "python")
    [first, second] = re.findall(r"^It prints `(.*)` and `(.*)`", section("See it work"), re.M)[0]
    reader.save("try.py", example)
    assert await reader.paste("python try.py") == f"{first}\n{second}\n"


async def test_the_model_refuses_what_the_readme_says_it_refuses(reader: Reader) -> None:
    [put] = lines(section("Your own model"), "curl")
    [shown] = re.findall(r"`(\{\"field.*\})`", section("Your own model"))
    problem = json.loads(await reader.paste(put))
    assert (problem["status"], problem["errors"]) == (422, [json.loads(shown)])
    book = json.loads(await reader.paste(put.replace('"310"', "310")))
    assert book == {"isbn": "9780261103573", "title": "Hobbit", "pages": 310}


async def test_only_a_validator_checks_plain_clients(reader: Reader) -> None:
    books = reader.stack.mongo_client.test.books
    await reader.stack.set("unchecked", {"pages": "310"}, prefix="books")
    await reader.stack.drained("books")
    assert (await books.find_one({"isbn": "unchecked"}) or {})["pages"] == "310"
    [validator] = blocks((DOCS / "documents.md").read_text(), "js")
    command = validator.strip().removeprefix("db.runCommand(").removesuffix(")")
    await books.database.command(json.loads(re.sub(r"(\$?\w+)(?=: )", r'"\1"', command)))
    await reader.stack.set("checked", {"title": "Hobbit", "pages": "310"}, prefix="books")
    await reader.stack.drained("books")
    assert await reader.stack.get("checked", prefix="books") is None
    assert await reader.stack.mongo_client.test.sync_dead_letters.find_one({"key": "books:checked"}) is not None


@pytest.mark.parametrize("page", ["tutorial.md", "documents.md", "http.md"])
async def test_a_page_shows_what_its_commands_print(page: str, reader: Reader) -> None:
    for found in await reader.stack.todos.find().to_list():
        await reader.stack.redis_client.delete(f"todos:{found['id']}")
    await reader.stack.drained()
    try:
        for step in steps((DOCS / page).read_text()):
            await follow(step, reader)
    finally:
        reader.stack.mongo.thaw()


async def follow(step: File | Command, reader: Reader) -> None:
    """Do what a page says, and wait for what happens while a person reads on."""
    if isinstance(step, File):
        reader.save(step.name, step.text)
    elif step.line.startswith("pkill -STOP"):
        reader.stack.mongo.freeze()
        reader.waits = False
    elif step.line.startswith("pkill -CONT"):
        reader.stack.mongo.thaw()
        reader.waits = True
        await reader.stack.drained()
    else:
        assert same(await reader.paste(step.line)) == same(step.output), step.line
        if reader.waits:
            await settled(reader.stack, step)


async def settled(stack: Stack, step: Command) -> None:
    """Wait for what happens while a person reads on."""
    await stack.drained()
    if "flushall" in step.line:

        async def given_back() -> bool:
            return bool(await stack.redis_client.exists("todos:1", "todos:2") == 2)

        await eventually(given_back)


@pytest.mark.parametrize("name", sorted(str(field.validation_alias) for field in Settings.model_fields.values()))
def test_every_setting_is_in_the_docs_with_its_default(name: str) -> None:
    row = re.search(rf"^\| `{name}` \| (.*?) \|", (DOCS / "configuration.md").read_text(), re.M)
    assert row is not None, f"{name} is missing"
    default = next(f.default for f in Settings.model_fields.values() if f.validation_alias == name)
    shown = row[1].strip("`")
    assert shown == (f"{default:g}" if isinstance(default, float) else str(default))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_into_the_project_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert links
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_command_exists_with_its_options() -> None:
    texts = [page.read_text() for page in PAGES]
    shown = {
        line for text in texts for line in (*lines(text, "writethrough"), *re.findall(r"`(writethrough .*?)`", text))
    }
    assert len(shown) > 30
    for line in shown:
        words = re.sub(r"\\?\|\w+|[\[\]]|ID\.\.\.", " ", re.split(r" [|>] ", line)[0]).split()[1:]
        command = get_command(app)
        while isinstance(command, TyperGroup) and words and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        options = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= options, line
        assert not (isinstance(command, TyperGroup) and words and not words[0].startswith("-")), line


def test_the_keys_that_people_set_are_those_that_the_worker_reads() -> None:
    names = Names("todos")
    shown = {key for page in PAGES for key in re.findall(r"redis-cli SET '(.*?)'", page.read_text())}
    assert shown == {names.sweep, names.rewind}


def test_a_model_is_mounted_where_the_api_starts() -> None:
    [text] = blocks((DOCS / "configuration.md").read_text(), "yaml")
    [volume] = yaml.safe_load(text)["services"]["api"]["volumes"]
    workdirs = re.findall(r"^WORKDIR (.*)$", (ROOT / "docker" / "Dockerfile").read_text(), re.M)
    assert Path(volume.split(":")[1]).parent == Path(workdirs[-1])


def test_the_readme_fits_a_few_screens() -> None:
    assert len(README.splitlines()) <= 150


def test_the_changelog_begins_with_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    versions = re.findall(r"^## (\S+), ", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert versions[0] == version
