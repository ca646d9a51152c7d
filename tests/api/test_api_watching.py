"""What the service says of itself: probes, `/sync`, metrics."""

import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic_core import to_json

from gears.in_mongo.reports.audit_report import AuditReport
from service.watch.gather_state import Inspection, MappingState
from service.watch.metrics import Metrics
from service.watch.readiness import checks_of, is_ready
from tests.support.stack import Stack, eventually


async def test_probes_say_that_all_is_well(api: httpx.AsyncClient) -> None:
    assert (await api.get("/healthz")).json() == {"status": "ok"}
    ready = await api.get("/readyz")
    assert ready.status_code == 200
    assert set(ready.json()["checks"].values()) == {"ok"}
    assert {"redis", "mongo", "capture:todos", "worker:todos", "backlog:todos"} <= set(ready.json()["checks"])


async def test_sync_shows_how_far_each_mapping_is(stack: Stack, api: httpx.AsyncClient, new_id: str) -> None:
    token = (await api.put(f"/todos/{new_id}", json={"name": "x"})).headers["Sync-Token"]
    overview = (await api.get("/sync")).json()
    assert overview["errors"] == {}
    assert overview["warnings"] == []
    todos = overview["mappings"]["todos"]
    assert (todos["mapping"], todos["namespace"], todos["engine"]) == ("todos", "test.todos", "gears2")
    entry_id = token.rpartition(".")[2]
    assert (todos["last_entry"], todos["watermark"], todos["backlog"], todos["lag"]) == (entry_id, entry_id, 0, 0)
    assert todos["capture"]["working"] is True
    assert todos["worker"]["state"] == "committing"
    assert (await audited(api))["mapping"] == "todos"
    assert todos["reconciler"]["state"] == "listening"
    assert todos["rewinds"] == {"count": 0, "last": None}
    assert isinstance(todos["dead_letters"], int)
    assert todos["errors"] == {}


async def test_the_latest_audits_are_listed(api: httpx.AsyncClient) -> None:
    await audited(api)
    answer = await api.get("/sync/audits", params={"mapping": "todos", "limit": 100})
    reports = answer.json()["items"]
    assert {report["mapping"] for report in reports} == {"todos"}
    assert reports[-1]["because"] == "start"
    assert len((await api.get("/sync/audits", params={"limit": 1})).json()["items"]) == 1


async def test_a_dangerous_eviction_policy_is_a_warning(stack: Stack, api: httpx.AsyncClient) -> None:
    await stack.redis_client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        assert "allkeys-lru" in (await api.get("/sync")).json()["warnings"][0]
    finally:
        await stack.redis_client.config_set("maxmemory-policy", "noeviction")


async def test_metrics_count_requests_by_the_template_of_their_route(api: httpx.AsyncClient, new_id: str) -> None:
    async def count(method: str, route: str, status: str) -> float:
        return (await samples(api)).get(
            ("writethrough_requests_total", (("method", method), ("route", route), ("status", status))), 0
        )

    before = await count("PUT", "/notes/{id:any}", "201")
    unmatched = await count("GET", "unmatched", "404")
    await api.put(f"/notes/{new_id}/with/slashes", json={})
    await api.get(f"/{new_id}")
    assert await count("PUT", "/notes/{id:any}", "201") == before + 1
    assert await count("GET", "unmatched", "404") == unmatched + 1


async def test_metrics_count_problems_by_their_type(api: httpx.AsyncClient, new_id: str) -> None:
    missing = ("writethrough_problems_total", (("status", "404"), ("type", "not-found")))
    invalid = ("writethrough_problems_total", (("status", "422"), ("type", "invalid-document")))
    before = await samples(api)
    await api.get(f"/notes/{new_id}")
    await api.get(f"/{new_id}")
    await api.put(f"/notes/{new_id}", json=[])
    after = await samples(api)
    assert after[missing] == before[missing] + 2
    assert after[invalid] == before[invalid] + 1


