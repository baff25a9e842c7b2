"""Keys, scopes, limits, ids, sizes: what every request passes."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.security import Scope
from tests.service.api.conftest import Running, StartServer, wait_until

ERROR_KEYS = {"message", "type", "param", "code"}
ROUTES: tuple[tuple[str, str, Any, str], ...] = (
    ("POST", "/v1/reason", {"question": "Kenya | capital"}, "infer"),
    ("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "Kenya | capital"}]}, "infer"),
    ("GET", "/v1/models", None, "infer"),
    ("GET", "/v1/core", None, "infer"),
    ("GET", "/v1/knowledge/modules", None, "read"),
    ("GET", "/v1/knowledge/modules/geography", None, "read"),
    ("GET", "/v1/knowledge/modules/geography/export", None, "read"),
    ("GET", "/v1/knowledge/generations", None, "read"),
    ("GET", "/v1/knowledge/facts", None, "read"),
    ("POST", "/v1/knowledge/lookup", {"query": "Kenya | capital"}, "read"),
    ("POST", "/update_knowledge", {"module": "m", "facts": []}, "write"),
    ("POST", "/v1/knowledge/modules/elements:unmount", None, "write"),
    ("POST", "/v1/knowledge/modules/elements:mount", None, "write"),
    ("POST", "/v1/knowledge/modules/elements:rollback", {"generation": 2}, "write"),
    ("DELETE", "/v1/knowledge/modules/elements?confirm=elements", None, "write"),
)


@pytest.fixture
def guarded(start_server: StartServer) -> Running:
    return start_server(with_keys=True)


def test_each_route_opens_to_its_scope_and_to_admin_only(guarded: Running) -> None:
    for method, path, body, scope in ROUTES:
        for other in Scope:
            with guarded.client(other.value) as client:
                if other.value == scope or (other is Scope.ADMIN and method != "DELETE"):
                    reply = client.request(method, path, json=body)
                    assert reply.status_code == 200, (path, other, reply.text)
                elif other is not Scope.ADMIN:
                    reply = client.request(method, path, json=body)
                    assert reply.status_code == 403, (path, other)
                    error = reply.json()["error"]
                    assert set(error) == ERROR_KEYS
                    assert (error["type"], error["code"]) == ("permission_error", "missing_scope")


def test_without_a_known_key_every_route_answers_401(guarded: Running) -> None:
    with guarded.client() as client:
        for method, path, body, _ in (*ROUTES, ("POST", "/v1/admin/core", {"core": "x"}, "admin")):
            for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic abc"}):
                reply = client.request(method, path, json=body, headers=headers)
                assert reply.status_code == 401, path
                assert reply.headers["www-authenticate"] == "Bearer"
                assert set(reply.json()["error"]) == ERROR_KEYS


def test_a_key_is_asked_before_a_body_is_read(guarded: Running) -> None:
    with guarded.client() as client:
        reply = client.post("/update_knowledge", content=b"{", headers={"Content-Type": "application/json"})
    assert reply.status_code == 401


def test_health_and_metrics_need_no_key_unless_the_settings_say_so(start_server: StartServer) -> None:
    paths = ("/health/live", "/health/ready", "/metrics")
    guarded = start_server(with_keys=True, guard_watch=True)
    with guarded.client() as stranger, guarded.client("read") as reader:
        assert [stranger.get(path).status_code for path in paths] == [401, 401, 401]
        assert [reader.get(path).status_code for path in paths] == [200, 200, 200]


def test_a_revoked_key_is_refused_at_once(guarded: Running) -> None:
    with guarded.client("read") as client:
        assert client.get("/v1/knowledge/modules").status_code == 200
        assert guarded.resources.keys is not None
        guarded.resources.keys.revoke("read")
        assert client.get("/v1/knowledge/modules").status_code == 401


def test_a_key_is_held_to_its_rate(start_server: StartServer) -> None:
    guarded = start_server(with_keys=True, key_requests_per_minute=3)
    with guarded.client("read") as client, guarded.client("infer") as other:
        codes = [client.get("/v1/knowledge/modules").status_code for _ in range(4)]
        assert codes == [200, 200, 200, 429]
        refused = client.get("/v1/knowledge/modules")
        assert 1 <= int(refused.headers["retry-after"]) <= 20
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert other.get("/v1/models").status_code == 200


def test_a_key_is_held_to_its_number_of_running_requests(start_server: StartServer) -> None:
    guarded = start_server(with_keys=True, key_concurrent=1, pause_s=0.05)
    with guarded.client("infer") as client, ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.post, "/v1/reason", json={"question": "Kenya | capital"})
        wait_until(lambda: guarded.resources.serving.gate.running == 1, within_s=5)
        assert client.get("/v1/models").status_code == 429
        assert running.result().status_code == 200
        assert client.get("/v1/models").status_code == 200


def test_the_audit_log_and_the_history_name_the_key(guarded: Running, tmp_path: Path) -> None:
    body = {"module": "m", "facts": [{"subject": "a", "relation": "b", "value": "c"}]}
    with guarded.client("write") as client:
        client.post("/update_knowledge", json=body).raise_for_status()
    entry = json.loads((tmp_path / "audit.jsonl").read_text())
    assert (entry["author"], entry["outcome"], entry["added"]) == ("write", "done", 1)
    assert guarded.store.history(limit=1)[0].author == "write"


def test_a_request_id_is_returned_on_every_answer_and_made_where_there_is_none(shared_client: httpx.Client) -> None:
    for method, path in (("GET", "/v1/models"), ("GET", "/nowhere"), ("PUT", "/v1/reason"), ("POST", "/v1/reason")):
        given = shared_client.request(method, path, headers={"X-Request-Id": "abc-123"})
        assert given.headers["x-request-id"] == "abc-123"
        made = shared_client.request(method, path).headers["x-request-id"]
        assert len(made) == 32
        odd = shared_client.request(method, path, headers={"X-Request-Id": "a b"}).headers["x-request-id"]
        assert odd != "a b"


def test_the_request_id_reaches_the_engine(running: Running) -> None:
    with running.client() as client:
        client.post("/v1/reason", json={"question": "Kenya | capital"}, headers={"X-Request-Id": "abc-123"})
    assert len(running.engine.request_ids) == 2
    assert all(request_id.startswith("abc-123") for request_id in running.engine.request_ids)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/knowledge/modules/a/b/c", 404),
        ("POST", "/v1/models", 405),
        ("DELETE", "/v1/reason", 405),
        ("GET", "/update_knowledge", 405),
        ("POST", "/health/live", 405),
    ],
)
def test_even_the_routers_errors_have_the_one_shape(
    shared_client: httpx.Client, method: str, path: str, status: int
) -> None:
    reply = shared_client.request(method, path)
    assert reply.status_code == status
    assert set(reply.json()) == {"error"}
    assert set(reply.json()["error"]) == ERROR_KEYS
    if status == 405:
        assert reply.headers["allow"]


def test_an_accident_gets_500_in_the_one_shape_and_tells_no_more_than_its_id(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def burst() -> None:
        raise ZeroDivisionError("a secret of the house")

    monkeypatch.setattr(running.store, "modules", burst)
    with running.client() as client:
        reply = client.get("/v1/knowledge/modules")
    assert reply.status_code == 500
    assert set(reply.json()["error"]) == ERROR_KEYS
    assert "secret" not in reply.text
    assert reply.headers["x-request-id"]
