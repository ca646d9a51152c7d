"""RedisGears 1.x: the recipe's own logic, without it."""

import ast
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest
from redis.asyncio import Redis

from gears.contract.mapping import Mapping
from gears.contract.redis_names import Names
from gears.engines.gears1 import RECIPE, Gears1
from gears.engines.recipe_calls import recipe
from tests.support.stack import eventually

TEXT = "".join(map(recipe, RECIPE))
NAMES = Names("todos")
LIFE, MEMORY = "l1", "0123456789abcdef0123456789abcdef01234567"


class FakeFuture:
    """Remembers how it was continued."""

    def __init__(self) -> None:
        self.reply: object = None

    def continueRun(self, reply: object) -> None:
        self.reply = reply


class FakeGears:
    """Stands in for RedisGears while the recipe is loaded: nothing is registered."""

    def __init__(self, **replies: object) -> None:
        self.replies = {"HKEYS": [], "LRANGE": []} | replies
        self.sent: list[Any] = []

    def execute(self, *command: object) -> object:
        self.sent.append(command)
        return self.replies.get(" ".join(map(str, command[:2])), self.replies.get(str(command[0])))

    def load(self) -> SimpleNamespace:
        config = {"version": "v", "queued": []}
        names: dict[str, Any] = {"CONFIG": config, "execute": self.execute, "isAsyncAllow": lambda: True}
        exec(compile(TEXT, "gears1", "exec"), names)
        names["CONFIG"].update(Gears1(Redis(), Mapping("todos", "test", "todos", hold=0.2))._config, version=id(self))
        return SimpleNamespace(**names)


@pytest.fixture
def gears() -> FakeGears:
    """RedisGears, on a master with memory left."""
    info = f"run_id:0123456789abcdef\r\nmaster_replid:{MEMORY}\r\nmaxmemory_policy:noeviction\r\nmaxmemory:0\r\n"
    gears = FakeGears(ROLE=["master"], INFO=info, TIME=["1700000000", "0"], PTTL=-1)
    gears.replies[f"GET {NAMES.life}"] = f"{LIFE} {MEMORY}"
    return gears


def test_the_recipe_is_python_3_7() -> None:
    for name in RECIPE:
        ast.parse(recipe(name), feature_version=(3, 7))


def test_the_recipe_is_sent_with_its_configuration_first() -> None:
    engine = Gears1(Redis(), Mapping("todos", "test", "todos", hold=5))
    assert engine._config["hold_seconds"] == 5
    assert "json.set" in engine._config["hold"]
    unheld = Gears1(Redis(), Mapping("todos", "test", "todos"))
    assert unheld._config["hold"] == []
    assert unheld._config["version"] != engine._config["version"]


@pytest.mark.parametrize(
    ("reply", "passed_on"),
    [("OK", "+OK"), (3, 3), ("-5", b"-5"), ("+x", b"+x"), ("ä", "ä".encode()), (bytearray(b"\xff"), b"\xff")],
)
def test_a_reply_is_passed_on_as_it_was(gears: FakeGears, reply: object, passed_on: object) -> None:
    assert gears.load().relay(reply) == passed_on


def test_a_reply_that_cant_be_passed_on_becomes_an_error(gears: FakeGears) -> None:
    assert gears.load().relay(None).startswith("-ERR writethrough: nothing was written")


def test_capture_adds_an_entry_and_the_mark_of_a_delete(gears: FakeGears) -> None:
    gears.replies |= {"XADD": "7-1", "EXISTS": 0, "TYPE": "ReJSON-RL"}
    loaded = gears.load()
    loaded.capture({"key": "todos:a:b", "event": "del"})
    assert ("XADD", NAMES.stream, "*", "k", "todos:a:b", "e", "del", "l", LIFE) in gears.sent
    assert ("DEL", NAMES.ticket + "a:b") in gears.sent
    assert gears.sent[-1] == ("SET", NAMES.gone + "a:b", "7-1")
    loaded.capture({"key": bytearray(b"todos:\xff"), "event": "del"})
    assert gears.sent[-1] == ("SET", NAMES.gone.encode() + b"\xff", "7-1")


@pytest.mark.parametrize("kept", [None, f"{LIFE} another"])
def test_a_life_that_is_kept_with_another_memory_is_over(gears: FakeGears, kept: str | None) -> None:
    gears.replies |= {f"GET {NAMES.life}": kept, "TIME": ["1700000000", "5"]}
    life = gears.load().present_life()
    assert life == f"01234567{1_700_000_000_000_005:013x}{NAMES.tag}"
    assert gears.sent[-1] == ("SET", NAMES.life, f"{life} {MEMORY}")


