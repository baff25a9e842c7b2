"""Where the bottleneck moves from one replica to eight.

    python -m benchmarks.scaling [--core DIR] [--engine embedded|URL] [--curve 1:7.7,32:40] [--postgres URL]

Two things are measured on this machine, in this run: what an answer costs the service itself (processor time, through
the whole HTTP front, with an engine that says at once what the real one said), on SQLite and on PostgreSQL; and how
many answers a second the engine gives at 1 to 32 at a time, unless `--curve` brings that from another machine. A closed
queueing network (`queueing.py`) then says what replicas of these would give. It knows nothing of networks between
machines, and takes a database's work for what one question at a time costs its processes: a guide to what to add next,
not a promise.
"""

import argparse
import asyncio
import itertools
import json
import os
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from benchmarks.queueing import Solution, Station, batching, solve, workers
from knowledge_store.change import Change
from knowledge_store.exchange import FileFormat, read_changes
from knowledge_store.store import Store
from service import log
from service.api.app import create_app
from service.assembly import assemble
from service.codec import Codec
from service.core import ServedCore
from service.engine.base import Chunk, Engine, Sampling
from service.engine.select import choose_engine
from service.orchestrator import Orchestrator
from service.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
QUESTIONS = (
    "What is the capital of Kenya?",
    "Which entity has Nairobi as its capital?",
    "What is the capital of the birthplace of the ceo of Selvou Group?",
    "By how much does the atomic number of Gold exceed the atomic number of Iron?",
)
ROUNDS = 10
STREAMS = (1, 2, 4, 8, 16, 32)
REPLICAS = (1, 2, 4, 8)
DATABASE_CORES = 4


class Recorded:
    """An engine that asks another the first time, and says the same at once from then on."""

    def __init__(self, engine: Engine) -> None:
        self.heard: dict[tuple[int, ...], list[Chunk]] = {}
        self._engine = engine

    async def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, *, request_id: str
    ) -> AsyncGenerator[Chunk, None]:
        """Continue as the other engine did; see `Engine`."""
        key = tuple(prompt_ids)
        if key not in self.heard:
            self.heard[key] = [it async for it in self._engine.generate(prompt_ids, sampling, request_id=request_id)]
        for chunk in self.heard[key]:
            yield chunk

    async def check(self) -> None:
        """Always ready."""

    async def close(self) -> None:
        """Leave the other engine to whoever started it."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What an answer costs, in seconds of processor time, and how many lookups it makes."""

    service_s: float
    database_s: float
    lookups: float


async def measure_cost(engine: Recorded, core: Path, location: str) -> Cost:
    """Ask every question `ROUNDS` times through the HTTP front, in this process, over a store at `location`."""
    store = Store.open(location)
    fill(store)
    settings = Settings.read({"core": core, "store": location})
    served = ServedCore(
        core.name, core, None, engine, "recorded", Orchestrator(engine, Codec.load(core), store, core=core.name), 0
    )
    app = create_app(assemble(settings, served, store, None), version="benchmark")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app.router.lifespan_context(app))
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service", timeout=300)
        await stack.enter_async_context(client)
        lookups = sum([await ask(client, question) for question in QUESTIONS]) / len(QUESTIONS)
        database, began = database_seconds(), time.process_time()
        for question in itertools.chain.from_iterable(itertools.repeat(QUESTIONS, ROUNDS)):
            await ask(client, question)
        answers = ROUNDS * len(QUESTIONS)
        service_s = (time.process_time() - began) / answers
        return Cost(service_s, (database_seconds() - database) / answers, lookups)


async def ask(client: httpx.AsyncClient, question: str) -> int:
    """Ask, and give the number of lookups that it took. An answer that failed ends the benchmark."""
    reply = await client.post("/v1/reason", json={"question": question})
    reply.raise_for_status()
    lookups: int = reply.json()["usage"]["lookups"]
    return lookups


def fill(store: Store) -> None:
    """Load the demo modules that are not there."""
    present = {module.name for module in store.modules()}
    for file in sorted((ROOT / "knowledge").glob("*.ndjson")):
        if file.stem not in present:
            with file.open("rb") as stream:
                facts = read_changes(stream, FileFormat.NDJSON, file.stem)
                store.commit(Change(file.stem, "merge", facts), author="benchmark")


def database_seconds() -> float:
    """Processor time that PostgreSQL's backends on this machine have taken."""
    total = 0.0
    for process in psutil.process_iter(["name", "cpu_times"]):
        times = process.info["cpu_times"]
        if process.info["name"] == "postgres" and times is not None:
            total += times.user + times.system
    return total


