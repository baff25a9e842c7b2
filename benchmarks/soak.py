"""Soak: many clients ask while a fact is swapped; every answer must be whole, of one generation, and true of it.

    python -m benchmarks.soak [--clients 500] [--seconds 60] [--swap-every-ms 100] [--engine embedded] [--url URL]

Starts a server of its own unless --url names one. Prints a table and, last, one line of JSON; exits 1 where something
was lost. What counts as lost: an answer with two generations, or with a value that its generation did not have; an
update that is not in the history; a status other than 200, 429 or an honest 503; memory that grows.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).parent.parent
MODULE, SUBJECT, RELATION = "soak", "Kenya", "capital"
QUESTION = "What is the capital of Kenya?"
VALUES = ("Nairobi", "Lima", "Oslo", "Paris", "Cairo", "Quito")
GROWTH_LIMIT = 0.15


@dataclass
class Ledger:
    """What was seen."""

    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    values: dict[int, str] = field(default_factory=dict)
    answers: list[tuple[int, str]] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    memory_mib: list[float] = field(default_factory=list)
    updates: int = 0

    def take(self, reply: httpx.Response) -> None:
        """Note one reply to a question."""
        self.statuses[reply.status_code] += 1
        body = reply.json()
        if reply.status_code == 200:
            seen = {fact["generation"] for fact in body["facts"]} | {body["generation"]}
            if len(seen) != 1:
                self.failures.append(f"an answer saw the generations {sorted(seen)}")
            if body["finish"] == "stop":
                self.answers.append((body["generation"], body["answer"]))
            self.latencies_s.append(reply.elapsed.total_seconds())
        elif reply.status_code not in (429, 503) or "retry-after" not in reply.headers:
            self.failures.append(f"{reply.status_code}: {reply.text[:200]}")

    def check(self) -> None:
        """Hold each answer against the value that its generation had."""
        for generation, answer in self.answers:
            if answer != self.values.get(generation):
                expected = self.values.get(generation)
                self.failures.append(f"generation {generation} had {expected!r} and the answer was {answer!r}")
        if not self.answers:
            self.failures.append("no question was answered")


async def ask(client: httpx.AsyncClient, ledger: Ledger, until: float, question: str) -> None:
    """Ask again and again, as a patient client does."""
    body = {"question": question, "knowledge": {"modules": [MODULE]}}
    while time.monotonic() < until:
        try:
            reply = await client.post("/v1/reason", json=body)
        except httpx.HTTPError as error:
            ledger.failures.append(f"no answer: {error!r}")
            continue
        ledger.take(reply)
        if reply.status_code != 200:
            await asyncio.sleep(float(reply.headers.get("retry-after", "1")))


async def swap(client: httpx.AsyncClient, ledger: Ledger, until: float, every_s: float) -> None:
    """Swap the fact again and again, each time guarded by the module's ETag."""
    etag = ""
    while time.monotonic() < until or not ledger.updates:
        value = VALUES[ledger.updates % len(VALUES)]
        fact = {"subject": SUBJECT, "relation": RELATION, "value": value}
        headers = {"If-Match": etag} if etag else {}
        started = time.monotonic()
        reply = await client.post("/update_knowledge", json={"module": MODULE, "facts": [fact]}, headers=headers)
        if reply.status_code == 200:
            ledger.values[reply.json()["generation"]] = value
            ledger.updates += 1
            etag = reply.headers["etag"]
        else:
            ledger.failures.append(f"an update was refused: {reply.status_code} {reply.text[:200]}")
            return
        await asyncio.sleep(max(0.0, every_s - (time.monotonic() - started)))


async def watch(process: psutil.Process | None, ledger: Ledger, until: float) -> None:
    """Note the server's memory each second."""
    while process is not None and time.monotonic() < until:
        ledger.memory_mib.append(process.memory_info().rss / 2**20)
        await asyncio.sleep(1)


