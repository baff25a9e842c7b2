"""`/update_knowledge` and `/v1/knowledge/…`: facts in, facts out, modules switched."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

import service.api.update
from knowledge_store.change import FactChange, Problem
from knowledge_store.exchange import read_changes

NDJSON = {"Content-Type": "application/x-ndjson"}
CSV = {"Content-Type": "text/csv; charset=utf-8"}


def fact(subject: str = "Kenya", relation: str = "capital", value: str = "Nakuru", **more: Any) -> dict[str, Any]:
    return {"subject": subject, "relation": relation, "value": value, **more}


def update(client: httpx.Client, *facts: dict[str, Any], module: str = "geography", **more: Any) -> httpx.Response:
    headers = more.pop("headers", {})
    return client.post("/update_knowledge", json={"module": module, "facts": facts, **more}, headers=headers)


def value_of(client: httpx.Client, query: str = "Kenya | capital") -> str:
    text: str = client.post("/v1/knowledge/lookup", json={"query": query}).json()["text"]
    return text


def test_an_update_is_counted_and_seen_by_the_next_request(client: httpx.Client) -> None:
    reply = update(client, fact(), fact("Togo", value="Lomé"), fact("Peru", value="Lima"))
    assert reply.status_code == 200
    body = reply.json()
    assert {name: body[name] for name in ("module", "generation", "added", "changed", "deleted", "unchanged")} == {
        "module": "geography",
        "generation": 3,
        "added": 1,
        "changed": 1,
        "deleted": 0,
        "unchanged": 1,
    }
    assert body["conflicts"] == []
    assert reply.headers["etag"] == body["etag"]
    assert value_of(client) == "Nakuru"


def test_a_deletion_takes_a_fact_out(client: httpx.Client) -> None:
    assert update(client, fact(value="Nairobi", op="delete")).json()["deleted"] == 1
    assert value_of(client) == "NOT FOUND"


def test_replace_leaves_what_was_sent_and_nothing_else(client: httpx.Client) -> None:
    body = update(client, fact("Peru", value="Lima"), mode="replace").json()
    assert (body["deleted"], body["unchanged"]) == (2, 1)
    assert value_of(client) == "NOT FOUND"


def test_a_dry_run_says_what_would_happen_and_does_not_do_it(client: httpx.Client) -> None:
    body = update(client, fact(), dry_run=True).json()
    assert (body["dry_run"], body["changed"]) == (True, 1)
    assert value_of(client) == "Nairobi"


def test_ndjson_and_csv_bodies_say_the_same_as_json(client: httpx.Client) -> None:
    lines = "\n".join(json.dumps(fact(value=value)) for value in ("Nakuru",))
    body = client.post("/update_knowledge?module=geography", content=lines, headers=NDJSON).json()
    assert body["changed"] == 1
    table = 'subject,relation,value,source\nTogo,capital,Lomé,"a, b"\nKenya,capital,Nakuru,\n'
    body = client.post("/update_knowledge?module=geography&mode=merge", content=table, headers=CSV).json()
    assert (body["added"], body["unchanged"]) == (1, 1)
    assert value_of(client, "Togo | capital") == "Lomé"
    dry = client.post("/update_knowledge?module=geography&dry_run=true", content=lines, headers=NDJSON).json()
    assert dry["dry_run"] is True


@pytest.mark.parametrize(
    ("content", "headers", "line"),
    [
        ('{"subject": "A", "relation": "b", "value": "c"}\n{"subject": 1}\n', NDJSON, 2),
        ('{"subject": "A", "relation": "b", "value": "c"}\n\nnonsense\n', NDJSON, 3),
        ('{"subject": "A", "relation": "b", "value": "c", "colour": 1}\n', NDJSON, 1),
        ("subject,relation,value\nA,b,c\nA,b\n", CSV, 3),
        ("subject,relation,value\nA,b,c\n ,b,c\n", CSV, 3),
        ("subject,relation\nA,b\n", CSV, 1),
    ],
)
def test_one_bad_line_refuses_all_and_is_named(
    shared_client: httpx.Client, content: str, headers: dict[str, str], line: int
) -> None:
    reply = shared_client.post("/update_knowledge?module=fresh", content=content, headers=headers)
    error = reply.json()["error"]
    assert reply.status_code == 400
    assert error["param"] == f"line {line}"
    assert f"line {line}:" in error["message"]
    assert shared_client.get("/v1/knowledge/modules/fresh").status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"module": "m", "facts": [fact(), fact(colour=1)]}, 400, "facts.1.colour"),
        ({"module": "m", "facts": [fact(), {"subject": 1}]}, 422, "facts.1.subject"),
        ({"module": "m", "facts": [fact(subject=" ")]}, 400, "line 1"),
        ({"module": "m", "facts": [fact(valid_from="soon")]}, 400, "line 1"),
        ({"module": "no/slash", "facts": []}, 400, None),
        ({"module": "m", "facts": [], "mod": "merge"}, 400, "mod"),
        ({"module": "m", "mode": "mix", "facts": []}, 422, "mode"),
        ({"facts": []}, 422, "module"),
    ],
)
def test_a_wrong_json_update_names_its_part(
    shared_client: httpx.Client, body: dict[str, Any], status: int, param: str | None
) -> None:
    reply = shared_client.post("/update_knowledge", json=body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (status, param)


def test_other_bodies_are_refused(shared_client: httpx.Client) -> None:
    xml = shared_client.post("/update_knowledge", content="<a/>", headers={"Content-Type": "text/xml"})
    assert (xml.status_code, xml.json()["error"]["code"]) == (415, "unsupported_media_type")
    nameless = shared_client.post("/update_knowledge", content="{}", headers=NDJSON)
    assert (nameless.status_code, nameless.json()["error"]["param"]) == (400, "module")
    broken = shared_client.post("/update_knowledge", content="{", headers={"Content-Type": "application/json"})
    assert (broken.status_code, broken.json()["error"]["code"]) == (400, "malformed_json")


def test_an_etag_guards_against_lost_updates(client: httpx.Client) -> None:
    etag = client.get("/v1/knowledge/modules/geography").headers["etag"]
    assert update(client, fact(), headers={"If-Match": etag}).status_code == 200
    late = update(client, fact(value="Mombasa"), headers={"If-Match": etag})
    assert (late.status_code, late.json()["error"]["code"]) == (412, "etag_mismatch")
    assert value_of(client) == "Nakuru"


def test_concurrent_writers_with_one_etag_lose_no_update(client: httpx.Client) -> None:
    etag = client.get("/v1/knowledge/modules/geography").headers["etag"]
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda n: update(client, fact(value=f"v{n}"), headers={"If-Match": etag}), range(8)))
    assert sorted(reply.status_code for reply in replies) == [200] + [412] * 7


def test_a_repeated_idempotency_key_is_done_once(client: httpx.Client) -> None:
    headers = {"Idempotency-Key": "k1"}
    first = update(client, fact(), headers=headers)
    update(client, fact(value="Mombasa"))
    again = update(client, fact(), headers=headers)
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    assert value_of(client) == "Mombasa"
    other = update(client, fact(value="Kisumu"), headers=headers)
    assert (other.status_code, other.json()["error"]["param"]) == (400, "Idempotency-Key")


def test_a_failed_request_may_repeat_its_idempotency_key(client: httpx.Client) -> None:
    headers = {"Idempotency-Key": "k2", "If-Match": '"not yet"'}
    assert update(client, fact(), headers=headers).status_code == 412
    assert update(client, fact(), headers={"Idempotency-Key": "k2"}).status_code == 200


def test_modules_are_listed_with_counts_and_etags(client: httpx.Client) -> None:
    body = client.get("/v1/knowledge/modules").json()
    assert body["generation"] == 2
    assert [(it["name"], it["facts"], it["mounted"]) for it in body["modules"]] == [
        ("geography", 3, True),
        ("elements", 1, True),
    ]
    one = client.get("/v1/knowledge/modules/elements")
    assert one.json()["etag"] == one.headers["etag"] == body["modules"][1]["etag"]
    missing = client.get("/v1/knowledge/modules/nowhere")
    assert missing.status_code == 404
    assert "geography" in missing.json()["error"]["message"]


def test_a_module_is_switched_off_and_on(client: httpx.Client) -> None:
    assert client.post("/v1/knowledge/modules/geography:unmount").json() == {"module": "geography", "generation": 3}
    assert value_of(client) == "NOT FOUND"
    assert client.get("/v1/knowledge/modules/geography").json()["mounted"] is False
    assert client.post("/v1/knowledge/modules/geography:mount").json()["generation"] == 4
    assert value_of(client) == "Nairobi"
    assert client.post("/v1/knowledge/modules/nowhere:mount").status_code == 404


def test_a_module_is_rolled_back(client: httpx.Client) -> None:
    update(client, fact())
    reply = client.post("/v1/knowledge/modules/geography:rollback", json={"generation": 2})
    assert reply.json() == {"module": "geography", "generation": 4}
    assert value_of(client) == "Nairobi"
    assert client.post("/v1/knowledge/modules/geography:rollback", json={"generation": 99}).status_code == 404


def test_deleting_a_module_asks_for_its_name_once_more(client: httpx.Client) -> None:
    refused = client.delete("/v1/knowledge/modules/geography")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "confirmation_required")
    assert value_of(client) == "Nairobi"
    assert client.delete("/v1/knowledge/modules/geography?confirm=geography").json()["generation"] == 3
    assert value_of(client) == "NOT FOUND"


def test_an_export_is_what_an_update_takes(client: httpx.Client) -> None:
    reply = client.get("/v1/knowledge/modules/geography/export")
    assert reply.headers["content-type"] == "application/x-ndjson"
    assert len(reply.text.splitlines()) == 3
    body = client.post("/update_knowledge?module=copy", content=reply.content, headers=NDJSON).json()
    assert body["added"] == 3
    assert client.get("/v1/knowledge/modules/copy/export").text == reply.text
    assert client.get("/v1/knowledge/modules/nowhere/export").status_code == 404


def test_the_history_names_author_module_and_counts(client: httpx.Client) -> None:
    update(client, fact())
    body = client.get("/v1/knowledge/generations?limit=2").json()
    newest, before = body["generations"]
    assert (newest["number"], newest["author"], newest["module"], newest["changed"]) == (3, "local", "geography", 1)
    assert newest["time"] > before["time"]
    older = client.get(f"/v1/knowledge/generations?cursor={body['cursor']}").json()
    assert [it["number"] for it in older["generations"]] == [1]


def test_facts_are_listed_page_by_page(client: httpx.Client) -> None:
    seen: list[str] = []
    cursor = ""
    while True:
        page = client.get(f"/v1/knowledge/facts?limit=2&generation=2{cursor}").json()
        seen += [it["value"] for it in page["facts"]]
        if page["cursor"] is None:
            break
        cursor = f"&cursor={page['cursor']}"
    assert sorted(seen) == ["Africa", "He", "Lima", "Nairobi"]
    one = client.get("/v1/knowledge/facts", params={"subject": "kenya", "relation": "capital"}).json()["facts"]
    assert [it["value"] for it in one] == ["Nairobi"]
    assert client.get("/v1/knowledge/facts?module=nowhere").status_code == 404
    assert client.get("/v1/knowledge/facts?limit=0").status_code == 422
    assert client.get("/v1/knowledge/facts?cursor=nonsense").status_code == 422


def test_a_lookup_shows_what_a_core_would_read(client: httpx.Client) -> None:
    found = client.post("/v1/knowledge/lookup", json={"query": "Kenya | capital"}).json()
    assert (found["outcome"], found["text"], found["match"], found["generation"]) == ("found", "Nairobi", "exact", 2)
    assert found["facts"][0]["subject"] == "Kenya"
    reverse = client.post("/v1/knowledge/lookup", json={"query": "? | capital | Lima"}).json()
    assert reverse["text"] == "Peru"
    missing = client.post("/v1/knowledge/lookup", json={"query": "Atlantis | capital"}).json()
    assert (missing["outcome"], missing["text"], missing["match"], missing["facts"]) == (
        "missing",
        "NOT FOUND",
        None,
        [],
    )
    wrong = client.post("/v1/knowledge/lookup", json={"query": "a | b | c | d"})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "invalid_query")


def test_every_write_is_in_the_audit_log_without_its_facts(client: httpx.Client, tmp_path: Path) -> None:
    update(client, fact(value="a secret"), headers={"X-Request-Id": "find-me"})
    update(client, fact(subject=" "))
    for action in ("unmount", "mount", "rollback"):
        client.post(
            f"/v1/knowledge/modules/elements:{action}", json={"generation": 2} if action == "rollback" else None
        )
    client.delete("/v1/knowledge/modules/elements", params={"confirm": "elements"})
    client.post("/v1/admin/core", json={"core": str(tmp_path)})
    text = (tmp_path / "audit.jsonl").read_text()
    entries = [json.loads(line) for line in text.splitlines()]
    assert [(it["action"], it["outcome"], it["author"]) for it in entries] == [
        ("update", "done", "local"),
        ("update", "InvalidChange", "local"),
        ("unmount", "done", "local"),
        ("mount", "done", "local"),
        ("rollback", "done", "local"),
        ("delete", "done", "local"),
        ("core", "refused", "local"),
    ]
    assert entries[0]["request_id"] == "find-me"
    assert "secret" not in text


def test_a_large_update_does_not_hold_up_questions(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "".join(json.dumps(fact(f"s{n}", "r", f"v{n}")) + "\n" for n in range(9_000))
    halfway, go_on = threading.Event(), threading.Event()

    def read_and_wait(*given: Any) -> Iterator[FactChange | Problem]:
        for number, item in enumerate(read_changes(*given)):
            if number == 8_000:
                halfway.set()
                assert go_on.wait(60), "nobody let the update go on"
            yield item

    monkeypatch.setattr(service.api.update, "read_changes", read_and_wait)
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(client.post, "/update_knowledge?module=big", content=lines, headers=NDJSON)
        try:
            assert halfway.wait(60), "the update did not come to its middle"
            answers = [client.post("/v1/reason", json={"question": "Kenya | capital"}) for _ in range(5)]
            assert [reply.json()["answer"] for reply in answers] == ["Nairobi"] * 5
            unseen = value_of(client, "s1 | r")
            assert not writing.done()
        finally:
            go_on.set()
    assert writing.result().json()["added"] == 9_000
    assert unseen != "v1"
    assert value_of(client, "s1 | r") == "v1"