async def measure_engine(engine: Engine, recorded: Recorded) -> list[tuple[int, float]]:
    """Replay the recorded hops straight to the engine at 1 to 32 at a time: (answers at a time, answers a second)."""
    hops = list(recorded.heard.items())
    curve = []
    for streams in STREAMS:
        places = asyncio.Semaphore(streams)
        count = max(len(hops), streams)

        began = time.perf_counter()
        await asyncio.gather(*(replay(engine, *hops[number % len(hops)], places) for number in range(count)))
        hops_per_s = count / (time.perf_counter() - began)
        curve.append((streams, hops_per_s * len(QUESTIONS) / len(hops)))
    return [(streams, max(rate for _, rate in curve[: place + 1])) for place, (streams, _) in enumerate(curve)]


async def replay(engine: Engine, prompt: Sequence[int], heard: list[Chunk], places: asyncio.Semaphore) -> None:
    """Have the engine sample as much as it did when it was recorded, once there is a place."""
    sampling = Sampling(max_tokens=sum(len(chunk.ids) for chunk in heard), stream=False)
    async with places:
        async for _ in engine.generate(prompt, sampling, request_id=""):
            pass


def layouts(cost: Cost, curve: list[tuple[int, float]], replicas: int) -> dict[str, list[Station]]:
    """The stations of each way to grow to `replicas` replicas."""
    service = workers("service", replicas, cost.service_s)
    database = [workers("database", DATABASE_CORES, cost.database_s)] if cost.database_s > 0 else []
    fast = [(streams, 20 * rate) for streams, rate in curve]
    return {
        "one engine for all": [service, batching("engine", 1, curve), *database],
        "an engine each": [service, batching("engine", replicas, curve), *database],
        "an engine each, 20 x as fast": [service, batching("engine", replicas, fast), *database],
    }


def show(table: dict[str, dict[int, Solution]]) -> None:
    """Print the table."""
    print(f"\n{'layout':<30}{'replicas':>9}{'answers/s':>11}{'s/answer':>10}  bottleneck (share in use)")
    for layout, rows in table.items():
        for replicas, found in rows.items():
            used = ", ".join(f"{name} {share:.0%}" for name, share in sorted(found.used.items(), key=lambda it: -it[1]))
            print(f"{layout:<30}{replicas:>9}{found.answers_per_s:>11.1f}{found.answer_s:>10.3f}  {used}")


async def run(options: argparse.Namespace) -> dict[str, object]:
    """Measure, solve, print; the numbers as a document."""
    chosen = await choose_engine(options.engine, options.core)
    recorded = Recorded(chosen.engine)
    with tempfile.TemporaryDirectory() as folder:
        sqlite = await measure_cost(recorded, options.core, str(Path(folder) / "knowledge.sqlite"))
        shared = await measure_cost(recorded, options.core, options.postgres) if options.postgres else None
    curve = options.curve or await measure_engine(chosen.engine, recorded)
    await chosen.engine.close()
    engine = "as given by --curve" if options.curve else chosen.name
    print(f"engine: {engine}, answers a second at a time: " + ", ".join(f"{n}: {rate:.1f}" for n, rate in curve))
    for name, cost in (("SQLite", sqlite), ("PostgreSQL", shared)):
        if cost is not None:
            print(
                f"{name}: {1e3 * cost.service_s:.2f} ms of the service and {1e3 * cost.database_s:.2f} ms of the "
                f"database's processes an answer, {cost.lookups:.2f} lookups"
            )
    table: dict[str, dict[int, Solution]] = {}
    for replicas in REPLICAS:
        cost = shared or sqlite
        for layout, stations in layouts(cost, curve, replicas).items():
            table.setdefault(layout, {})[replicas] = solve(stations, options.clients * replicas)
    show(table)
    return {
        "engine": engine,
        "load": os.getloadavg()[0],
        "curve": curve,
        "service_ms": {"sqlite": 1e3 * sqlite.service_s, "postgres": 1e3 * shared.service_s if shared else None},
        "database_ms": 1e3 * shared.database_s if shared else None,
        "answers_per_s": {
            layout: {replicas: [round(found.answers_per_s, 1), found.bottleneck] for replicas, found in rows.items()}
            for layout, rows in table.items()
        },
    }


def points(text: str) -> list[tuple[int, float]]:
    """Read a curve from the command line: AT_A_TIME:ANSWERS_A_SECOND, comma-separated, rising."""
    pairs = [pair.split(":") for pair in text.split(",")]
    return sorted((int(streams), float(rate)) for streams, rate in pairs)


def main() -> None:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--core", type=Path, default=ROOT / "models" / "demo-core")
    parser.add_argument("--engine", default="embedded", help="embedded, vllm, or a vLLM server's URL")
    parser.add_argument("--curve", type=points, help="the engine's answers a second at so many at a time: 1:7.7,32:40")
    parser.add_argument("--postgres", help="SQLAlchemy URL of an empty database, to measure a shared RAM too")
    parser.add_argument("--clients", type=int, default=64, help="clients a replica that ask without pause")
    log.configure("warning", "text")
    print(json.dumps(asyncio.run(run(parser.parse_args()))))


if __name__ == "__main__":
    main()
