"""What does the service cost over bare vLLM? Prints the performance table and one last line of JSON.

The peer is the same server, asked over the same client for exactly the token sequences that the answers consisted of,
hop by hop, with nothing in between. Ours and the peer's runs alternate, question by question and round by round::

    python -m benchmarks.overhead --engine vllm
"""

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import click

from benchmarks.phrasing import Asker, read_rows
from benchmarks.setting import import_rows
from knowledge_store.store import Store
from service import alu
from service.codec import Codec, Message
from service.engine.base import Chunk, Engine, Sampling
from service.engine.select import choose_engine
from service.orchestrator import Orchestrator
from service.question import Limits, Question


@dataclass(slots=True)
class Hop:
    """One request to the engine and what came of it."""

    prompt_ids: list[int]
    sampling: Sampling
    sampled: list[int] = field(default_factory=list)
    cached_tokens: int | None = None
    first_chunk_at: float = 0.0


class Tape:
    """An engine that passes through and keeps each request, to play it again without the service."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.hops: dict[str, list[Hop]] = {}

    async def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, *, request_id: str
    ) -> AsyncGenerator[Chunk, None]:
        """Pass through."""
        hop = Hop(list(prompt_ids), sampling)
        self.hops.setdefault(request_id.rpartition("-")[0], []).append(hop)
        async with aclosing(self._engine.generate(prompt_ids, sampling, request_id=request_id)) as chunks:
            async for chunk in chunks:
                hop.first_chunk_at = hop.first_chunk_at or time.perf_counter()
                hop.sampled += chunk.ids
                hop.cached_tokens = chunk.cached_tokens
                yield chunk

    async def check(self) -> None:
        """Pass through."""
        await self._engine.check()

    async def close(self) -> None:
        """Pass through."""
        await self._engine.close()


@click.command()
@click.option("--core", type=click.Path(path_type=Path), default=Path("models/demo-core"), show_default=True)
@click.option("--engine", default="vllm", show_default=True, help="vllm or a server's URL.")
@click.option("--questions", default=60, show_default=True)
@click.option("--streams", default=32, show_default=True)
@click.option("--rounds", default=3, show_default=True, help="Rounds of each at many streams.")
@click.option("--block-size", default=32, show_default=True, help="The engine's: 32 on a CPU, 16 on a GPU.")
@click.option("--seed", default=4, show_default=True)
def main(core: Path, engine: str, questions: int, streams: int, rounds: int, block_size: int, seed: int) -> None:
    """Print our cost, our throughput, the use of the prefix cache and the time to the first step."""
    summary = asyncio.run(_measure(core, engine, questions, streams, rounds, block_size, seed))
    print(json.dumps({"benchmark": "overhead", **summary}))


async def _measure(
    core: Path, engine: str, questions: int, streams: int, rounds: int, block_size: int, seed: int
) -> dict[str, float]:
    rows = read_rows()
    asker = Asker(rows, seed)
    asked = [asker.draw(kind).question for _ in range(questions // 3) for kind in ("one hop", "two hops", "three hops")]
    chosen = await choose_engine(engine, core)
    alu.warm_up()
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder) / "facts.sqlite")
        import_rows(store, rows)
        tape = Tape(chosen.engine)
        ours = Orchestrator(tape, Codec.load(core), store, core=core.name)
        summary = {"prefix_cache_share": await _cold_pass(ours, tape, asked, block_size)}
        summary |= await _one_stream(ours, chosen.engine, tape, asked)
        summary |= await _many_streams(ours, chosen.engine, tape, asked, streams, rounds)
        summary["first_step_after_first_token_ms"] = await _first_step(ours, tape, asked)
        store.close()
    await chosen.engine.close()
    _print(summary)
    return summary


def _question(text: str, name: str) -> Question:
    return Question((Message("user", text),), limits=Limits(timeout_s=600), request_id=name)


async def _cold_pass(ours: Orchestrator, tape: Tape, asked: Sequence[str], block_size: int) -> float:
    """Ask each question for the first time; return the cached share of what block rounding allows on resumes."""
    cached = allowed = 0
    for place, text in enumerate(asked):
        await ours.answer(_question(text, f"q{place}"))
        hops = tape.hops[f"q{place}"]
        for before, hop in pairwise(hops):
            computed = len(before.prompt_ids) + len(before.sampled) - 1
            allowed += min(computed, len(hop.prompt_ids) - 1) // block_size * block_size
            cached += hop.cached_tokens or 0
    return cached / allowed if allowed else 0.0


async def _replay(engine: Engine, hops: Sequence[Hop]) -> None:
    for hop in hops:
        async with aclosing(engine.generate(hop.prompt_ids, hop.sampling, request_id="peer")) as chunks:
            async for _ in chunks:
                pass


async def _one_stream(ours: Orchestrator, engine: Engine, tape: Tape, asked: Sequence[str]) -> dict[str, float]:
    """Time each question both ways, in turn, with everything in the cache; the own time is also what we account."""
    ours_s: list[float] = []
    peer_s: list[float] = []
    own_s: list[float] = []
    for place, text in enumerate(asked):
        hops = list(tape.hops[f"q{place}"])
        for way in ("ours", "peer") if place % 2 else ("peer", "ours"):
            started = time.perf_counter()
            if way == "peer":
                await _replay(engine, hops)
                peer_s.append(time.perf_counter() - started)
            else:
                answer = await ours.answer(_question(text, "again"))
                ours_s.append(time.perf_counter() - started)
                own_s.append(ours_s[-1] - answer.timings.engine_s)
    return {
        "ours_over_peer": sum(ours_s) / sum(peer_s),
        "median_ours_over_peer": statistics.median(x / y for x, y in zip(ours_s, peer_s, strict=True)),
        "own_share": sum(own_s) / (sum(ours_s) - sum(own_s)),
        "own_ms": 1e3 * statistics.median(own_s),
        "engine_ms": 1e3 * statistics.median(peer_s),
    }


async def _many_streams(
    ours: Orchestrator, engine: Engine, tape: Tape, asked: Sequence[str], streams: int, rounds: int
) -> dict[str, float]:
    work = [place % len(asked) for place in range(max(len(asked), 3 * streams))]
    recorded = [list(tape.hops[f"q{place}"]) for place in range(len(asked))]
    rates: dict[str, list[float]] = {"ours": [], "peer": []}
    for round_ in range(rounds):
        for way in ("ours", "peer") if round_ % 2 else ("peer", "ours"):
            places = asyncio.Semaphore(streams)

            async def one(place: int, way: str = way, places: asyncio.Semaphore = places) -> None:
                async with places:
                    if way == "peer":
                        await _replay(engine, recorded[place])
                    else:
                        await ours.answer(_question(asked[place], "many"))

            started = time.perf_counter()
            await asyncio.gather(*map(one, work))
            rates[way].append(len(work) / (time.perf_counter() - started))
    return {
        "answers_per_s": statistics.median(rates["ours"]),
        "peer_answers_per_s": statistics.median(rates["peer"]),
        "throughput_share": statistics.median(rates["ours"]) / statistics.median(rates["peer"]),
    }


async def _first_step(ours: Orchestrator, tape: Tape, asked: Sequence[str]) -> float:
    """Return the median time from the engine's first token to our first event, in milliseconds."""
    delays = []
    for place, text in enumerate(asked[:20]):
        async with aclosing(ours.stream(_question(text, f"first{place}"))) as events:
            await anext(events)
            delays.append(time.perf_counter() - tape.hops[f"first{place}"][0].first_chunk_at)
    return 1e3 * statistics.median(delays)


def _print(summary: dict[str, float]) -> None:
    lines = (
        ("own time over the engine's, one stream", f"{100 * summary['own_share']:.2f} %", "at most 5 %"),
        ("whole time over the peer's, one stream", f"{100 * summary['ours_over_peer']:.1f} %", "at most 105 %"),
        ("answers/s at many streams, of the peer's", f"{100 * summary['throughput_share']:.1f} %", "at least 95 %"),
        ("cached on resumes, of what blocks allow", f"{100 * summary['prefix_cache_share']:.1f} %", "at least 90 %"),
        ("first step after the first token", f"{summary['first_step_after_first_token_ms']:.1f} ms", "within 20 ms"),
    )
    for name, value, target in lines:
        print(f"{name:<44}{value:>12}   {target}")


if __name__ == "__main__":
    main()