async def test_metrics_show_how_the_mappings_are_doing(api: httpx.AsyncClient, new_id: str) -> None:
    await api.put(f"/todos/{new_id}", json={"name": "x"})
    await audited(api)
    todos = (("mapping", "todos"),)

    async def reported() -> bool:  # from time to time
        said = await samples(api)
        counts = ("writethrough_notifications_total", "writethrough_worker_batches_total")
        return all(said[name, todos] > 0 for name in counts)

    await eventually(reported)
    found = await samples(api)
    assert found["writethrough_ready", ()] == 1
    assert found["writethrough_up", (("server", "redis"),)] == 1
    assert found["writethrough_up", (("server", "mongo"),)] == 1
    assert found["writethrough_backlog_entries", todos] == 0
    assert found["writethrough_lag_seconds", todos] == 0
    assert 0 <= found["writethrough_watermark_age_seconds", todos] < 60
    assert found["writethrough_worker_up", todos] == 1
    assert found["writethrough_worker_state", (*todos, ("state", "committing"))] == 1
    assert found["writethrough_worker_state", (*todos, ("state", "retrying"))] == 0
    assert found["writethrough_worker_committed_total", todos] >= 0
    assert found["writethrough_worker_refused_total", todos] >= 0
    assert found["writethrough_worker_batch_seconds_total", todos] > 0
    assert 0 < found["writethrough_round_trip_seconds", (("server", "redis"),)] < 1.5
    assert 0 < found["writethrough_round_trip_seconds", (("server", "mongo"),)] < 1.5
    assert found["writethrough_backlog_limit", ()] == 100_000
    assert found["writethrough_worker_retries_total", todos] >= 0
    assert found["writethrough_capture_working", todos] == 1
    assert found["writethrough_capture_failures_total", todos] == 0
    assert found["writethrough_dead_letters", todos] >= 0
    assert found["writethrough_drift", (("kind", "missing"), *todos)] >= 0
    assert found["writethrough_drift_left", todos] >= 0
    assert found["writethrough_last_audit_timestamp_seconds", todos] > 0
    assert found["writethrough_last_audit_seconds", todos] > 0
    assert found["writethrough_last_audit_repaired", todos] >= 0
    assert found["writethrough_last_audit_rate", todos] >= 0
    assert found["writethrough_oldest_drift_seconds", todos] == 0
    assert found["writethrough_reconciler_up", todos] == 1
    assert found["writethrough_reconciler_listening", todos] == 1
    assert found["writethrough_rechecked_total", todos] >= 0
    assert found["writethrough_rewinds", todos] == 0
    assert found["writethrough_commit_wait_seconds_count", todos] > 0
    assert found["writethrough_writes_in_flight", ()] == 0


def test_apps_in_one_process_count_for_themselves() -> None:
    one, other = Metrics(lambda: 1, backlog_limit=1), Metrics(lambda: 2, backlog_limit=1)
    one.request("GET", "/x", 200, 0.1)
    nothing = Inspection([])
    assert b'route="/x"' in one.render(nothing, ready=True)
    assert b'route="/x"' not in other.render(nothing, ready=True)


def test_what_isnt_known_isnt_ready(stack: Stack) -> None:
    state = MappingState(stack.settings.mappings[0], errors={"capture": "no answer", "backlog": "no answer"})
    checks = checks_of(Inspection([state], errors={"redis": "away"}), backlog_limit=1)
    assert checks == {
        "redis": "away",
        "mongo": "ok",
        "capture:todos": "no answer",
        "worker:todos": "no answer",
        "backlog:todos": "no answer",
    }
    assert not is_ready(checks)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MAPPINGS", "nonsense"),
        ("MAPPINGS", ""),
        ("MAPPINGS", "todos=test.todos:id:no.such.Model"),
        ("MAPPINGS", "todos=test.todos:id:json.JSONDecoder"),
        ("REDIS_URL", "nonsense"),
        ("MONGO_URI", "http://nonsense"),
        ("WT_COMMIT_TIMEOUT", "0"),
        ("WT_BACKLOG_LIMIT", "many"),
    ],
)
def test_a_setting_that_cant_be_used_is_named_in_one_line(variable: str, value: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "service", "--port", "1"], env={variable: value}, capture_output=True, timeout=20
    )
    assert ended.returncode == 2
    assert ended.stdout == b""
    assert re.fullmatch(rf"service: {variable}.+\n", ended.stderr.decode())


async def audited(api: httpx.AsyncClient) -> dict[str, Any]:
    """The last audit of the mapping `todos`, as soon as there is one."""

    async def probe() -> Any:
        return (await api.get("/sync")).json()["mappings"]["todos"]["last_audit"]

    report: dict[str, Any] = await eventually(probe)
    return report


async def samples(api: httpx.AsyncClient) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """All metrics, by name and labels."""
    answer = await api.get("/metrics")
    assert answer.status_code == 200
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_moments_sort_as_texts_as_they_passed() -> None:
    whole = datetime(2026, 1, 1, 12, 0, 5, tzinfo=UTC)
    moments = [whole, whole + timedelta(milliseconds=543)]
    reports = [AuditReport(mapping="notes", started_at=moment) for moment in moments]
    texts = [json.loads(to_json(report))["started_at"] for report in reports]
    assert texts == ["2026-01-01T12:00:05.000Z", "2026-01-01T12:00:05.543Z"]
