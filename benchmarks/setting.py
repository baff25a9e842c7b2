"""What the benchmarks share: a store with the demo modules, and an orchestrator on the engine that is measured."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.phrasing import Row
from knowledge_store.change import Change, FactChange
from knowledge_store.fact import Fact
from knowledge_store.store import Store
from service import alu
from service.codec import Codec, Message
from service.detect.base import StepDetector
from service.engine.select import choose_engine
from service.orchestrator import Orchestrator
from service.question import Knowledge, Limits, Question
from service.trace import Answer

_LIMITS = Limits(timeout_s=600.0)  # a benchmark measures answers, not the patience of a busy machine


@dataclass(frozen=True, slots=True)
class Bench:
    """An orchestrator, ready to be asked."""

    name: str
    orchestrator: Orchestrator

    async def ask(self, question: str, knowledge: Knowledge | None = None) -> Answer:
        """Ask one question."""
        return await self.orchestrator.answer(Question((Message("user", question),), knowledge or Knowledge(), _LIMITS))

    async def ask_all(
        self, questions: Sequence[str], *, streams: int, knowledge: Knowledge | None = None
    ) -> list[Answer]:
        """Ask many, `streams` at a time; the answers come in the questions' order."""
        places = asyncio.Semaphore(streams)

        async def ask(question: str) -> Answer:
            async with places:
                return await self.ask(question, knowledge)

        return list(await asyncio.gather(*map(ask, questions)))


@asynccontextmanager
async def bench(
    engine: str,
    core: Path,
    store: Store,
    *,
    detectors: Sequence[StepDetector] = (),
    teaching: str | None = None,
) -> AsyncIterator[Bench]:
    """Start or reach `engine` for `core`, and close it at the end."""
    chosen = await choose_engine(engine, core)
    alu.warm_up()
    try:
        codec = Codec.load(core)
        yield Bench(
            chosen.name,
            Orchestrator(chosen.engine, codec, store, core=core.name, detectors=detectors, teaching=teaching),
        )
    finally:
        await chosen.engine.close()


def import_rows(store: Store, rows: Iterable[Row]) -> None:
    """Fill a store with modules, one generation each."""
    put(store, rows, mode="replace")


def put(store: Store, rows: Iterable[Row], *, mode: str = "merge") -> None:
    """Commit rows, all of a module's in one generation."""
    by_module: dict[str, list[FactChange]] = defaultdict(list)
    for row in rows:
        by_module[row.module].append(FactChange(Fact(row.subject, row.relation, row.value, row.module)))
    for module, changes in by_module.items():
        store.commit(Change(module, "replace" if mode == "replace" else "merge", changes))
