"""Which steps need a fact, and who sees it? Prints precision, recall and F1 of each detector, and what they achieve.

The set: the first step that the base writes for questions that need a fact (it recalls it, or asks), and for word
problems, logic and open-book questions, which need none. Then counterfactual swaps: how often the answer has the
store's value with calls alone, and with every detector. Last, how often the core looks something up where nothing is to
be looked up::

    python -m benchmarks.detectors --base models/demo-base --engine embedded
"""

import asyncio
import json
import random
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from benchmarks.phrasing import Asker, Item, Row, draw_logic, draw_open_book, draw_problem, read_rows
from benchmarks.setting import Bench, bench, import_rows, put
from knowledge_store.generation import Generation
from knowledge_store.protocol import SYSTEM_PROMPT
from knowledge_store.store import Store
from service.detect.base import Draft, StepDetector, Verdict
from service.detect.claim import ClaimDetector
from service.detect.uncertainty import UncertaintyDetector

DETECTORS: dict[str, StepDetector] = {"uncertainty": UncertaintyDetector(), "claim": ClaimDetector()}


class Collector:
    """A detector that objects to nothing and keeps the first draft of each question."""

    needs_logprobs = True

    def __init__(self) -> None:
        self.drafts: dict[str, Draft] = {}

    def judge(self, draft: Draft, _generation: Generation) -> Verdict:
        """Keep `draft`."""
        self.drafts.setdefault(draft.question, replace(draft, calls=tuple(draft.calls)))
        return None


@click.command()
@click.option("--base", type=click.Path(path_type=Path, exists=True), required=True, help="A core that still recalls.")
@click.option("--core", type=click.Path(path_type=Path), default=Path("models/demo-core"), show_default=True)
@click.option("--engine", default="embedded", show_default=True, help="For the base: embedded, vllm or a URL.")
@click.option("--core-engine", default="embedded", show_default=True)
@click.option("--steps", default=600, show_default=True, help="Labelled steps, half of which need no fact.")
@click.option("--swaps", default=200, show_default=True)
@click.option("--pure", default=200, show_default=True, help="Problems and logic for the core.")
@click.option("--streams", default=16, show_default=True)
@click.option("--seed", default=3, show_default=True)
def main(
    base: Path,
    core: Path,
    engine: str,
    core_engine: str,
    steps: int,
    swaps: int,
    pure: int,
    streams: int,
    seed: int,
) -> None:
    """Print what each detector sees, and what the union achieves."""
    summary = asyncio.run(_measure(base, core, engine, core_engine, steps, swaps, pure, streams, seed))
    print(json.dumps({"benchmark": "detectors", **summary}))


async def _measure(
    base: Path, core: Path, engine: str, core_engine: str, steps: int, swaps: int, pure: int, streams: int, seed: int
) -> dict[str, object]:
    rows = read_rows()
    asker, dice = Asker(rows, seed), random.Random(seed)
    summary: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder) / "facts.sqlite")
        import_rows(store, rows)
        if steps:
            labelled = _label(asker, dice, steps)
            summary["steps"] = await _score_steps(base, engine, store, labelled, streams)
        if pure:
            items = [draw_problem(dice) if place % 2 else draw_logic(dice) for place in range(pure)]
            async with bench(core_engine, core, store, detectors=list(DETECTORS.values())) as it:
                answers = await it.ask_all([item.question for item in items], streams=streams)
            false = sum(answer.usage.lookups > 0 for answer in answers)
            right = sum(answer.text == item.answer for item, answer in zip(items, answers, strict=True))
            print(f"false lookups of the core on {pure} problems and logic: {false}; {right} right")
            summary["false_lookup_share"] = false / pure
        if swaps:
            summary["swaps"] = await _score_swaps(base, engine, store, [asker.swap() for _ in range(swaps)], streams)
        store.close()
    return summary


