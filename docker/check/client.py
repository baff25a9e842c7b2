"""What check.sh says to a running service, with the standard library only.

client.py ask URL KEY QUESTION                  prints the answer, and after a tab the generation it was made in
client.py swap URL KEY SUBJECT RELATION VALUE   prints the generation that holds the value
client.py status URL PATH                       prints the status that PATH answers without a key
client.py look-up URL KEY FACTS                 swaps some of these facts and asks; 1 when too few are looked up
client.py load URL KEY SECONDS                  asks and writes without pause; 1 when a request or a fact was lost
"""

import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

WORKERS = 4
TIMEOUT_S = 120


def call(url: str, key: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Send JSON with a key, and give the JSON of the answer."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    request = Request(url + path, data=json.dumps(body).encode(), headers=headers)
    with urlopen(request, timeout=TIMEOUT_S) as response:
        document: dict[str, Any] = json.load(response)
    return document


def ask(url: str, key: str, question: str) -> tuple[str, int]:
    """The answer to a question, and the generation that it was made in."""
    document = call(url, key, "/v1/reason", {"question": question})
    return document["answer"], document["generation"]


def swap(url: str, key: str, subject: str, relation: str, value: str, module: str = "geography") -> int:
    """Write a fact; the generation that holds it."""
    fact = {"subject": subject, "relation": relation, "value": value}
    generation: int = call(url, key, "/update_knowledge", {"module": module, "facts": [fact]})["generation"]
    return generation


def status(url: str, path: str) -> int:
    """The status that a path answers without a key."""
    try:
        with urlopen(url + path, timeout=TIMEOUT_S) as response:
            code: int = response.status
    except HTTPError as error:
        code = error.code
    return code


@dataclass
class Load:
    """What several threads did to a service, and what went wrong."""

    url: str
    key: str
    deadline: float
    answered: int = 0
    slowest_s: float = 0.0
    written: list[int] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def repeat(self, act: Callable[[int], None]) -> None:
        """Do `act` with 0, 1, 2, … until the deadline."""
        number = 0
        while time.monotonic() < self.deadline:
            began = time.monotonic()
            try:
                act(number)
            except HTTPError as error:
                self.failures.append(f"{self.clock()} {error.code} {error.read()[:300]!r}")
            except (URLError, OSError, KeyError, ValueError) as error:
                self.failures.append(f"{self.clock()} {error!r}")
            with self.lock:
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            number += 1

    def clock(self) -> str:
        """The time of day, to be found in the logs."""
        return time.strftime("%H:%M:%S", time.gmtime())

    def question(self, _: int) -> None:
        """Ask one question; any answer that is no error counts."""
        ask(self.url, self.key, "What is the capital of Peru?")
        with self.lock:
            self.answered += 1

    def fact(self, number: int) -> None:
        """Write one fact of its own."""
        swap(self.url, self.key, f"Load {number}", "capital", f"Town {number}", module="load")
        self.written.append(number)
        time.sleep(0.1)

    def lost(self) -> list[int]:
        """The numbers of the facts that were confirmed and are not there."""
        missing = []
        for number in self.written:
            query = {"query": f"Load {number} | capital", "knowledge": {"modules": ["load"]}}
            if call(self.url, self.key, "/v1/knowledge/lookup", query)["text"] != f"Town {number}":
                missing.append(number)
        return missing


def load(url: str, key: str, seconds: float) -> int:
    """Ask and write for some time, then look for every fact that was confirmed."""
    run = Load(url, key, time.monotonic() + seconds)
    acts = [run.question] * WORKERS + [run.fact]
    threads = [threading.Thread(target=run.repeat, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lost = run.lost()
    print(
        f"{run.answered} answers, slowest {run.slowest_s:.1f} s; {len(run.written)} facts written, {len(lost)} lost; "
        f"{len(run.failures)} requests failed",
        *run.failures[:5],
        sep="\n  ",
    )
    return 1 if run.failures or lost or not run.answered or not run.written else 0


def look_up(url: str, key: str, file: str, count: int = 12) -> int:
    """Give the memory other values for facts of `file`, each of another subject, and ask; 1 when few are looked up."""
    with open(file, encoding="utf-8") as lines:  # noqa: PTH123 - this file runs in any Python, alone
        facts = [json.loads(line) for line in lines]
    asked = [facts[place] for place in range(0, len(facts), max(1, len(facts) // count))][:count]
    found = 0
    for it in asked:
        values = {other["value"] for other in facts if other["relation"] == it["relation"]} - {it["value"]}
        value = min(values)
        swap(url, key, it["subject"], it["relation"], value, module="people")
        question = f"Which {it['relation']} goes with {it['subject']}?"
        document = call(url, key, "/v1/reason", {"question": question})
        found += any(fact["value"] == value for fact in document["facts"])
    print(
        f"{found} of {len(asked)} facts that the base knew are looked up by the core, and found as the memory has them"
    )
    return 0 if found >= len(asked) / 2 else 1


def main(arguments: list[str]) -> int:
    """Run as a command."""
    match arguments:
        case ["ask", url, key, question]:
            print(*ask(url, key, question), sep="\t")
        case ["swap", url, key, subject, relation, value]:
            print(swap(url, key, subject, relation, value))
        case ["status", url, path]:
            print(status(url, path))
        case ["load", url, key, seconds]:
            return load(url, key, float(seconds))
        case ["look-up", url, key, file]:
            return look_up(url, key, file)
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
