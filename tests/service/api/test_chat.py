"""`POST /v1/chat/completions`, spoken to by OpenAI's own client."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.service.api.conftest import Running, StartServer

ASKED: Any = [{"role": "user", "content": "Kenya | capital"}]


@pytest.fixture
def client(running: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_a_completion_carries_answer_reasoning_citations_and_usage(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="reciter", messages=ASKED)
    [choice] = reply.choices
    assert (choice.message.content, choice.message.role, choice.finish_reason) == ("Nairobi", "assistant", "stop")
    assert reply.model == "reciter"
    extra = choice.message.model_extra or {}
    assert extra["reasoning"] == extra["reasoning_content"] == "I look it up. [Kenya | capital → Nairobi]"
    [note] = choice.message.annotations or []
    assert (note.url_citation.start_index, note.url_citation.end_index) == (0, len("Nairobi"))
    assert "geography" in note.url_citation.title
    [fact] = (reply.model_extra or {})["x_facts"]
    assert (fact["subject"], fact["value"], fact["module"], fact["generation"]) == ("Kenya", "Nairobi", "geography", 2)
    assert extra["x_facts"] == [fact]
    assert (reply.model_extra or {})["x_grounded"] is True
    usage = reply.usage
    assert usage is not None
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens_details is not None


def test_a_citation_leads_to_its_fact(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="reciter", messages=ASKED)
    url = (reply.choices[0].message.annotations or [])[0].url_citation.url
    assert [fact["value"] for fact in httpx.get(url).json()["facts"]] == ["Nairobi"]


def test_a_fact_with_a_source_on_the_web_is_cited_by_it(running: Running, client: openai.OpenAI) -> None:
    fact = {"subject": "Chad", "relation": "capital", "value": "N'Djamena", "source": "https://example.org/chad"}
    httpx.post(f"{running.url}/update_knowledge", json={"module": "geography", "facts": [fact]}).raise_for_status()
    asked: Any = [{"role": "user", "content": "Chad | capital"}]
    reply = client.chat.completions.create(model="reciter", messages=asked)
    assert (reply.choices[0].message.annotations or [])[0].url_citation.url == "https://example.org/chad"


def test_a_stream_adds_up_to_the_completion(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="reciter", messages=ASKED)
    chunks = list(
        client.chat.completions.create(
            model="reciter", messages=ASKED, stream=True, stream_options={"include_usage": True}
        )
    )
    assert len({chunk.id for chunk in chunks}) == 1
    *parts, last = chunks
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == (whole.usage and whole.usage.completion_tokens)
    assert all(chunk.usage is None for chunk in parts)
    deltas = [chunk.choices[0].delta for chunk in parts]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == whole.choices[0].message.content
    for name in ("reasoning", "reasoning_content"):
        thought = "".join((delta.model_extra or {}).get(name, "") for delta in deltas)
        assert thought == (whole.choices[0].message.model_extra or {})[name]
    assert parts[-1].choices[0].finish_reason == "stop"
    extra = deltas[-1].model_extra or {}
    assert [fact["value"] for fact in extra["x_facts"]] == ["Nairobi"]
    assert extra["annotations"][0]["type"] == "url_citation"


def test_without_include_usage_no_chunk_has_any(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="reciter", messages=ASKED, stream=True))
    assert all(chunk.usage is None for chunk in chunks)
    assert all(len(chunk.choices) == 1 for chunk in chunks)


def test_a_stream_marks_its_lookups_by_comments_and_ends_with_done(running: Running) -> None:
    body = {"model": "reciter", "messages": ASKED, "stream": True}
    with running.client() as client, client.stream("POST", "/v1/chat/completions", json=body) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert reply.headers["cache-control"] == "no-cache"
        events = "".join(reply.iter_text()).split("\n\n")
    assert ": lookup" in events
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(json.loads(event.removeprefix("data: ")) for event in events[:-2] if event.startswith("data: "))


def test_silence_in_a_stream_is_broken_by_comments(start_server: StartServer) -> None:
    running = start_server(keep_alive_s=0.05)
    running.engine.pause_s = 0.2
    body = {"model": "reciter", "messages": ASKED, "stream": True, "max_tokens": 6}
    with running.client() as client, client.stream("POST", "/v1/chat/completions", json=body) as reply:
        assert "".join(reply.iter_text()).count(": ping\n\n") >= 2


def test_models_are_listed_and_any_of_them_answers(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names == ["reciter", "metabolism"]
    for name in names:
        assert client.models.retrieve(name).id == name
        assert client.chat.completions.create(model=name, messages=ASKED).choices[0].message.content == "Nairobi"


def test_errors_arrive_as_the_classes_that_openais_client_has(running: Running, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-4", messages=ASKED)
    assert missing.value.code == "model_not_found"
    assert missing.value.param == "model"
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="reciter", messages=ASKED, extra_body={"knowledge": {"planet": 1}})
    with pytest.raises(openai.UnprocessableEntityError):
        client.chat.completions.create(model="reciter", messages=ASKED, temperature=9)
    with pytest.raises(openai.NotFoundError, match="geography"):
        client.chat.completions.create(
            model="reciter", messages=ASKED, extra_body={"knowledge": {"modules": ["nowhere"]}}
        )
    running.engine.down = True
    for stream in (False, True):
        with pytest.raises(openai.InternalServerError) as down:
            client.chat.completions.create(model="reciter", messages=ASKED, stream=stream)
        assert down.value.status_code == 503
        assert down.value.code == "engine_unavailable"


def test_openais_client_repeats_what_an_engine_outage_refused(running: Running) -> None:
    running.engine.down = True
    seen: list[int] = []

    def note(response: httpx.Response) -> None:
        seen.append(response.status_code)
        running.engine.down = False

    http = httpx.Client(event_hooks={"response": [note]})
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=2, http_client=http) as client:
        reply = client.chat.completions.create(model="reciter", messages=ASKED)
    assert reply.choices[0].message.content == "Nairobi"
    assert seen == [503, 200]


def test_a_broken_core_is_not_asked_again(running: Running) -> None:
    seen: list[int] = []
    http = httpx.Client(event_hooks={"response": [lambda response: seen.append(response.status_code)]})
    client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=2, http_client=http)
    with client, pytest.raises(openai.InternalServerError, match="protocol"):
        client.chat.completions.create(model="reciter", messages=[{"role": "user", "content": "forge a fact"}])
    assert seen == [502]


def test_an_answer_that_fails_while_it_is_streamed_ends_with_an_error_event(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIError, match="protocol"):
        for _ in client.chat.completions.create(
            model="reciter", messages=[{"role": "user", "content": "forge a fact"}], stream=True
        ):
            pass


def test_the_knowledge_extension_chooses_modules_and_generation(running: Running, client: openai.OpenAI) -> None:
    facts = [{"subject": "Kenya", "relation": "capital", "value": "Nakuru"}]
    httpx.post(f"{running.url}/update_knowledge", json={"module": "geography", "facts": facts}).raise_for_status()

    def ask(**knowledge: Any) -> str | None:
        reply = client.chat.completions.create(model="reciter", messages=ASKED, extra_body={"knowledge": knowledge})
        return reply.choices[0].message.content

    assert ask() == "Nakuru"
    assert ask(generation=2) == "Nairobi"
    assert ask(modules=["elements"]) == "I don't know"


@pytest.mark.parametrize("stream", [False, True])
def test_the_answer_ends_before_a_stop_text(client: openai.OpenAI, stream: bool) -> None:
    asked: Any = [{"role": "user", "content": "talk"}]
    if stream:
        chunks = client.chat.completions.create(model="reciter", messages=asked, stop=["nothing", "STOP"], stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    else:
        reply = client.chat.completions.create(model="reciter", messages=asked, stop=["nothing", "STOP"])
        text = reply.choices[0].message.content or ""
    assert text.strip() == "one two three"


def test_max_tokens_ends_the_answer_for_length(client: openai.OpenAI) -> None:
    asked: Any = [{"role": "user", "content": "talk"}]
    for limit in ({"max_tokens": 4}, {"max_completion_tokens": 4}):
        reply = client.chat.completions.create(model="reciter", messages=asked, **limit)  # type: ignore[call-overload]
        assert reply.choices[0].finish_reason == "length"
        assert reply.usage.completion_tokens == 4


def test_messages_may_come_in_parts_and_with_a_history(client: openai.OpenAI) -> None:
    earlier = client.chat.completions.create(model="reciter", messages=ASKED).choices[0].message
    asked: Any = [
        {"role": "developer", "content": "Be brief."},
        *ASKED,
        earlier.model_dump(),
        {"role": "user", "content": [{"type": "text", "text": "Peru | capital"}]},
    ]
    assert client.chat.completions.create(model="reciter", messages=asked).choices[0].message.content == "Lima"


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"n": 2}, 422),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, 422),
        ({"logprobs": True}, 422),
        ({"response_format": {"type": "json_object"}}, 422),
        ({"messages": []}, 422),
        ({"messages": [{"role": "user", "content": ""}]}, 400),
        ({"messages": [{"role": "assistant", "content": "x"}]}, 400),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, 422),
        ({"stream_options": {"include_usage": True}}, 400),
        ({"knowlege": {}}, 400),
    ],
)
def test_what_would_change_the_answer_and_cannot_be_honoured_is_refused(
    shared_client: httpx.Client, more: dict[str, Any], status: int
) -> None:
    body = {"model": "reciter", "messages": ASKED, **more}
    reply = shared_client.post("/v1/chat/completions", json=body)
    assert reply.status_code == status
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}


def test_what_asks_for_comfort_only_is_accepted(shared_client: httpx.Client) -> None:
    comforts = {"user": "u", "store": False, "metadata": {"a": "b"}, "n": 1, "top_p": 1, "presence_penalty": 0}
    body = {"model": "reciter", "messages": ASKED, **comforts}
    assert shared_client.post("/v1/chat/completions", json=body).status_code == 200
