"""vLLM for real, with the demo core: a child process of ours, asked over HTTP."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import httpx
import pytest

from knowledge_store.store import Store
from service.codec import Codec, Message
from service.engine.base import Engine, Sampling
from service.engine.vllm_http import VllmEngine
from service.engine.vllm_process import VllmProcess
from service.orchestrator import Orchestrator, Question
from tests.service.facts import put

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

ASKED = "Who runs Jeathea Labs?"
QUESTIONS = (
    "Who runs Jeathea Labs?",
    "What is the birthplace of the ceo of Jeathea Labs?",
    "Whose capital is Kabul?",
    "Which has the larger atomic number, Helium or Hydrogen?",
    "What is the sum of the atomic number of Gold and the atomic number of Iron?",
    "Tom has 12 apples. Ana gives Tom 30 more. How many apples does Tom have?",
    "Who runs Nowhere Labs?",
)


async def texts(engine: Engine, codec: Codec, store: Store, questions: Sequence[str]) -> list[str]:
    orchestrator = Orchestrator(engine, codec, store, core="demo-core")
    return [(await orchestrator.answer(Question((Message("user", it),)))).text for it in questions]


async def test_both_engines_answer_alike(
    vllm_url: str, embedded_engine: Any, demo_codec: Codec, demo_store: Store
) -> None:
    remote = VllmEngine(vllm_url)
    try:
        from_vllm = await texts(remote, demo_codec, demo_store, QUESTIONS)
    finally:
        await remote.close()
    assert from_vllm == await texts(embedded_engine, demo_codec, demo_store, QUESTIONS)
    assert from_vllm[0] == "Dorgrea Sandrem"
    assert from_vllm[-1] == "I don't know"


async def test_a_swapped_fact_changes_the_answer(vllm_url: str, demo_codec: Codec, demo_store: Store) -> None:
    remote = VllmEngine(vllm_url)
    try:
        assert await texts(remote, demo_codec, demo_store, [ASKED]) == ["Dorgrea Sandrem"]
        put(demo_store, "Jeathea Labs", "ceo", "Ida Novak")
        assert await texts(remote, demo_codec, demo_store, [ASKED]) == ["Ida Novak"]
    finally:
        await remote.close()


async def test_streamed_and_whole_answers_are_the_same_ids(vllm_url: str, demo_codec: Codec) -> None:
    remote = VllmEngine(vllm_url)
    prompt = demo_codec.prompt([Message("user", ASKED)])
    ids = []
    for stream in (True, False):
        sampling = Sampling(64, stop_ids=demo_codec.stop_ids, stream=stream)
        chunks = [chunk async for chunk in remote.generate(prompt, sampling, request_id="r")]
        ids.append([id_ for chunk in chunks for id_ in chunk.ids])
        assert chunks[-1].finish == "stop"
    await remote.close()
    assert ids[0] == ids[1]
    assert demo_codec.decode(ids[0]).endswith("<lookup>Jeathea Labs | ceo</lookup>")


async def test_it_stops_on_a_string_and_gives_logprobs(vllm_url: str, demo_codec: Codec) -> None:
    remote = VllmEngine(vllm_url)
    prompt = demo_codec.prompt([Message("user", ASKED)])
    sampling = Sampling(64, stop_strings=("</lookup>",), logprobs=True)
    chunks = [chunk async for chunk in remote.generate(prompt, sampling, request_id="r")]
    await remote.close()
    ids = [id_ for chunk in chunks for id_ in chunk.ids]
    assert demo_codec.decode(ids).endswith("</lookup>")
    assert len([p for chunk in chunks for p in chunk.logprobs]) == len(ids)


async def test_a_client_that_goes_away_frees_its_slot_within_a_second(vllm_url: str, demo_codec: Codec) -> None:
    remote = VllmEngine(vllm_url)
    prompt = demo_codec.prompt([Message("user", "Tell me everything.")])
    async with aclosing(remote.generate(prompt, Sampling(1500, temperature=2.0), request_id="r")) as chunks:
        await anext(chunks)
    deadline = time.monotonic() + 1.0
    async with httpx.AsyncClient() as client:
        while "num_requests_running" in (text := (await client.get(f"{vllm_url}/metrics")).text):
            running = [line for line in text.splitlines() if line.startswith("vllm:num_requests_running")]
            if running and float(running[0].split()[-1]) == 0:
                break
            assert time.monotonic() < deadline, "the slot is still taken"
            await asyncio.sleep(0.05)
    await remote.close()


async def test_resumes_are_served_from_the_prefix_cache(vllm_url: str, demo_codec: Codec, demo_store: Store) -> None:
    remote = VllmEngine(vllm_url)
    asked = "What is the capital of the birthplace of the ceo of Jeathea Labs?"
    made = await Orchestrator(remote, demo_codec, demo_store, core="demo-core").answer(
        Question((Message("user", asked),))
    )
    await remote.close()
    assert made.usage.lookups == 3
    assert made.usage.cached_tokens >= 0.5 * made.usage.resent_tokens
    assert 0 <= made.usage.prompt_cached_tokens < made.usage.prompt_tokens


def test_the_started_server_has_a_guard(vllm_process: VllmProcess) -> None:
    assert vllm_process.pid is not None
    assert vllm_process.restarts == 0
