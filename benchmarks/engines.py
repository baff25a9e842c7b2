"""Do the two engines sample the same tokens? Prints every difference with its explanation, and a last line of JSON.

Greedy decoding of the same questions on both. Where they part, the core's own logits say how close the two tokens were:
logits are bfloat16, so two tokens less than one step of that format apart are a tie, broken by the order in which an
engine sums::

    python -m benchmarks.engines --against http://127.0.0.1:8000
"""

import asyncio
import json
import math
import tempfile
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import torch
from transformers import AutoModelForCausalLM

from benchmarks.phrasing import KINDS, Asker, read_rows
from benchmarks.setting import import_rows
from knowledge_store.store import Store
from service import alu
from service.codec import Codec, Message
from service.engine.base import Chunk, Engine, Sampling
from service.engine.select import choose_engine
from service.orchestrator import Orchestrator
from service.question import Limits, Question

_BF16_STEP = 2.0**-7  # the distance of neighbouring bfloat16 numbers, as a share of the power of two below them


class Recorder:
    """An engine that remembers what another one sampled, turn by turn."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.turns: dict[str, list[int]] = defaultdict(list)
        self.prompts: dict[str, list[list[int]]] = defaultdict(list)
        self.hops: dict[str, list[list[int]]] = defaultdict(list)

    async def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, *, request_id: str
    ) -> AsyncGenerator[Chunk, None]:
        """Pass through."""
        name = request_id.rpartition("-")[0]
        sampled: list[int] = []
        self.prompts[name].append(list(prompt_ids))
        self.hops[name].append(sampled)
        async for chunk in self._engine.generate(prompt_ids, sampling, request_id=request_id):
            sampled += chunk.ids
            yield chunk

    async def check(self) -> None:
        """Pass through."""
        await self._engine.check()

    async def close(self) -> None:
        """Pass through."""
        await self._engine.close()


@dataclass(frozen=True, slots=True)
class Difference:
    """The first place where two turns part."""

    question: str
    before: str
    tokens: tuple[str, str]
    logits: tuple[float, float]

    @property
    def is_tie(self) -> bool:
        """Whether the two logits are within two steps of bfloat16."""
        larger = max(map(abs, self.logits))
        step = math.ldexp(_BF16_STEP, math.floor(math.log2(larger)))
        return abs(self.logits[0] - self.logits[1]) <= 2 * step


@click.command()
@click.option("--core", type=click.Path(path_type=Path), default=Path("models/demo-core"), show_default=True)
@click.option("--engine", default="embedded", show_default=True)
@click.option("--against", default="vllm", show_default=True, help="vllm or a server's URL.")
@click.option("--questions", default=100, show_default=True)
@click.option("--seed", default=2, show_default=True)
def main(core: Path, engine: str, against: str, questions: int, seed: int) -> None:
    """Compare two engines token by token."""
    rows = read_rows()
    asker = Asker(rows, seed)
    kinds = list(KINDS)
    asked = [asker.draw(kinds[place % len(kinds)]).question for place in range(questions)]
    alu.warm_up()
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder) / "facts.sqlite")
        import_rows(store, rows)
        one, other = (asyncio.run(_record(name, core, store, asked)) for name in (engine, against))
        store.close()
    differences = _explain(core, asked, one, other)
    for it in differences:
        verdict = "a tie in bfloat16" if it.is_tie else "NOT a tie"
        print(f"{it.question}\n  after …{it.before!r}: {it.tokens[0]!r} or {it.tokens[1]!r}")
        print(f"  logits in float32 {it.logits[0]:.4f} and {it.logits[1]:.4f}: {verdict}")
    identical = len(asked) - len(differences)
    print(f"{identical} of {len(asked)} turns are token-identical between {engine} and {against}")
    summary = {"identical_share": identical / len(asked), "unexplained": sum(not it.is_tie for it in differences)}
    print(json.dumps({"benchmark": "engines", "questions": len(asked), **summary}))


async def _record(name: str, core: Path, store: Store, asked: Sequence[str]) -> Recorder:
    chosen = await choose_engine(name, core)
    recorder = Recorder(chosen.engine)
    orchestrator = Orchestrator(recorder, Codec.load(core), store, core=core.name)
    for place, text in enumerate(asked):
        question = Question((Message("user", text),), limits=Limits(timeout_s=600), request_id=f"q{place}")
        await orchestrator.answer(question)
    await recorder.close()
    return recorder


def _explain(core: Path, asked: Sequence[str], one: Recorder, other: Recorder) -> list[Difference]:
    codec = Codec.load(core)
    model = None
    differences = []
    for place, question in enumerate(asked):
        name = f"q{place}"
        parting = _first_parting(one, other, name)
        if parting is None:
            continue
        prefix, tokens = parting
        model = model or AutoModelForCausalLM.from_pretrained(core, dtype=torch.float32)
        with torch.inference_mode():
            logits_V = model(input_ids=torch.tensor([prefix])).logits[0, -1]
        pair = (float(logits_V[tokens[0]]), float(logits_V[tokens[1]]))
        texts = (codec.decode([tokens[0]]), codec.decode([tokens[1]]))
        differences.append(Difference(question, codec.decode(prefix[-16:]), texts, pair))
    return differences


def _first_parting(one: Recorder, other: Recorder, name: str) -> tuple[list[int], tuple[int, int]] | None:
    for prompt, left, right in zip(one.prompts[name], one.hops[name], other.hops[name], strict=False):
        for place, (x, y) in enumerate(zip(left, right, strict=False)):
            if x != y:
                return prompt + left[:place], (x, y)
    same = one.hops[name] == other.hops[name]
    assert same or not (one.hops[name] and other.hops[name]), "turns of different length part somewhere"
    return None


if __name__ == "__main__":
    main()
