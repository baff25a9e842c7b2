"""A store against a plain dictionary: after any history, every generation reads as the dictionary says."""

import os
import tempfile
from pathlib import Path
from typing import Any, Literal

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from knowledge_store.care import verify
from knowledge_store.change import Change, FactChange
from knowledge_store.declaration import Declaration
from knowledge_store.fact import Fact
from knowledge_store.protocol import NOT_FOUND, ValueQuery, parse_values
from knowledge_store.store import Store

HISTORIES = int(os.environ.get("STORE_HISTORIES", "12"))
SUBJECTS = ("Ann", "Bob", "Zoë")
RELATIONS = ("age", "pet")  # pet has several values
VALUES = ("1", "2", "x; y")
MODULES = ("one", "two")

Model = dict[str, dict[tuple[str, str], tuple[str, ...]]]
"""For each module, for each key, the values in the order of their coming."""

changes = st.lists(
    st.tuples(st.sampled_from(SUBJECTS), st.sampled_from(RELATIONS), st.sampled_from(("", *VALUES)), st.booleans()),
    max_size=5,
)


def apply(content: dict[tuple[str, str], tuple[str, ...]], change: list[Any]) -> dict[tuple[str, str], tuple[str, ...]]:
    """What a module holds after a change, an operation at a time."""
    after = dict(content)
    for subject, relation, value, delete in change:
        held = after.get((subject, relation), ())
        if delete:
            held = tuple(it for it in held if value not in ("", it))
        elif relation == "pet":
            held = held if value in held else (*held, value)
        else:
            held = (value,)
        after[subject, relation] = held
    return {key: values for key, values in after.items() if values}


class StoreMachine(RuleBasedStateMachine):
    """Does the same to both."""

    @initialize()
    def make(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.store = Store.open(Path(self.folder.name) / "model.sqlite")
        self.store.declare(Declaration("pet", functional=False))
        self.past: list[Model] = [{}, {}]
        self.unmounted: list[frozenset[str]] = [frozenset(), frozenset()]

    @rule(module=st.sampled_from(MODULES), mode=st.sampled_from(["merge", "replace"]), change=changes)
    def commit(self, module: str, mode: Literal["merge", "replace"], change: list[Any]) -> None:
        change = [it for it in change if it[2] or it[3]]
        if mode == "replace":  # a replacement that takes back what it says is for other tests
            change = [it for it in change if not it[3]]
        now = self.past[-1]
        after = apply(now.get(module, {}) if mode == "merge" else {}, change)
        facts = [FactChange(Fact(s, r, v, module), delete) for s, r, v, delete in change]
        report = self.store.commit(Change(module, mode, facts))
        if {k: set(v) for k, v in after.items()} != {k: set(v) for k, v in now.get(module, {}).items()}:
            self.remember({**now, module: after})
        assert report.generation == len(self.past) - 1
        assert sum(map(len, after.values())) == next((it.facts for it in self.store.modules() if it.name == module), 0)

    @rule(module=st.sampled_from(MODULES), back=st.integers(0, 30))
    def roll_back(self, module: str, back: int) -> None:
        target = max(0, len(self.past) - 1 - back)
        now = self.past[-1]
        if module not in self.past[target]:
            return
        then = self.past[target][module]
        self.store.rollback(module, target)
        if module not in now or {k: set(v) for k, v in then.items()} != {k: set(v) for k, v in now[module].items()}:
            self.remember({**now, module: then})
        elif self.store.head == len(self.past):
            self.remember(now)  # another layer with the same facts is a generation, too

    @rule(module=st.sampled_from(MODULES))
    def drop(self, module: str) -> None:
        if module in self.past[-1]:
            self.store.drop_module(module)
            self.remember({name: content for name, content in self.past[-1].items() if name != module})

    @rule(module=st.sampled_from(MODULES), on=st.booleans())
    def mount(self, module: str, on: bool) -> None:
        if module in self.past[-1]:
            (self.store.mount if on else self.store.unmount)(module)
            off = self.unmounted[-1] - {module} if on else self.unmounted[-1] | {module}
            if off != self.unmounted[-1]:
                self.remember(self.past[-1])
                self.unmounted[-1] = off

    def remember(self, content: Model) -> None:
        self.past.append(content)
        self.unmounted.append(self.unmounted[-1] & content.keys())

    @invariant()
    def some_generations_read_as_the_dictionary_says(self) -> None:
        if not hasattr(self, "store"):
            return
        assert self.store.head == len(self.past) - 1
        for number in {0, len(self.past) // 2, len(self.past) - 2, len(self.past) - 1} & set(range(len(self.past))):
            self.check(number)

    def check(self, number: int) -> None:
        with self.store.generation(number) as pinned:
            order = [it.name for it in pinned.modules]
            content = self.past[number]
            assert set(order) == set(content) - self.unmounted[number]
            for subject in SUBJECTS:
                for relation in RELATIONS:
                    values = next(
                        (content[it][subject, relation] for it in order if (subject, relation) in content[it]), ()
                    )
                    found = pinned.lookup(ValueQuery(subject.upper(), relation))
                    assert set(parse_values(found.text)) == set(values), (number, subject, relation)
                    assert values or found.text == NOT_FOUND

    def teardown(self) -> None:
        if hasattr(self, "store"):
            for number in range(len(self.past)):
                self.check(number)
            assert verify(self.store) == ()
            self.store.close()
            self.folder.cleanup()


TestModel = StoreMachine.TestCase
TestModel.settings = settings(
    max_examples=HISTORIES, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
)
