"""Lookups at each step against plain retrieval: the same core, the same store, two- and three-hop questions.

The peer retrieves once, with the question, and answers from what it got: every fact of each subject that the question
names, found in the store by name, written as sentences before the question. That is the best a single retrieval can do
here; what the second hop needs is not named in the question. Prints a table and one last line of JSON.
"""

import asyncio
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from benchmarks.phrasing import Asker, Item, read_rows
from benchmarks.setting import Bench, bench, import_rows
from knowledge_store.store import Store
from service.detect.spot import spot_subjects

HOPS = ("one hop", "two hops", "three hops")


@click.command()
@click.option("--core", type=click.Path(path_type=Path), default=Path("models/demo-core"), show_default=True)
@click.option("--engine", default="embedded", show_default=True)
@click.option("--questions", default=50, show_default=True, help="How many of each depth.")
@click.option("--streams", default=16, show_default=True)
@click.option("--seed", default=6, show_default=True)
def main(core: Path, engine: str, questions: int, streams: int, seed: int) -> None:
    """Print the share of right answers, ours and plain RAG's."""
    shares = asyncio.run(_measure(core, engine, questions, streams, seed))
    print(f"{'':<12}{'ours':>8}{'plain RAG':>12}")
    for kind in HOPS:
        print(f"{kind:<12}{shares[kind]['ours']:>8.3f}{shares[kind]['rag']:>12.3f}")
    print(json.dumps({"benchmark": "rag", "questions": questions, "shares": shares}))


async def _measure(core: Path, engine: str, questions: int, streams: int, seed: int) -> dict[str, dict[str, float]]:
    rows = read_rows()
    asker = Asker(rows, seed)
    shares: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder) / "facts.sqlite")
        import_rows(store, rows)
        for kind in HOPS:
            items = [asker.draw(kind) for _ in range(questions)]
            stuffed = [_retrieve(store, item.question) for item in items]
            shares[kind] = {}
            for name, texts, teaching in (
                ("ours", [item.question for item in items], None),
                ("rag", stuffed, ""),
            ):
                async with bench(engine, core, store, teaching=teaching) as it:
                    shares[kind][name] = await _share(it, items, texts, streams, calls=name == "ours")
        store.close()
    return shares


def _retrieve(store: Store, question: str) -> str:
    with store.generation() as generation:
        facts = [fact for subject in spot_subjects(question, generation) for fact in subject.facts]
    sentences = [f"The {fact.relation} of {fact.subject} is {fact.value}." for fact in facts]
    return f"{' '.join(sentences)}\n{question}"


async def _share(it: Bench, items: Sequence[Item], texts: Sequence[str], streams: int, *, calls: bool) -> float:
    """Count right answers; plain RAG's only where the core did not look up after all."""
    answers = await it.ask_all(texts, streams=streams)
    right = [
        answer.text.casefold() == item.answer.casefold() and (calls or answer.usage.lookups == 0)
        for item, answer in zip(items, answers, strict=True)
    ]
    return sum(right) / len(right)


if __name__ == "__main__":
    main()