def test_a_key_with_a_time_to_live_is_captured_with_its_document(gears: FakeGears) -> None:
    gears.replies |= {"XADD": "7-1", "EXISTS": 1, "TYPE": "ReJSON-RL", "PTTL": 500, "JSON.GET": '{"n":1}', "XLEN": 1}
    loaded = gears.load()
    kept = ("XADD", NAMES.stream, "*", "k", "todos:1", "e", "expire", "l", LIFE, "d", '{"n":1}')
    loaded.capture({"key": "todos:1", "event": "json.set"})
    assert gears.sent[-1] == kept
    gears.sent.clear()
    loaded.capture({"key": "todos:1", "event": "expire"})
    assert [command for command in gears.sent if command[0] == "XADD"] == [kept]
    gears.sent.clear()
    gears.replies |= {"XLEN": 0, "HGETALL": {}}
    loaded.capture({"key": "todos:1", "event": "expire"})
    assert not [command for command in gears.sent if command[0] == "XADD"], "nothing waits"


def test_capture_passes_over_what_is_no_document(gears: FakeGears) -> None:
    gears.replies |= {"TYPE": "string"}
    gears.load().capture({"key": "todos:1", "event": "rename_to"})
    assert gears.sent == [("TYPE", "todos:1")]


def test_release_lets_go_up_to_the_watermark_and_tells_the_refused(gears: FakeGears) -> None:
    loaded = gears.load()
    committed, refused, waiting, aside = FakeFuture(), FakeFuture(), FakeFuture(), FakeFuture()
    held = [
        loaded.Held(LIFE, (4, 0), ["4-0"], 0, aside, "+OK"),
        loaded.Held(LIFE, (5, 0), ["5-0"], 0, committed, "+OK"),
        loaded.Held(LIFE, (6, 1), ["6-0", "6-1"], 0, refused, "+OK"),
        loaded.Held(LIFE, (7, 0), ["7-0"], 0, waiting, "+OK"),
    ]
    loaded.shared().held = deque(held)
    gears.replies |= {
        f"GET {NAMES.acked}": f"5 {LIFE}.6-1",
        "ZRANGEBYSCORE": [f"{LIFE}.6-0 too\nlarge"],
        "HKEYS": [f"{LIFE}.4-0", f"{LIFE}.3-0"],
    }
    assert loaded.release() == 2
    assert aside.reply is None
    assert committed.reply == "+OK"
    assert refused.reply == "-ERR writethrough: refused: too large"
    assert waiting.reply is None


def test_release_tells_what_redis_may_have_lost(gears: FakeGears) -> None:
    loaded = gears.load()
    lost, after, refused = FakeFuture(), FakeFuture(), FakeFuture()
    held = [
        loaded.Held("before", (7, 1), ["7-1"], 0, lost, "+OK"),
        loaded.Held(LIFE, (5, 0), ["5-0"], 0, after, "+OK"),
        loaded.Held("before", (6, 0), ["6-0"], 0, refused, "+OK"),
    ]
    loaded.shared().held = deque(held)
    gears.replies |= {f"GET {NAMES.acked}": f"5 {LIFE}.9-1", "ZRANGEBYSCORE": ["before.6-0 too large"]}
    assert loaded.release() == 3
    assert ("ZRANGEBYSCORE", NAMES.refused, 5, 7) in gears.sent
    assert after.reply == "+OK"
    assert refused.reply == "-ERR writethrough: refused: too large"
    assert str(lost.reply).startswith("-ERR writethrough: not confirmed, Redis was emptied")


async def test_time_is_up_without_any_worker(gears: FakeGears) -> None:
    futures: list[FakeFuture] = []

    def future() -> FakeFuture:
        futures.append(FakeFuture())
        return futures[-1]

    loaded = gears.load()
    hold = loaded.holder("json.set")
    hold.__globals__.update(gearsFuture=future, call_next=lambda *_: loaded.shared().entries.append("5-0") or "OK")
    assert hold(["JSON.SET", "todos:1", "$", "1"]) is futures[0]

    async def is_answered() -> bool:
        return futures[0].reply is not None

    await eventually(is_answered, within=2)
    assert str(futures[0].reply).startswith("-ERR writethrough: not confirmed within 0.2 s")
    assert not loaded.shared().held


async def test_time_is_up_also_for_who_was_held_by_a_session_that_is_gone(gears: FakeGears) -> None:
    loaded, future = gears.load(), FakeFuture()
    state = loaded.shared()
    state.held.append(loaded.Held(LIFE, (5, 0), ["5-0"], 0, future, "+OK"))
    state.watched = True
    names = loaded.watch.__globals__
    del names["TICK"]
    loaded.watch()
    assert future.reply is None
    names["TICK"] = 0.01
    assert loaded.release() == 0

    async def is_answered() -> bool:
        return future.reply is not None

    await eventually(is_answered, within=2)
    assert str(future.reply).startswith("-ERR writethrough: not confirmed within 0.2 s")


def test_nobody_writes_to_a_replica_or_without_memory(gears: FakeGears) -> None:
    gears.replies |= {"ROLE": ["slave"]}
    assert gears.load().holder("del")(["DEL", "todos:1"]).startswith("-READONLY")
    full = "maxmemory_policy:noeviction\r\nmaxmemory:1\r\nused_memory:2"
    loaded = FakeGears(ROLE=["master"], INFO=full).load()
    assert loaded.holder("json.set")(["JSON.SET", "todos:1", "$", "1"]).startswith("-OOM")
    assert loaded.prevented(allow_oom=True) is None
