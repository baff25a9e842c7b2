"""The engine behind a URL: a vLLM server, spoken to by token ids over its completions route.

The one file that knows vLLM's HTTP. Whether the server is ours (`vllm_process.py`) or somebody else's makes no
difference here. Closing a generator closes its stream, and vLLM frees the slot within a second.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

import httpx

from service.engine.base import Chunk, Sampling
from service.errors import EngineRefused, EngineUnavailable

_CONNECT_S = 2.0
_MAX_STOP_STRINGS = 4
_FINISHES: Mapping[str, Literal["stop", "length"]] = {"stop": "stop", "length": "length"}


class VllmEngine:
    """A vLLM server, version 0.10 or later."""

    def __init__(
        self, url: str, *, api_key: str | None = None, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.url = url.rstrip("/")
        self._client = httpx.AsyncClient(
            base_url=self.url,
            transport=transport,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(None, connect=_CONNECT_S),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=256),
        )
        self._model: str | None = None
        self._context_tokens = 0

    async def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, *, request_id: str
    ) -> AsyncGenerator[Chunk, None]:
        """Continue `prompt_ids`; see `Engine`."""
        body = self._body(prompt_ids, sampling, await self._served_model())
        request = self._client.build_request("POST", "/v1/completions", json=body, headers=_identify(request_id))
        response = await self._send(request)
        try:
            await _refuse_failure(response)
            if not sampling.stream:
                yield _read_whole(await _read(response))
                return
            async for chunk in _read_stream(response):
                yield chunk
        finally:
            await response.aclose()

    async def check(self) -> None:
        """Ask the server's health route."""
        response = await self._send(self._client.build_request("GET", "/health", timeout=_CONNECT_S))
        await response.aclose()
        if response.status_code != httpx.codes.OK:
            raise EngineUnavailable(f"the engine at {self.url} is not healthy: it answers {response.status_code}")
        await self._served_model()

    async def close(self) -> None:
        """Close the connections; the server goes on."""
        await self._client.aclose()

    def forget(self) -> None:
        """Ask anew which model is served: the server was restarted."""
        self._model = None

    async def _served_model(self) -> str:
        if self._model is None:
            response = await self._send(self._client.build_request("GET", "/v1/models", timeout=_CONNECT_S * 5))
            try:
                await _refuse_failure(response)
                card = (await _read(response))["data"][0]
                self._context_tokens = int(card.get("max_model_len") or 0)
                self._model = str(card["id"])
            except (KeyError, IndexError, TypeError) as error:
                raise EngineUnavailable(f"{self.url} is no vLLM server: /v1/models names no model") from error
            finally:
                await response.aclose()
        return self._model

    def _body(self, prompt_ids: Sequence[int], sampling: Sampling, model: str) -> dict[str, Any]:
        room = self._context_tokens - len(prompt_ids) if self._context_tokens else sampling.max_tokens
        if room <= 0:
            raise EngineRefused(
                f"the prompt has {len(prompt_ids)} tokens and the engine reads at most {self._context_tokens - 1}; "
                "shorten it"
            )
        body: dict[str, Any] = {
            "model": model,
            "prompt": list(prompt_ids),
            "max_tokens": min(sampling.max_tokens, room),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
            "stop_token_ids": list(sampling.stop_ids),
            "return_token_ids": True,
            "skip_special_tokens": False,
            "spaces_between_special_tokens": False,
        }
        if sampling.stop_strings:
            body["stop"] = list(sampling.stop_strings[:_MAX_STOP_STRINGS])
        if sampling.logprobs:
            body["logprobs"] = 0
        if sampling.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body

    async def _send(self, request: httpx.Request) -> httpx.Response:
        try:
            return await self._client.send(request, stream=True)
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            raise _unavailable(self.url, error) from error
        except RuntimeError as error:  # httpx's word for a closed client
            raise EngineUnavailable(f"the engine at {self.url} was closed") from error


def _identify(request_id: str) -> dict[str, str]:
    return {"X-Request-Id": request_id} if request_id else {}


def _unavailable(url: str, error: Exception) -> EngineUnavailable:
    reason = str(error) or type(error).__name__
    return EngineUnavailable(f"the engine at {url} does not answer ({reason}); is it running?")


async def _refuse_failure(response: httpx.Response) -> None:
    if response.status_code == httpx.codes.OK:
        return
    await _read_bytes(response)
    message = response.text[:500]
    with suppress(ValueError, KeyError, TypeError):
        message = response.json()["error"]["message"]
    if response.status_code in (httpx.codes.BAD_REQUEST, httpx.codes.UNPROCESSABLE_ENTITY):
        raise EngineRefused(f"the engine refuses the request: {message}")
    raise EngineUnavailable(f"the engine answers {response.status_code}: {message}")


async def _read_bytes(response: httpx.Response) -> bytes:
    try:
        return await response.aread()
    except (httpx.HTTPError, httpx.StreamError, OSError) as error:
        raise _unavailable(str(response.url), error) from error


async def _read(response: httpx.Response) -> Any:
    content = await _read_bytes(response)
    try:
        return json.loads(content)
    except ValueError as error:
        raise EngineUnavailable(f"the engine at {response.url} answers no JSON") from error


def _read_whole(document: Mapping[str, Any]) -> Chunk:
    return _chunk(document["choices"][0], document.get("usage"))


async def _read_stream(response: httpx.Response) -> AsyncIterator[Chunk]:
    """Read server-sent events. The last chunk waits for the usage that follows it, which tells of cached tokens."""
    last: Chunk | None = None
    async for line in _read_lines(response):
        if not line.startswith("data:"):
            continue
        data = line[5:].strip()
        if data == "[DONE]":
            break
        document = json.loads(data)
        if "error" in document:
            raise EngineUnavailable(f"the engine failed underway: {document['error'].get('message')}")
        if document["choices"]:
            chunk = _chunk(document["choices"][0], None)
            if chunk.finish is None:
                yield chunk
            else:
                last = chunk
        elif last is not None:
            last = Chunk(last.ids, last.logprobs, last.finish, _cached(document.get("usage")))
    if last is None:
        raise EngineUnavailable("the engine went away in the middle of an answer")
    yield last


async def _read_lines(response: httpx.Response) -> AsyncIterator[str]:
    try:
        async for line in response.aiter_lines():
            yield line
    except (httpx.HTTPError, httpx.StreamError, OSError) as error:
        raise EngineUnavailable(f"the engine went away in the middle of an answer ({error})") from error


def _chunk(choice: Mapping[str, Any], usage: Mapping[str, Any] | None) -> Chunk:
    reason = choice.get("finish_reason")
    if reason is not None and reason not in _FINISHES:
        raise EngineUnavailable(f"the engine gave up on the request: {reason}")
    ids = choice.get("token_ids")
    if ids is None:
        raise EngineUnavailable("the engine returns no token ids; it must be vLLM 0.10 or later")
    logprobs = choice.get("logprobs") or {}
    return Chunk(
        tuple(ids),
        tuple(logprobs.get("token_logprobs") or ()),
        _FINISHES[reason] if reason is not None else None,
        _cached(usage) if reason is not None else None,
    )


def _cached(usage: Mapping[str, Any] | None) -> int | None:
    details = (usage or {}).get("prompt_tokens_details") or {}
    cached: int | None = details.get("cached_tokens")
    return cached
