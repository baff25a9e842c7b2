"""Health, metrics, logs, and the document that describes it all."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from service.core import read_certificate
from tests.service.api.conftest import Running, StartServer, wait_until

ASKED = {"question": "Kenya | capital"}


def sample(text: str, name: str, **labels: str) -> float:
    """The value of a sample in Prometheus' text."""
    for line in text.splitlines():
        found = re.fullmatch(rf"metabolism_{name}(\{{.*\}})? (\S+)", line)
        if found and all(f'{key}="{value}"' in (found[1] or "") for key, value in labels.items()):
            return float(found[2])
    raise AssertionError(f"no sample {name} {labels} in\n{text}")


def test_metrics_count_requests_steps_lookups_and_times(client: httpx.Client) -> None:
    client.post("/v1/reason", json=ASKED).raise_for_status()
    client.post("/v1/reason", json={"question": "Atlantis | capital"}).raise_for_status()
    facts = [{"subject": "a", "relation": "b", "value": "c"}]
    client.post("/update_knowledge", json={"module": "m", "facts": facts}).raise_for_status()
    reply = client.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    text = reply.text
    assert sample(text, "requests_total", route="/v1/reason", method="POST", status="200") == 2
    assert sample(text, "lookups_total", outcome="found", match="exact", detector="call") == 1
    assert sample(text, "lookups_total", outcome="missing") == 1
    assert sample(text, "answers_total", finish="stop", grounded="true") == 1
    assert sample(text, "tokens_total", kind="injected") > 0
    for name in ("answer_seconds", "engine_seconds", "own_seconds"):
        assert sample(text, f"{name}_count") == 2
        assert sample(text, f"{name}_sum") > 0
    assert sample(text, "updates_total", outcome="done") == 1
    assert sample(text, "facts_changed_total", change="added") == 1
    assert sample(text, "generation") == 3
    assert sample(text, "questions_waiting") == 0
    assert sample(text, "core_info", core="reciter") == 1


def test_paths_that_do_not_exist_share_one_label(client: httpx.Client) -> None:
    for path in ("/a", "/b", "/c"):
        client.get(path)
    text = client.get("/metrics").text
    assert sample(text, "requests_total", route="unmatched", status="404") == 3
    assert "/a" not in text


def test_logs_hold_no_question_answer_or_value(running: Running) -> None:
    structlog.reset_defaults()
    with structlog.testing.capture_logs() as entries, running.client() as client:
        client.post("/v1/reason", json=ASKED, headers={"X-Request-Id": "find-me"}).raise_for_status()
        wait_until(lambda: len(entries) > 1, within_s=5)
    assert {entry["event"] for entry in entries} == {"answered", "request"}
    assert {entry["request_id"] for entry in entries} == {"find-me"}
    assert "Nairobi" not in str(entries)
    assert "Kenya" not in str(entries)


def document(client: httpx.Client) -> dict[str, Any]:
    body: dict[str, Any] = client.get("/openapi.json").json()
    return body


def test_the_document_describes_every_route_of_the_surface(shared_client: httpx.Client) -> None:
    paths = document(shared_client)["paths"]
    surface = {
        "/v1/chat/completions": {"post"},
        "/v1/reason": {"post"},
        "/v1/models": {"get"},
        "/v1/core": {"get"},
        "/update_knowledge": {"post"},
        "/v1/knowledge/modules": {"get"},
        "/v1/knowledge/modules/{module}": {"get", "delete"},
        "/v1/knowledge/modules/{module}/export": {"get"},
        "/v1/knowledge/modules/{module}:mount": {"post"},
        "/v1/knowledge/modules/{module}:unmount": {"post"},
        "/v1/knowledge/modules/{module}:rollback": {"post"},
        "/v1/knowledge/generations": {"get"},
        "/v1/knowledge/facts": {"get"},
        "/v1/knowledge/lookup": {"post"},
        "/v1/admin/core": {"post"},
        "/health/live": {"get"},
        "/health/ready": {"get"},
        "/metrics": {"get"},
    }
    for path, methods in surface.items():
        assert methods <= set(paths[path]), path
        for method in methods:
            route = paths[path][method]
            assert len(route["description"]) > 20, path
            errors = [reply for status, reply in route["responses"].items() if status >= "400"]
            assert errors
            for reply in errors:
                assert reply["content"]["application/json"]["schema"]["$ref"].endswith("ErrorReply"), path


def test_every_field_of_a_request_is_described(shared_client: httpx.Client) -> None:
    schemas = document(shared_client)["components"]["schemas"]
    for name in ("ReasonRequest", "KnowledgeChoice", "LimitsChoice", "LookupRequest", "CoreRequest", "RollbackRequest"):
        assert schemas[name]["additionalProperties"] is False
        for field, schema in schemas[name]["properties"].items():
            assert schema.get("description"), f"{name}.{field}"


def test_the_examples_of_the_document_work(client: httpx.Client) -> None:
    schemas = document(client)["components"]["schemas"]
    for path, name in (("/v1/reason", "ReasonRequest"), ("/v1/knowledge/lookup", "LookupRequest")):
        for example in schemas[name]["examples"]:
            assert client.post(path, json=example).status_code == 200, example
    content = document(client)["paths"]["/update_knowledge"]["post"]["requestBody"]["content"]
    [example] = content["application/json"]["schema"]["examples"]
    assert client.post("/update_knowledge", json=example).status_code == 200


def test_the_docs_page_is_served(shared_client: httpx.Client) -> None:
    assert "swagger" in shared_client.get("/docs").text


@pytest.mark.parametrize("passed", [True, False, None])
def test_a_core_shows_its_certificate_and_says_so_where_it_failed(
    start_server: StartServer, tmp_path: Path, passed: bool | None
) -> None:
    report = None if passed is None else {"passed": passed}
    (tmp_path / "core.json").write_text(json.dumps({"protocol_version": 1, "report": report}))
    running = start_server(certificate=read_certificate(tmp_path))
    with running.client() as client:
        body = client.get("/v1/core").json()
    assert body["certified"] is (passed is True)
    assert ("FAILED" in body["statement"]) is (passed is False)
    assert body["certificate"]["report"] == report


def test_a_core_without_a_certificate_says_so(shared_client: httpx.Client) -> None:
    body = shared_client.get("/v1/core").json()
    assert (body["name"], body["certified"], body["certificate"]) == ("reciter", False, None)
    assert "no certificate" in body["statement"]
