"""vLLM's HTTP, faked at the transport: what is sent, what is read, and that every foreign error is translated."""

import json
from collections.abc import Callable

import httpx
import pytest

from service.engine.base import Chunk, Sampling
from service.engine.vllm_http import VllmEngine
from service.errors import EngineRefused, EngineUnavailable

MODELS = {"data": [{"id": "core", "max_model_len": 64}]}


def engine(answer: Callable[[httpx.Request], httpx.Response]) -> VllmEngine:
    def route(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(200, json=MODELS)
        return answer(request)

    return VllmEngine("http://engine", transport=httpx.MockTransport(route))


async def sample(it: VllmEngine, sampling: Sampling | None = None, prompt: tuple[int, ...] = (1, 2)) -> list[Chunk]:
    return [chunk async for chunk in it.generate(prompt, sampling or Sampling(8), request_id="abc-1")]


def events(*documents: object) -> httpx.Response:
    lines = [f"data: {document if isinstance(document, str) else json.dumps(document)}\n\n" for document in documents]
    return httpx.Response(200, content=": keep-alive\n\n" + "".join(lines))


def choice(*ids: int, finish: str | None = None, logprobs: list[float] | None = None) -> dict[str, object]:
    told = None if logprobs is None else {"token_logprobs": logprobs}
    return {"choices": [{"token_ids": list(ids), "finish_reason": finish, "logprobs": told}]}


USAGE = {"choices": [], "usage": {"prompt_tokens_details": {"cached_tokens": 32}}}


async def test_a_stream_is_read_chunk_by_chunk_and_ends_with_what_was_cached() -> None:
    it = engine(lambda _: events(choice(5), choice(6, 7), choice(8, finish="stop"), USAGE, "[DONE]"))
    assert await sample(it) == [
        Chunk((5,)),
        Chunk((6, 7)),
        Chunk((8,), finish="stop", cached_tokens=32),
    ]


async def test_the_request_holds_ids_and_asks_for_ids() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return events(choice(8, finish="length", logprobs=[-0.5]), USAGE, "[DONE]")

    sampling = Sampling(
        99, temperature=0.5, top_p=0.9, seed=3, stop_ids=(4,), stop_strings=("</lookup>",), logprobs=True
    )
    (chunk,) = await sample(engine(answer), sampling)
    body = json.loads(seen[0].content)
    assert body == {
        "model": "core",
        "prompt": [1, 2],
        "max_tokens": 62,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 3,
        "stop_token_ids": [4],
        "stop": ["</lookup>"],
        "return_token_ids": True,
        "skip_special_tokens": False,
        "spaces_between_special_tokens": False,
        "logprobs": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert seen[0].headers["X-Request-Id"] == "abc-1"
    assert (chunk.logprobs, chunk.finish) == ((-0.5,), "length")


async def test_without_streaming_one_chunk_comes() -> None:
    it = engine(lambda _: httpx.Response(200, json=choice(5, 6, finish="stop") | {"usage": USAGE["usage"]}))
    assert await sample(it, Sampling(8, stream=False)) == [Chunk((5, 6), finish="stop", cached_tokens=32)]


def break_connection(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused", request=request)


def break_stream(_: httpx.Request) -> httpx.Response:
    class Broken(httpx.AsyncByteStream):
        async def __aiter__(self):  # type: ignore[no-untyped-def]
            yield f"data: {json.dumps(choice(5))}\n\n".encode()
            raise httpx.RemoteProtocolError("peer closed connection")

    return httpx.Response(200, stream=Broken())


@pytest.mark.parametrize(
    ("answer", "error", "match"),
    [
        (break_connection, EngineUnavailable, "is it running"),
        (break_stream, EngineUnavailable, "middle of an answer"),
        (lambda _: events(choice(5)), EngineUnavailable, "middle of an answer"),
        (lambda _: httpx.Response(500, text="boom"), EngineUnavailable, "500: boom"),
        (lambda _: httpx.Response(503, json={"error": {"message": "dead"}}), EngineUnavailable, "dead"),
        (lambda _: httpx.Response(404, text="no such model"), EngineUnavailable, "404"),
        (lambda _: httpx.Response(400, json={"error": {"message": "too long"}}), EngineRefused, "too long"),
        (lambda _: events({"error": {"message": "engine died"}}), EngineUnavailable, "engine died"),
        (lambda _: events(choice(5, finish="abort")), EngineUnavailable, "gave up"),
        (lambda _: events({"choices": [{"text": "x", "finish_reason": None}]}), EngineUnavailable, "no token ids"),
    ],
)
async def test_every_foreign_error_is_translated(
    answer: Callable[[httpx.Request], httpx.Response], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        await sample(engine(answer))


@pytest.mark.parametrize("document", [{}, {"data": []}, [], "x"])
async def test_a_server_that_is_no_vllm_is_told(document: object) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=document))
    with pytest.raises(EngineUnavailable, match="no vLLM server"):
        await sample(VllmEngine("http://engine", transport=transport))


async def test_a_prompt_longer_than_the_context_is_refused_without_asking() -> None:
    with pytest.raises(EngineRefused, match="shorten"):
        await sample(engine(lambda _: events()), prompt=(1,) * 64)


async def test_check_asks_the_health_route() -> None:
    await engine(lambda _: httpx.Response(200)).check()
    with pytest.raises(EngineUnavailable, match="503"):
        await engine(lambda _: httpx.Response(503)).check()


async def test_a_closed_engine_is_unavailable() -> None:
    it = engine(lambda _: events())
    await it.close()
    with pytest.raises(EngineUnavailable):
        await sample(it)
