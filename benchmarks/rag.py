"""Lookups at each step against plain retrieval: the same core, the same store, two- and three-hop questions.

The peer retrieves once, with the question, and answers from what it got: every fact of each subject that the question
names, found in the store by name, written as sentences before the question. That is the best a single retrieval can do
here; what the second hop needs is not named in the question. The core was trained to ask: where it asks after all, that
is no plain RAG and counts as wrong, and the table says how often. Prints a table with 95 % intervals (Wilson) and one
last line of JSON.
"""

import asyncio
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from benchmarks.phrasing import Asker, Item, read_rows
from benchmarks.setting import Bench, bench, import_rows
from knowledge_store.store import Store
from service.detect.spot import spot_subjects
from trainer.evaluate.statistic import wilson

HOPS = ("one hop", "two hops", "three hops")


@dataclass(frozen=True, slots=True)
class Score:
    """How many were right, of how many; and in how many the core looked something up."""

    right: int
    of: int
    asked: int

    def __str__(self) -> str:
        bounds = wilson(self.right, self.of)
        return f"{self.right} of {self.of} ({bounds.low:.1%} to {bounds.high:.1%})"


@click.command()
@click.option("--core", type=click.Path(path_type=Path), default=Path("models/demo-core"), show_default=True)
@click.option("--engine", default="embedded", show_default=True)
@click.option("--questions", default=100, show_default=True, help="How many of each depth.")
@click.option("--streams", default=16, show_default=True)
@click.option("--seed", default=6, show_default=True)
def main(core: Path, engine: str, questions: int, streams: int, seed: int) -> None:
    """Print the share of right answers, ours and plain RAG's."""
    scores = asyncio.run(_measure(core, engine, questions, streams, seed))
    print(f"{'':<12}{'ours':>30}{'plain RAG':>30}{'asked after all':>18}")
    for kind in HOPS:
        ours, rag = scores[kind]["ours"], scores[kind]["rag"]
        print(f"{kind:<12}{ours!s:>30}{rag!s:>30}{f'{rag.asked} of {rag.of}':>18}")
    told = {kind: {name: asdict(score) for name, score in by_name.items()} for kind, by_name in scores.items()}
    print(json.dumps({"benchmark": "rag", "questions": questions, "scores": told}))


async def _measure(core: Path, engine: str, questions: int, streams: int, seed: int) -> dict[str, dict[str, Score]]:
    rows = read_rows()
    asker = Asker(rows, seed)
    scores: dict[str, dict[str, Score]] = {}
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder) / "facts.sqlite")
        import_rows(store, rows)
        for kind in HOPS:
            items = [asker.draw(kind) for _ in range(questions)]
            stuffed = [_retrieve(store, item.question) for item in items]
            scores[kind] = {}
            for name, texts, teaching in (
                ("ours", [item.question for item in items], None),
                ("rag", stuffed, ""),
            ):
                async with bench(engine, core, store, teaching=teaching) as it:
                    scores[kind][name] = await _score(it, items, texts, streams, may_ask=name == "ours")
        store.close()
    return scores


def _retrieve(store: Store, question: str) -> str:
    with store.generation() as generation:
        facts = [fact for subject in spot_subjects(question, generation) for fact in subject.facts]
    sentences = [f"The {fact.relation} of {fact.subject} is {fact.value}." for fact in facts]
    return f"{' '.join(sentences)}\n{question}"


async def _score(it: Bench, items: Sequence[Item], texts: Sequence[str], streams: int, *, may_ask: bool) -> Score:
    """Count right answers; without `may_ask` only those where the core looked nothing up."""
    answers = await it.ask_all(texts, streams=streams)
    right = [
        answer.text.casefold() == item.answer.casefold() and (may_ask or answer.usage.lookups == 0)
        for item, answer in zip(items, answers, strict=True)
    ]
    return Score(sum(right), len(right), sum(answer.usage.lookups > 0 for answer in answers))


if __name__ == "__main__":
    main()
