"""Alerts and dashboard: they use metrics that are there, and alerts come true by their causes."""

import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic
from typing import Any

import anyio
import httpx
import pytest
import pytest_asyncio
import yaml
from prometheus_client.parser import text_string_to_metric_families

from gears.engines import open_engine
from gears.progress.backlog import read_backlog
from service.embedded.children.child import Child
from service.embedded.ports_and_folder import LOOPBACK
from tests.audit.test_audit import audit
from tests.support.stack import Process, Stack, eventually, free_port

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "docker" / "monitoring"
DOCS = (ROOT / "docs" / "monitor.md").read_text()
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "grafana/dashboards/writethrough.json").read_text())
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
PANELS = [panel for panel in DASHBOARD["panels"] if "targets" in panel]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]

TOKEN = "a-token-for-monitoring"

BUSY = {"WritethroughMongoSlow"}
"""What is true where tests have to share a slow machine."""

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="needs prometheus and promtool: apt-get install prometheus",
)


def used(expression: str) -> set[str]:
    """The metrics of ours that an expression names."""
    return set(re.findall(r"\bwritethrough_\w+", expression))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert {"summary", "description", "runbook"} == rule["annotations"].keys()
    row = re.search(rf"^\| `{rule['alert']}` \| (\w+) \| .+ \| (.*?) ?\|$", DOCS, re.M)
    assert row is not None, "docs/monitor.md doesn't have it"
    assert row[1] == rule["labels"]["severity"]
    assert row[2].replace(" ", "") == rule.get("for", "")
    assert f'"{rule["alert"]}"' in (MONITORING / "alerts.test.yml").read_text(), "promtool doesn't test it"


async def test_alerts_and_dashboard_use_metrics_that_are_there(api: httpx.AsyncClient) -> None:
    families = list(text_string_to_metric_families((await api.get("/metrics")).text))
    ours = [family for family in families if family.name.startswith("writethrough_")]
    suffixes = {"counter": ["_total"], "histogram": ["", "_bucket", "_count", "_sum"]}
    exported = {family.name + suffix for family in ours for suffix in suffixes.get(family.type, [""])}
    for expression in [rule["expr"] for rule in RULES] + QUERIES:
        assert used(expression) <= exported
    when_made = {name for name in exported if name.endswith("_created")}
    parts = {name for name in exported if name.endswith(("_bucket", "_count", "_sum"))}
    assert set(re.findall(r"`(writethrough_\w+)`", DOCS)) == exported - when_made - parts


def test_the_dashboard_uses_the_data_source_that_is_provisioned() -> None:
    [source] = yaml.safe_load((MONITORING / "grafana/datasources/prometheus.yml").read_text())["datasources"]
    assert {panel["datasource"]["uid"] for panel in PANELS} == {source["uid"]}
    assert {target["datasource"]["uid"] for panel in PANELS for target in panel["targets"]} == {source["uid"]}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert all(panel["description"] for panel in PANELS)


