"""The embedded engine with the demo core, for real: greedy, cached, cancellable."""

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

pytest.importorskip("torch")

from knowledge_store.store import Store
from service.codec import Codec, Message
from service.engine.base import Chunk, Sampling
from service.engine.embedded import EmbeddedEngine
from service.errors import CoreUnusable, EngineRefused
from service.orchestrator import Orchestrator
from service.question import Question

ASKED = "Who runs Jeathea Labs?"
CALL = "<think>\nI need the ceo of Jeathea Labs. <lookup>Jeathea Labs | ceo</lookup>"


async def sample(engine: EmbeddedEngine, ids: list[int], sampling: Sampling) -> list[Chunk]:
    return [chunk async for chunk in engine.generate(ids, sampling, request_id="r")]


def joined(chunks: list[Chunk]) -> list[int]:
    return [id_ for chunk in chunks for id_ in chunk.ids]


async def test_the_core_stops_at_its_call(embedded_engine: EmbeddedEngine, demo_codec: Codec) -> None:
    prompt = demo_codec.prompt([Message("user", ASKED)])
    chunks = await sample(embedded_engine, prompt, Sampling(64, stop_ids=demo_codec.stop_ids))
    assert demo_codec.decode(joined(chunks)) == CALL
    assert [chunk.finish for chunk in chunks[-2:]] == [None, "stop"]


async def test_it_stops_on_a_string_too(embedded_engine: EmbeddedEngine, demo_codec: Codec) -> None:
    prompt = demo_codec.prompt([Message("user", ASKED)])
    chunks = await sample(embedded_engine, prompt, Sampling(64, stop_strings=("Labs.",)))
    assert demo_codec.decode(joined(chunks)).endswith("Labs.")
    assert chunks[-1].finish == "stop"


async def test_a_resume_reuses_the_cache_and_samples_the_same(
    embedded_engine: EmbeddedEngine, demo_codec: Codec
) -> None:
    prompt = demo_codec.prompt([Message("user", ASKED)])
    sampling = Sampling(64, stop_ids=demo_codec.stop_ids)
    sampled = joined(await sample(embedded_engine, prompt, sampling))
    resumed = [*prompt, *sampled, *demo_codec.encode_trusted("<fact>Ida Novak</fact>")]
    warm = await sample(embedded_engine, resumed, sampling)
    await asyncio.wrap_future(embedded_engine._worker.submit(embedded_engine._caches.clear))
    cold = await sample(embedded_engine, resumed, sampling)
    assert joined(warm) == joined(cold)
    assert demo_codec.decode(joined(warm)) == "\n</think>\nIda Novak<|im_end|>"
    assert (warm[-1].cached_tokens or 0) >= len(prompt) + len(sampled) - 1
    assert cold[-1].cached_tokens == 0


async def test_of_a_prompt_no_more_is_told_to_be_cached_than_it_has(
    embedded_engine: EmbeddedEngine, demo_codec: Codec, demo_store: Store
) -> None:
    asked = Question((Message("user", "What is the capital of the birthplace of the ceo of Jeathea Labs?"),))
    made = await Orchestrator(embedded_engine, demo_codec, demo_store, core="demo-core").answer(asked)
    assert 0 <= made.usage.prompt_cached_tokens < made.usage.prompt_tokens
    assert made.usage.cached_tokens > made.usage.prompt_tokens, "what resumes had from the cache is counted apart"


async def test_another_conversation_does_not_disturb_the_first(
    embedded_engine: EmbeddedEngine, demo_codec: Codec
) -> None:
    sampling = Sampling(6, stop_ids=demo_codec.stop_ids)
    prompts = [demo_codec.prompt([Message("user", text)]) for text in (ASKED, "Where is Jeathea Labs based?", "hello")]
    alone = [joined(await sample(embedded_engine, prompt, sampling)) for prompt in prompts]
    together = await asyncio.gather(*(sample(embedded_engine, prompt, sampling) for prompt in prompts))
    assert [joined(chunks) for chunks in together] == alone


async def test_closing_the_generator_frees_the_worker_between_two_tokens(
    embedded_engine: EmbeddedEngine, demo_codec: Codec
) -> None:
    prompt = demo_codec.prompt([Message("user", ASKED)])
    async with aclosing(embedded_engine.generate(prompt, Sampling(1500), request_id="r")) as chunks:
        await anext(chunks)
    quick = sample(embedded_engine, prompt, Sampling(1))
    assert len(await asyncio.wait_for(quick, 10)) == 1


async def test_a_seed_gives_the_same_samples_and_logprobs_are_given(
    embedded_engine: EmbeddedEngine, demo_codec: Codec
) -> None:
    prompt = demo_codec.prompt([Message("user", "Tell me something.")])
    sampling = Sampling(8, temperature=1.5, top_p=0.95, seed=7, logprobs=True)
    one, other = [await sample(embedded_engine, prompt, sampling) for _ in range(2)]
    assert joined(one) == joined(other)
    assert all(-50 < p <= 0 for chunk in one for p in chunk.logprobs)
    assert sum(len(chunk.logprobs) for chunk in one) == len(joined(one))


async def test_the_budget_ends_a_stretch(embedded_engine: EmbeddedEngine, demo_codec: Codec) -> None:
    chunks = await sample(embedded_engine, demo_codec.prompt([Message("user", ASKED)]), Sampling(3))
    assert (len(joined(chunks)), chunks[-1].finish) == (3, "length")


@pytest.mark.parametrize("prompt", [[], [5] * 2048, [6144], [-1]])
async def test_an_impossible_prompt_is_refused(embedded_engine: EmbeddedEngine, prompt: list[int]) -> None:
    with pytest.raises(EngineRefused):
        await sample(embedded_engine, prompt, Sampling(1))


def test_a_folder_without_a_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(CoreUnusable, match="holds no model"):
        EmbeddedEngine.load(tmp_path)