async def soak(
    url: str,
    *,
    clients: int,
    seconds: float,
    swap_every_s: float,
    process: psutil.Process | None = None,
    question: str = QUESTION,
) -> Ledger:
    """Run the soak against a server; the ledger holds what was seen and what failed."""
    ledger = Ledger()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=120) as client:
        await swap(client, ledger, 0.0, 0.0)
        until = time.monotonic() + seconds
        asking = [ask(client, ledger, until, question) for _ in range(clients)]
        await asyncio.gather(swap(client, ledger, until, swap_every_s), watch(process, ledger, until), *asking)
        listed = (await client.get(f"/v1/knowledge/generations?module={MODULE}&limit=1000")).json()["generations"]
    lost = set(sorted(ledger.values)[-900:]) - {it["number"] for it in listed}
    if lost:
        ledger.failures.append(f"updates are not in the history: {sorted(lost)[:10]}")
    ledger.check()
    return ledger


def memory_growth(memory_mib: list[float]) -> float:
    """How much the last fifth of the run needs over the second one, as a share; the first fifth warms up."""
    fifth = len(memory_mib) // 5
    if fifth == 0:
        return 0.0
    before, after = memory_mib[fifth : 2 * fifth], memory_mib[-fifth:]
    return sum(after) / len(after) / (sum(before) / len(before)) - 1


def report(ledger: Ledger, seconds: float) -> dict[str, Any]:
    """Sum up."""
    latencies = sorted(ledger.latencies_s) or [0.0]
    growth = memory_growth(ledger.memory_mib)
    if growth > GROWTH_LIMIT:
        ledger.failures.append(f"memory grew by {growth:.0%}")
    return {
        "answers": len(ledger.latencies_s),
        "answers_per_s": round(len(ledger.latencies_s) / seconds, 1),
        "generations_seen": len({generation for generation, _ in ledger.answers}),
        "updates": ledger.updates,
        "statuses": {str(status): count for status, count in sorted(ledger.statuses.items())},
        "latency_p50_s": round(latencies[len(latencies) // 2], 3),
        "latency_p99_s": round(latencies[int(len(latencies) * 0.99)], 3),
        "memory_mib": round(ledger.memory_mib[-1]) if ledger.memory_mib else None,
        "memory_growth": round(growth, 3),
        "failures": len(ledger.failures),
    }


def start_server(folder: Path, engine: str) -> tuple[str, "subprocess.Popen[str]"]:
    """Start a server on a store of its own; give its address."""
    words = ["--port", "0", "--engine", engine, "--store", str(folder / "soak.sqlite"), "--log-level", "error"]
    core = str(ROOT / "models" / "demo-core")
    command = [sys.executable, str(ROOT / "metabolism.py"), "serve", "--core", core, *words]
    environment = {**os.environ, "METABOLISM_AUDIT": str(folder / "audit.jsonl")}
    if engine == "embedded":  # it samples for one at a time: more at once only makes all of them late
        environment.setdefault("METABOLISM_CONCURRENT", "4")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    line = process.stdout.readline()
    if " at " not in line:
        raise SystemExit("the server did not start")
    return line.split(" at ")[1].strip(), process


def main() -> None:
    """Run it as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--swap-every-ms", type=float, default=100)
    parser.add_argument("--engine", default="embedded", help="for a server of its own: embedded, vllm or a vLLM URL")
    parser.add_argument("--url", help="a running server without keys, with nothing else to do")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        process = None
        url = asked.url
        if url is None:
            url, process = start_server(Path(folder), asked.engine)
        try:
            watched = None if process is None else psutil.Process(process.pid)
            run = soak(
                url,
                clients=asked.clients,
                seconds=asked.seconds,
                swap_every_s=asked.swap_every_ms / 1000,
                process=watched,
            )
            ledger = asyncio.run(run)
        finally:
            if process is not None:
                process.send_signal(signal.SIGTERM)
                process.wait(60)
    summary = report(ledger, asked.seconds)
    for name, value in summary.items():
        print(f"{name:<20} {value}")
    for failure in ledger.failures[:20]:
        print(f"FAILURE {failure}")
    print(json.dumps({"benchmark": "soak", "clients": asked.clients, "seconds": asked.seconds, **summary}))
    sys.exit(1 if ledger.failures else 0)


if __name__ == "__main__":
    main()
