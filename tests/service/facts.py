"""Putting a fact into a test's store."""

from knowledge_store.change import Change, FactChange
from knowledge_store.fact import Fact
from knowledge_store.store import Store


def put(store: Store, subject: str, relation: str, value: str, module: str = "companies") -> int:
    """Commit one fact; return the generation that has it."""
    change = Change(module, "merge", [FactChange(Fact(subject, relation, value, module))])
    return store.commit(change).generation
