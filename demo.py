"""What `make demo` runs: the whole product, once, on the demo core.

Starts a service of its own on a free port and an empty store, loads the demo modules, asks six questions, swaps one
fact over HTTP, asks again, and stops everything. Each command that it runs is one that a user would type.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import httpx

ROOT = Path(__file__).resolve().parent
MODULES = ("geography", "elements", "companies", "people")
QUESTIONS = {
    "one hop": "What is the capital of Kenya?",
    "three hops": "What is the capital of the birthplace of the ceo of Geatraim Works?",
    "reverse": "Which entity has Nairobi as its capital?",
    "arithmetic on facts": "By how much does the atomic number of Gold exceed the atomic number of Iron?",
    "a missing fact": "What is the capital of Atlantis?",
    "a word problem": "Tom buys 7 boxes of apples with 12 in each and finds 5 more. How many apples does Tom have?",
}
SWAP = {"subject": "Kenya", "relation": "capital", "value": "Mombasa"}
START_TIMEOUT_S = 300


def main() -> int:
    """Run the demo; 0 when every answer is as expected."""
    with tempfile.TemporaryDirectory(prefix="metabolism-demo-") as folder:
        store = Path(folder) / "knowledge.sqlite"
        say("1. Load the demo facts into an empty symbolic RAM")
        for module in MODULES:
            run("knowledge", "import", f"knowledge/{module}.ndjson", "--module", module, "--store", str(store))
        say("2. Start the service on the demo core")
        with serving(store, Path(folder) / "service.log") as url, httpx.Client(base_url=url, timeout=60) as service:
            say("3. Ask")
            before = {kind: ask(service, kind, question) for kind, question in QUESTIONS.items()}
            say("4. Swap a fact while the service runs; no retraining, no restart")
            swap(service)
            say("5. Ask again")
            after = {kind: ask(service, kind, QUESTIONS[kind]) for kind in ("one hop", "reverse")}
    return judge(before, after)


def judge(before: dict[str, str], after: dict[str, str]) -> int:
    """Hold the answers against what they have to be."""
    expected = [
        ("one hop", before, "Nairobi"),
        ("reverse", before, "Kenya"),
        ("arithmetic on facts", before, "53"),
        ("a missing fact", before, "I don't know"),
        ("a word problem", before, "89"),
        ("one hop", after, SWAP["value"]),
        ("reverse", after, "I don't know"),
    ]
    wrong = [
        f"{kind}: {answers[kind]!r}, expected {value!r}" for kind, answers, value in expected if answers[kind] != value
    ]
    say("Everything was stopped. " + ("Not as expected: " + "; ".join(wrong) if wrong else "All as expected."))
    return 1 if wrong else 0


def say(line: str) -> None:
    """Print a heading."""
    click.secho(f"\n{line}", bold=True)


def command(*words: str) -> list[str]:
    """The `metabolism` command of this environment."""
    return [str(Path(sys.executable).parent / "metabolism"), *words]


def run(*words: str) -> None:
    """Run a command as a user would, and show it."""
    click.echo("$ metabolism " + " ".join(word.replace(str(Path(tempfile.gettempdir())), "") for word in words[:5]))
    done = subprocess.run(command(*words), cwd=ROOT, capture_output=True, text=True, check=False)
    click.echo(done.stdout.rstrip())
    if done.returncode:
        raise SystemExit(f"{done.stderr}\nthe command above failed with exit status {done.returncode}")


@contextmanager
def serving(store: Path, log: Path) -> Iterator[str]:
    """A running service; its address. Stopped at the end, whatever happens."""
    words = ["serve", "--core", "models/demo-core", "--store", str(store), "--port", "0", "--no-auth"]
    click.echo("$ metabolism serve --core models/demo-core")
    started = time.monotonic()
    with log.open("w") as errors:
        process = subprocess.Popen(command(*words), cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        url = wait_until_ready(process, log)
        core = httpx.get(f"{url}/v1/core", timeout=10).json()
        click.echo(f"ready at {url} after {time.monotonic() - started:.0f} s; engine: {core['engine']}")
        yield url
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_until_ready(process: subprocess.Popen[str], log: Path) -> str:
    """The address in the one line that a server prints when it is ready."""
    watchdog = threading.Timer(START_TIMEOUT_S, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            address = next((word for word in line.split() if word.startswith("http://")), None)
            if address:
                return address.rstrip("/.,")
    finally:
        watchdog.cancel()
    raise SystemExit(f"the service did not start:\n{log.read_text()[-4000:]}")


def ask(service: httpx.Client, kind: str, question: str) -> str:
    """Ask, show the thought with its lookups, return the answer."""
    click.echo(f"\n[{kind}] {question}")
    started = time.monotonic()
    response = service.post("/v1/reason", json={"question": question})
    response.raise_for_status()
    answer: dict[str, Any] = response.json()
    for step in answer["steps"]:
        click.echo(f"    {step['text']}")
        for call in step["calls"]:
            shown = f"{call['kind']} «{call['body']}» gives «{call['reply']}»"
            click.secho(f"      -> {shown} ({call['match'] or call['outcome']})", fg="cyan")
    elapsed = time.monotonic() - started
    click.secho(f"  {answer['answer']}", fg="green", bold=True, nl=False)
    click.echo(f"   (generation {answer['generation']}, {elapsed:.2f} s)")
    text: str = answer["answer"]
    return text


def swap(service: httpx.Client) -> None:
    """Replace one fact through the admin endpoint."""
    body = {"module": "geography", "mode": "merge", "facts": [SWAP]}
    click.echo(f"POST /update_knowledge {json.dumps(body)}")
    response = service.post("/update_knowledge", json=body)
    response.raise_for_status()
    click.echo(json.dumps(response.json()))


if __name__ == "__main__":
    os.chdir(ROOT)
    if shutil.which("metabolism", path=str(Path(sys.executable).parent)) is None:
        raise SystemExit("the project is not installed in this environment; run `make demo`")
    sys.exit(main())
