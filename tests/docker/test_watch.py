"""The dashboard and the alerts ask only for metrics that there are."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from service.metric import Metrics

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "docker/grafana/provisioning/dashboards/metabolism.json"
GAUGES = {"metabolism_answers_running", "metabolism_questions_waiting", "metabolism_generation"}


def expressions() -> list[str]:
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text())
    alerts = yaml.safe_load((ROOT / "docker/prometheus/alerts.yml").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    return asked + [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]


def served() -> set[str]:
    """Every name that the service's registry can show, with the names of the gauges that the app adds."""
    names = set(GAUGES)
    for family in Metrics().registry.collect():
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
        names |= {family.name + suffix for suffix in suffixes}
    return names


def test_dashboard_and_alerts_use_only_metrics_of_the_service() -> None:
    asked = {name for text in expressions() for name in re.findall(r"\bmetabolism_[a-z_]+", text)}
    assert len(asked) >= 12
    assert asked <= served(), asked - served()


def test_the_gauges_are_those_that_the_app_registers() -> None:
    source = (ROOT / "service/api/app.py").read_text()
    assert all(f'"{name.removeprefix("metabolism_")}"' in source for name in GAUGES)


def test_the_panels_do_not_overlap() -> None:
    places = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        box = panel["gridPos"]
        cells = {(box["x"] + x, box["y"] + y) for x in range(box["w"]) for y in range(box["h"])}
        assert not cells & places, panel["title"]
        places |= cells


def test_prometheus_watches_every_container_that_answers_questions() -> None:
    watched = yaml.safe_load((ROOT / "docker/prometheus/prometheus.yml").read_text())["scrape_configs"]
    names = {name for job in watched for sd in job["dns_sd_configs"] for name in sd["names"]}
    assert names == {"service", "embedded", "replica-a", "replica-b", "engine"}