@needs_prometheus
@pytest.mark.parametrize(
    "command", ["check config --syntax-only prometheus.yml", "check rules alerts.yml", "test rules alerts.test.yml"]
)
def test_promtool_finds_nothing_wrong(command: str) -> None:
    ended = subprocess.run(["promtool", *command.split()], cwd=MONITORING, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stdout + ended.stderr


class Prometheus:
    """One that scrapes an API every two seconds, with our rules.

    Args:
        stack: whose API.
    """

    def __init__(self, stack: Stack) -> None:
        config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "500ms"}
        config["rule_files"] = [str(MONITORING / "alerts.yml")]
        [job] = config["scrape_configs"]
        job["static_configs"] = [{"targets": [f"{LOOPBACK}:{stack.setup.port}"]}]
        folder = stack.folder / "prometheus"
        folder.mkdir()
        (folder / "token").write_text(TOKEN)
        job["authorization"]["credentials_file"] = str(folder / "token")
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        address = f"{LOOPBACK}:{free_port()}"
        self._client = httpx.AsyncClient(base_url=f"http://{address}", timeout=10)
        options = (f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data")
        command = ("prometheus", *options, f"--web.listen-address={address}", "--log.level=warn")
        self.process = Process(Child(name="prometheus", command=command), stack.folder, {}, self._ready)

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """What an expression gives now."""
        answer = (await self._client.get("/api/v1/query", params={"query": expression})).json()
        assert answer["status"] == "success", answer
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    async def shows(self, *alerts: str) -> None:
        """Wait until the conditions of these alerts are true, and of no others but those of a busy machine."""
        wanted, deadline = {f"Writethrough{alert}" for alert in alerts}, monotonic() + 30
        while not wanted <= (shown := await self._shown()) <= wanted | BUSY:
            assert monotonic() < deadline, f"shown {sorted(shown)}, not {sorted(wanted)}"
            await anyio.sleep(0.1)

    async def _shown(self) -> set[str]:
        found = (await self._client.get("/api/v1/alerts")).json()["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in found}

    async def close(self) -> None:
        """End it."""
        await self._client.aclose()
        if self.process.running:
            await self.process.kill()

    async def _ready(self) -> bool:
        try:
            return (await self._client.get("/-/ready")).is_success
        except httpx.TransportError:
            return False


@pytest_asyncio.fixture(loop_scope="session")
async def watched(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Stack, Prometheus]]:
    """A whole system, and a Prometheus that watches it."""
    stack = Stack(
        tmp_path_factory.mktemp("watched"),
        WT_LEASE_TTL="1.5",
        WT_REDIS_TIMEOUT="2",
        WT_MONGO_TIMEOUT="30",
        WT_BACKLOG_LIMIT="20",
        WT_TOKENS=f"write+admin:{TOKEN}",
    )
    stack.client.headers["Authorization"] = f"Bearer {TOKEN}"
    prometheus = Prometheus(stack)
    try:
        await stack.start()
        await prometheus.process.start()
        yield stack, prometheus
    finally:
        await prometheus.close()
        await stack.close()


@needs_prometheus
async def test_alerts_come_true_by_their_causes_and_only_then(watched: tuple[Stack, Prometheus]) -> None:
    """What tells of the last minutes stays true: dead letters, what was given back (both in MongoDB), rates."""
    stack, prometheus = watched
    assert (await stack.client.put("/todos/a", json={"name": "a"})).status_code == 201
    await prometheus.shows()

    await stack.worker.stop()
    engine = await open_engine(stack.redis_client, stack.settings.mappings[0], "auto")
    await engine.remove()
    await prometheus.shows("WorkerAway", "ReconcilerAway", "CaptureMissing", "NotReady")
    await stack.redis_client.flushall()
    await stack.worker.start()
    await prometheus.shows("GaveBack")

    await stack.set("refused", {"n": 2**63})
    await stack.todos.delete_one({"id": "a"})
    assert (await audit(stack))[0] == 1
    await prometheus.shows("Drift", "DeadLetters", "GaveBack")
    assert (await audit(stack, "--repair"))[0] == 0
    await prometheus.shows("DeadLetters", "GaveBack")

    stack.mongo.freeze()
    await stack.set("slow", {}, prefix="notes")
    await eventually(lambda: held_up(stack))
    stack.mongo.thaw()
    await prometheus.shows("MongoSlow", "DeadLetters", "GaveBack")

    stack.mongo.freeze()
    for n in range(15):
        await stack.set(f"waits-{n}", {"n": n})
    assert (await stack.client.put("/todos/b", json={"name": "b"})).status_code == 504
    await prometheus.shows("MongoAway", "CommitsHeldUp", "Lag", "Backlog", "NotReady", "Errors", "MongoSlow")
    stack.mongo.thaw()
    await prometheus.shows("MongoSlow", "Errors", "DeadLetters", "GaveBack")
    for query in QUERIES:
        assert await prometheus.query(query.replace("$mapping", ".*").replace("$__rate_interval", "2m")), query

    stack.redis.freeze()
    await prometheus.shows("RedisAway", "NotReady", "MongoSlow", "Errors", "DeadLetters", "GaveBack")
    await stack.api.kill()
    await prometheus.shows("ApiDown", "MongoSlow", "Errors")


async def held_up(stack: Stack) -> bool:
    """Whether MongoDB has not done a batch of the mapping `notes` for two seconds."""
    worker = (await read_backlog(stack.redis_client, stack.settings.mappings[1])).worker
    return worker is not None and worker.state == "retrying"
