"""Is the answer right? Prints a table and one last line of JSON.

Asks questions drawn from the demo modules (one hop, two, three, reverse, comparisons, arithmetic), swaps facts and asks
for them, and asks about what is in no module. Give it `--engine` several times to compare engines in one run::

    python -m benchmarks.accuracy --engine embedded --engine vllm
"""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click

from benchmarks.phrasing import KINDS, Asker, Item, Row, read_rows
from benchmarks.setting import Bench, bench, import_rows, put
from knowledge_store.store import Store
from service.grounding import abstains
from service.trace import Answer


@click.command()
@click.option("--core", type=click.Path(path_type=Path), default=Path("models/demo-core"), show_default=True)
@click.option("--engine", "engines", multiple=True, default=("embedded",), help="embedded, vllm or a server's URL.")
@click.option("--questions", default=50, show_default=True, help="How many of each kind.")
@click.option("--swaps", default=100, show_default=True)
@click.option("--absent", default=100, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--streams", default=16, show_default=True, help="Questions underway at a time.")
def main(
    core: Path, engines: tuple[str, ...], questions: int, swaps: int, absent: int, seed: int, streams: int
) -> None:
    """Print the share of right answers, engine by engine."""
    rows = read_rows()
    asker = Asker(rows, seed)
    asked = [asker.draw(kind) for kind in KINDS for _ in range(questions)]
    swapped = [asker.swap() for _ in range(swaps)]
    known = frozenset(row.subject.casefold() for row in rows)
    unknown = [asker.absent(known) for _ in range(absent)]
    tables = {name: asyncio.run(_measure(name, core, rows, asked, swapped, unknown, streams)) for name in engines}
    _print(tables)


async def _measure(
    engine: str,
    core: Path,
    rows: Sequence[Row],
    asked: Sequence[Item],
    swapped: Sequence[Item],
    unknown: Sequence[Item],
    streams: int,
) -> dict[str, tuple[int, int, float]]:
    """Return for each kind: how many were right, of how many, in how many seconds."""
    table: dict[str, tuple[int, int, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder) / "facts.sqlite")
        import_rows(store, rows)
        async with bench(engine, core, store) as it:
            for kind in KINDS:
                items = [item for item in asked if item.kind == kind]
                table[kind] = await _score(it, items, streams)
            table["absent"] = await _score(it, unknown, streams)
            table["swap"] = await _score_swaps(it, store, swapped, streams)
        store.close()
    return table


async def _score(it: Bench, items: Sequence[Item], streams: int) -> tuple[int, int, float]:
    started = time.perf_counter()
    answers = await it.ask_all([item.question for item in items], streams=streams)
    for item, answer in zip(items, answers, strict=True):
        if not is_right(item, answer):
            _show(it.name, item, answer)
    right = sum(is_right(item, answer) for item, answer in zip(items, answers, strict=True))
    return right, len(items), time.perf_counter() - started


async def _score_swaps(it: Bench, store: Store, items: Sequence[Item], streams: int) -> tuple[int, int, float]:
    """Swap and ask, some at a time; no two swaps of one batch touch the same fact."""
    right, seconds = 0, 0.0
    for start in range(0, len(items), streams):
        batch = {(item.row.subject, item.row.relation): item for item in items[start : start + streams] if item.row}
        put(store, [Row(s, r, item.answer, item.row.module) for (s, r), item in batch.items() if item.row])
        scored = await _score(it, list(batch.values()), streams)
        right, seconds = right + scored[0], seconds + scored[2]
        right += len(items[start : start + streams]) - len(batch)
    return right, len(items), seconds


def is_right(item: Item, answer: Answer) -> bool:
    """Whether the answer is the expected one, written as the facts write it, but for case."""
    if item.kind == "absent":
        return abstains(answer.text)
    return answer.text.strip().casefold() == item.answer.casefold()


def _show(engine: str, item: Item, answer: Answer) -> None:
    steps = " / ".join(f"{step.text} {[(call.body, call.reply) for call in step.calls]}" for step in answer.steps)
    print(f"[{engine}] {item.kind}: {item.question}\n  wanted {item.answer!r}, got {answer.text!r}", file=sys.stderr)
    print(f"  {answer.finish}: {steps}", file=sys.stderr)


def _print(tables: dict[str, dict[str, tuple[int, int, float]]]) -> None:
    kinds = next(iter(tables.values()))
    print(f"{'':<14}" + "".join(f"{name[:28]:>30}" for name in tables))
    for kind in kinds:
        cells = [table[kind] for table in tables.values()]
        print(f"{kind:<14}" + "".join(f"{f'{right}/{of} in {seconds:.1f} s':>30}" for right, of, seconds in cells))
    summary = {}
    for name, table in tables.items():
        drawn = [table[kind] for kind in KINDS]
        summary[name] = {
            "right_share": sum(cell[0] for cell in drawn) / sum(cell[1] for cell in drawn),
            "follows_swap_share": table["swap"][0] / max(1, table["swap"][1]),
            "abstains_share": table["absent"][0] / max(1, table["absent"][1]),
        }
        print(f"{name}: " + ", ".join(f"{key} {value:.3f}" for key, value in summary[name].items()))
    print(json.dumps({"benchmark": "accuracy", "engines": summary}))


if __name__ == "__main__":
    main()
