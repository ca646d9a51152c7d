"""What can be told about the compose file without starting it."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
STANDS_STILL = "redislabs/redismod:latest"
"""An image that is no longer built and has no other tag."""


class _Loader(yaml.SafeLoader):
    """Takes Compose's tags for merging."""


_Loader.add_constructor("!override", lambda loader, node: loader.construct_sequence(node))  # type: ignore[arg-type]
_Loader.add_constructor("!reset", lambda loader, node: None)

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


ONCE = {"access"}
"""What runs once, before all others."""


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - ONCE))
def test_a_service_has_a_pinned_image_a_health_check_and_a_way_to_stop(name: str) -> None:
    service = SERVICES[name]
    assert re.search(r":v?\d+\.\d+", service["image"]) or "build" in service, "the tag is not pinned"
    assert {"test", "interval", "timeout", "retries"} <= service["healthcheck"].keys()
    assert service["stop_grace_period"]
    assert service["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_loopback_only(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


def needs(name: str) -> set[str]:
    """What a service waits for."""
    needed = SERVICES[name].get("depends_on", {})
    for service, condition in needed.items():
        wanted = "service_completed_successfully" if service in ONCE else "service_healthy"
        assert condition == {"condition": wanted}
    return set(needed)


def test_services_start_in_the_order_of_health() -> None:
    assert needs("redis") == needs("mongo") == {"access"}
    assert needs("worker") == {"redis", "mongo"}
    assert needs("api") == {"redis", "mongo", "worker"}


def test_data_is_kept_in_named_volumes() -> None:
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert set(COMPOSE["volumes"]) == {name for name in used if not name.startswith(".")}
    assert all((ROOT / name).exists() for name in used if name.startswith("."))


@pytest.mark.parametrize("file", sorted((ROOT / "docker").glob("*Dockerfile")), ids=lambda file: file.name)
def test_images_are_pinned_and_do_not_run_as_root(file: Path) -> None:
    lines = file.read_text().splitlines()
    pinned = re.compile(rf":\d+\.\d+|{STANDS_STILL}$")
    assert all(pinned.search(line) for line in lines if line.startswith("FROM"))
    users = [line.split()[1] for line in lines if line.startswith("USER")]
    assert users
    assert users[-1].split(":")[0] not in ("root", "0")


@pytest.mark.parametrize("file", sorted((ROOT / "docker").glob("*.yml")), ids=lambda file: file.name)
def test_another_redis_changes_nothing_but_redis(file: Path) -> None:
    override = yaml.load(file.read_text(), _Loader)
    assert set(override["services"]) == {"access", "redis"}
    assert set(override["services"]["access"]["environment"]) == {"WT_ENGINE"}
    assert "/access/users.acl" in override["services"]["redis"]["command"]
    assert re.search(r":\d+\.\d+", override["services"]["redis"]["image"])
    volume, access = override["services"]["redis"]["volumes"]
    assert access == "access:/access:ro"
    assert volume.split(":")[0] in override["volumes"], "servers of different versions must not share data"


@pytest.mark.parametrize("name", ["worker", "api"])
def test_our_own_commands_exist(name: str) -> None:
    _, *arguments = SERVICES[name]["command"]
    ran = subprocess.run(
        [sys.executable, *arguments[:2], "--help"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    )
    assert all(option in ran.stdout for option in arguments if option.startswith("--"))


def test_only_the_profile_monitoring_adds_to_the_system() -> None:
    profiles = {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service}
    assert profiles == {"prometheus": ["monitoring"], "grafana": ["monitoring"]}
    assert needs("prometheus") == set()
    assert needs("grafana") == {"prometheus"}


@pytest.mark.parametrize(("name", "role"), [("api", "service"), ("worker", "worker")])
def test_each_is_a_user_with_least_privilege(name: str, role: str) -> None:
    environment = SERVICES[name]["environment"]
    for url in (environment["REDIS_URL"], environment["MONGO_URI"]):
        assert f"//writethrough_{role}:${{{role.upper()}_PASSWORD:-development-only}}@" in url
    assert "ROOT_PASSWORD" not in str(environment)
    assert "WT_TOKENS" in SERVICES["api"]["environment"]
