"""docker-compose.yml is valid, and says what the guide says of it. That it runs is docker/check.sh's to show."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from service.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[2]
FACTS = {"facts", "facts-embedded", "facts-postgres"}
OURS = FACTS | {"service", "embedded", "engine", "replica-a", "replica-b", "trainer"}


def test_the_compose_file_follows_the_compose_specification() -> None:
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        "docker-compose.yml",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_way_to_run_is_a_profile_and_the_default_is_in_the_env_file(compose: dict[str, Any]) -> None:
    profiles = {profile for service in compose["services"].values() for profile in service["profiles"]}
    assert profiles == {"cpu", "gpu", "embedded", "postgres", "train", "observability"}
    assert "COMPOSE_PROFILES=cpu" in (ROOT / ".env").read_text().splitlines()


def test_only_the_service_the_balancer_and_the_dashboard_are_published(compose: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert published.keys() == {"service", "embedded", "balancer", "grafana"}
    assert all(
        port.startswith(("${PUBLISH:-127.0.0.1:", "127.0.0.1:")) for ports in published.values() for port in ports
    )


def test_engine_and_database_are_on_no_network_that_leads_out(compose: dict[str, Any]) -> None:
    for name in ("engine", "engine-gpu", "database", "prometheus"):
        networks = list(compose["services"][name]["networks"])
        assert all(compose["networks"][network].get("internal") for network in networks), name
    assert compose["services"]["trainer"]["network_mode"] == "none"


def test_our_containers_can_write_only_where_they_must(compose: dict[str, Any]) -> None:
    for name in OURS:
        service = compose["services"][name]
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name


def test_every_image_has_a_version(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        image = re.fullmatch(r"\$\{[A-Z_]+:-(.+)\}", service["image"])
        assert image is not None, name
        assert re.search(r":v?\d+\.\d+", image[1]), f"{name}: {image[1]} is not pinned"


def test_compose_and_manifests_name_only_settings_that_the_service_has(
    compose: dict[str, Any], manifests: list[dict[str, Any]]
) -> None:
    named = set()
    for service in compose["services"].values():
        named |= {name for name in service.get("environment", {}) if name.startswith(PREFIX)}
    for manifest in manifests:
        named |= {name for name in manifest.get("data", {}) if name.startswith(PREFIX)}
    named |= set(re.findall(rf"{PREFIX}[A-Z_]+", (ROOT / "docker" / "Dockerfile").read_text()))
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    assert named
    assert named <= known


def test_the_defaults_of_compose_are_settings_that_the_service_accepts(manifests: list[dict[str, Any]]) -> None:
    (configuration,) = (manifest["data"] for manifest in manifests if manifest["kind"] == "ConfigMap")
    given = {
        name.removeprefix(PREFIX).lower(): value for name, value in configuration.items() if name.startswith(PREFIX)
    }
    assert Settings.read({"host": "0.0.0.0", **given}).engine_wait_s == 600


def test_what_runs_once_is_not_started_again_and_what_serves_is(compose: dict[str, Any]) -> None:
    restarts = {name: service["restart"] for name, service in compose["services"].items()}
    once = {name for name, restart in restarts.items() if restart == "no"}
    assert once == FACTS | {"trainer"}
    assert set(restarts.values()) == {"no", "unless-stopped"}