def _label(asker: Asker, dice: random.Random, steps: int) -> dict[str, tuple[bool, Item]]:
    """Draw questions, no two alike, with whether their first step needs a fact."""
    labelled: dict[str, tuple[bool, Item]] = {}
    makers = (lambda: draw_problem(dice), lambda: draw_logic(dice), lambda: draw_open_book(asker, dice))
    while sum(needs for needs, _ in labelled.values()) < steps // 2:
        item = asker.one_hop()
        labelled[item.question] = (True, item)
    place = 0
    while len(labelled) < steps:
        item = makers[place % 3]()
        labelled.setdefault(item.question, (False, item))
        place += 1
    return labelled


async def _score_steps(
    base: Path, engine: str, store: Store, labelled: dict[str, tuple[bool, Item]], streams: int
) -> dict[str, dict[str, float]]:
    fired: dict[str, dict[str, bool]] = {}
    for name, teaching in (("call", ""), ("taught", SYSTEM_PROMPT)):
        collector = Collector()
        async with bench(engine, base, store, detectors=[collector], teaching=teaching) as it:
            await it.ask_all(list(labelled), streams=streams)
        fired[name] = {q: _asks_memory(draft) for q, draft in collector.drafts.items()}
        if name == "call":
            with store.generation() as generation:
                for kind, detector in DETECTORS.items():
                    drafts = collector.drafts.items()
                    fired[kind] = {q: detector.judge(draft, generation) is not None for q, draft in drafts}
    parts = ("call", "uncertainty", "claim")
    fired["union"] = {q: any(fired[name].get(q, False) for name in parts) for q in labelled}
    scores = {name: _score(seen, labelled) for name, seen in fired.items()}
    print(f"{'detector':<14}{'precision':>10}{'recall':>10}{'F1':>10}   on {len(labelled)} steps")
    for name, score in scores.items():
        print(f"{name:<14}" + "".join(f"{score[it]:>10.3f}" for it in ("precision", "recall", "f1")))
    return scores


def _asks_memory(draft: Draft) -> bool:
    return any(call.kind == "lookup" for call in draft.calls[len(draft.calls) - draft.own_calls :])


def _score(seen: dict[str, bool], labelled: dict[str, tuple[bool, Item]]) -> dict[str, float]:
    hits = sum(seen.get(q, False) and needs for q, (needs, _) in labelled.items())
    alarms = sum(seen.get(q, False) for q in labelled)
    needed = sum(needs for needs, _ in labelled.values())
    precision = hits / alarms if alarms else 1.0
    recall = hits / needed
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if hits else 0.0,
    }


async def _score_swaps(base: Path, engine: str, store: Store, items: Sequence[Item], streams: int) -> dict[str, float]:
    """Swap every fact first, then ask: the base cannot have learnt any of it."""
    by_key = {(item.row.subject, item.row.relation): item for item in items if item.row}
    put(store, [Row(s, r, item.answer, item.row.module) for (s, r), item in by_key.items() if item.row])
    asked = list(by_key.values())
    shares: dict[str, float] = {}
    modes: tuple[tuple[str, list[StepDetector]], ...] = (
        ("call", []),
        ("call+uncertainty", [DETECTORS["uncertainty"]]),
        ("call+claim", [DETECTORS["claim"]]),
        ("union", list(DETECTORS.values())),
    )
    for name, detectors in modes:
        async with bench(engine, base, store, detectors=detectors, teaching="") as it:
            right = await _count_right(it, asked, streams)
        shares[name] = right / len(asked)
        print(f"swaps: {name:<18}{right:>4} of {len(asked)} answers have the store's value")
    return shares


async def _count_right(it: Bench, items: Sequence[Item], streams: int) -> int:
    answers = await it.ask_all([item.question for item in items], streams=streams)
    for item, answer in zip(items, answers, strict=True):
        if answer.text != item.answer:
            steps = [(step.text, step.withdrawn, [call.body for call in step.calls]) for step in answer.steps]
            click.echo(f"{item.question} wanted {item.answer!r}, got {answer.text!r}: {steps}", err=True)
    return sum(answer.text == item.answer for item, answer in zip(items, answers, strict=True))


if __name__ == "__main__":
    main()
