"""A writer that the survival tests kill: it imports, updates, replaces, rebuilds and compacts until it is dead.

Before each commit it is silent; after each one it prints what was acknowledged: the generation and its value.
"""

import sys
from datetime import timedelta

from knowledge_store.change import Change, FactChange
from knowledge_store.fact import Fact
from knowledge_store.store import Store


def facts(value: str, count: int) -> list[FactChange]:
    """As many facts as a generation has, all with one value: a torn generation shows two."""
    return [FactChange(Fact(f"subject {i}", "value", value, "torn")) for i in range(count)]


def main(path: str) -> None:
    """Write without end."""
    with Store.open(path) as store:
        turn = store.head
        while True:
            turn += 1
            mode = "replace" if turn % 3 == 0 else "merge"
            count = 9_000 if turn % 7 == 0 else 50  # a long change is staged in several transactions
            if turn % 7 == 1:
                mode = "replace"
            report = store.commit(Change("torn", mode, facts(str(turn), count)))
            sys.stdout.write(f"{report.generation} {turn} {count}\n")
            sys.stdout.flush()
            if turn % 4 == 0:
                store.compact(timedelta(0), grace=timedelta(0))
            if turn % 5 == 0:
                store.indexer.rebuild()


if __name__ == "__main__":
    main(sys.argv[1])
