"""The typed client, against answers of a server that a transport plays."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from knowledge_store.fact import Fact
from service.client import Client
from service.errors import ClientError, ServerRefused, ServerUnreachable
from service.trace import Finish

ANSWER: dict[str, Any] = {
    "answer": "Nairobi",
    "grounded": True,
    "steps": [
        {
            "index": 0,
            "text": "I look it up.",
            "calls": [
                {
                    "kind": "lookup",
                    "body": "Kenya | capital",
                    "reply": "Nairobi",
                    "outcome": "found",
                    "match": "exact",
                    "score": 1.0,
                    "fact_ids": ["ab"],
                    "elapsed_s": 0.1,
                    "detail": None,
                }
            ],
            "detector": "call",
            "error": None,
            "withdrawn": None,
        }
    ],
    "facts": [],
    "generation": 7,
    "core": "c",
    "usage": dict.fromkeys(
        (
            "prompt_tokens",
            "prompt_cached_tokens",
            "completion_tokens",
            "injected_tokens",
            "cached_tokens",
            "resent_tokens",
            "lookups",
            "calcs",
        ),
        1,
    ),
    "timings": {"total_s": 1.0, "engine_s": 0.5, "lookup_s": 0.1},
    "finish": "stop",
    "error": None,
}


def client_of(answer: Callable[[httpx.Request], httpx.Response], **more: Any) -> Client:
    return Client("http://server", transport=httpx.MockTransport(answer), sleep=lambda _: None, **more)


def test_an_answer_is_read_into_its_types() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=ANSWER)

    with client_of(answer, key="k") as client:
        read = client.reason("q", modules=["m"], generation=7)
    assert (read.text, read.finish, read.generation) == ("Nairobi", Finish.STOP, 7)
    assert read.steps[0].calls[0].fact_ids == ("ab",)
    assert seen[0].headers["authorization"] == "Bearer k"
    assert json.loads(seen[0].content) == {"question": "q", "knowledge": {"modules": ["m"], "generation": 7}}


def test_facts_are_sent_as_records() -> None:
    seen: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(json.loads(request.content))
        counts = dict.fromkeys(("generation", "added", "changed", "deleted", "unchanged"), 1)
        return httpx.Response(200, json={"module": "m", **counts, "conflicts": [], "etag": '"1.1"', "dry_run": False})

    with client_of(answer) as client:
        report = client.update_knowledge(
            [(Fact("a", "b", "c", "m"), False), (Fact("d", "e", "", "m"), True)], module="m"
        )
    assert (report.module, report.generation, report.etag) == ("m", 1, '"1.1"')
    first, second = seen[0]["facts"]
    assert first == {"subject": "a", "relation": "b", "value": "c", "op": "upsert"}
    assert second["op"] == "delete"


@pytest.mark.parametrize(("status", "calls"), [(503, 3), (429, 3), (500, 1), (400, 1), (412, 1)])
def test_only_what_may_succeed_later_is_repeated(status: int, calls: int) -> None:
    seen: list[httpx.Request] = []
    error = {"message": "no", "type": "t", "param": "p", "code": "c"}

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(status, json={"error": error}, headers={"Retry-After": "1"})

    with client_of(answer) as client, pytest.raises(ServerRefused, match="no") as refused:
        client.reason("q")
    assert len(seen) == calls
    assert (refused.value.status, refused.value.code, refused.value.param) == (status, "c", "p")


def test_a_repeat_that_succeeds_is_the_answer() -> None:
    replies: Iterator[httpx.Response] = iter([httpx.Response(503, json={}), httpx.Response(200, json=ANSWER)])
    with client_of(lambda _: next(replies)) as client:
        assert client.reason("q").text == "Nairobi"


def test_nobody_there_and_somebody_else_there_are_told_apart() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with client_of(refuse) as client, pytest.raises(ServerUnreachable, match="metabolism serve"):
        client.reason("q")
    with client_of(lambda _: httpx.Response(200, text="hello")) as client, pytest.raises(ClientError, match="JSON"):
        client.reason("q")
    with client_of(lambda _: httpx.Response(200, json={})) as client, pytest.raises(ClientError, match="not one"):
        client.reason("q")
