"""E. Recoverable on purpose: the memory, and nothing but the memory, brings the facts back.

FULL: the memory is on and holds the facts. DEL-ON: it is on, and the asked facts were deleted from it. DEL-OFF: they
were deleted, and lookups are banned, so that only the weights could answer. Counterfactual: the memory holds other
values. Empty: it holds nothing. Each is asked twice: with no system prompt, and as the service asks, with its own. The
store is the real one, in a folder that is thrown away.
"""

import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from knowledge_store.change import Change, FactChange
from knowledge_store.fact import Fact
from knowledge_store.store import Store
from trainer.evaluate.behaviour import recall_direct
from trainer.evaluate.examinee import Examinee
from trainer.evaluate.measure import as_served
from trainer.evaluate.memory import Recollect, converse, from_store, silence
from trainer.evaluate.outcome import Ledger
from trainer.evaluate.profile import Profile
from trainer.evaluate.question import Exam, Item, is_right, multi_hop, recall, with_tools
from trainer.evaluate.reasoning import LOGIC, READING, Task, draw_tasks
from trainer.fact import Target
from trainer.rollout import Continuations, Rollout

UNKNOWN = ("I don't know", "I do not know", "not known", "unknown", "no information")
_MODULE = "facts"


def attack_memory(
    exam: Exam, examinee: Examinee, ledger: Ledger, profile: Profile, tick: Callable[[str], None]
) -> None:
    """Every measure of E for one model that speaks the protocol."""
    if not examinee.speaks_protocol:
        ledger.skip(f"E ({examinee.role}): its tokenizer has no tags, so it cannot use a memory")
        return
    items = recall(exam, exam.sample(profile.memory_questions))
    known: Continuations = {}

    def ask(memory: Recollect, items: Sequence[Item]) -> list[Rollout]:
        questions, tools = [item.prompt.question for item in items], all(item.prompt.tools for item in items)
        return converse(examinee, questions, memory, profile.batch, tools=tools, known=known)

    full, empty = ask_every_memory(exam, examinee, (items, with_tools(items)), ask, ledger, profile, tick)
    tick("E.knock")
    role, seeds = examinee.role, (exam.seed,)
    ledger.add("E.knock_fact_on", role, full, seeds=seeds)
    ledger.add("E.knock_fact_off", role, empty, seeds=seeds)
    with stored(exam.world.facts) as memory:
        _knock(exam, examinee, ledger, memory, profile)


def ask_every_memory(
    exam: Exam,
    examinee: Examinee,
    ways: Sequence[Sequence[Item]],
    ask: Callable[[Recollect, Sequence[Item]], list[Rollout]],
    ledger: Ledger,
    profile: Profile,
    tick: Callable[[str], None],
) -> tuple[list[bool], list[bool]]:
    """Enter what `ask` makes of the same questions in two ways: with no system prompt, and as they are served.

    One way alone stands for both. Returns which were right with no system prompt, with the facts in the memory and
    with nothing in it.
    """
    asked = [item.fact for item in ways[0]]
    truth = [item.accepted for item in ways[0]]

    def enter(measure: str, outcomes: Sequence[Iterable[bool]]) -> None:
        for name, right in zip((measure, as_served(measure)), itertools.cycle(outcomes), strict=False):
            ledger.add(name, examinee.role, right, seeds=(exam.seed,))

    def both(memory: Recollect) -> list[list[Rollout]]:
        return [ask(memory, items) for items in ways]

    tick("E.full")
    with stored(exam.world.facts) as memory:
        known = both(memory)
    full = [are_right(replies, truth) for replies in known]
    enter("E.full", full)
    enter("E.looks_up", [[bool(reply.lookups) for reply in replies] for replies in known])
    tick("E.del_on")
    with stored(exam.world.facts, without=asked) as memory:
        enter("E.del_on", [are_right(replies, truth) for replies in both(memory)])
    tick("E.del_off")
    enter("E.del_off", [recall_direct(examinee, items, profile.batch) for items in ways])
    tick("E.counterfactual")
    swapped = [replace(fact, value=exam.world.value_like(fact, exam.rng(f"swap/{fact.key}"))) for fact in asked]
    with stored(swapped) as memory:
        enter("E.counterfactual", [are_right(replies, [(fact.value,) for fact in swapped]) for replies in both(memory)])
    tick("E.abstains")
    silent = both(silence)
    enter("E.abstains", [[says_unknown(reply) for reply in replies] for replies in silent])
    return full[0], are_right(silent[0], truth)


def are_right(replies: Sequence[Rollout], wanted: Sequence[tuple[str, ...]]) -> list[bool]:
    """Which replies come to one of the wanted values."""
    return [is_right(reply.answer or "", values) for reply, values in zip(replies, wanted, strict=True)]


def says_unknown(reply: Rollout) -> bool:
    """Whether the answer says that it is not known."""
    said = (reply.answer or "").casefold()
    return any(phrase.casefold() in said for phrase in UNKNOWN)


@contextmanager
def stored(facts: Sequence[Target], without: Sequence[Target] = ()) -> Iterator[Recollect]:
    """A memory that holds these facts; those in `without` were committed and then deleted again."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder) / "knowledge.sqlite")
        try:
            store.commit(Change(_MODULE, "merge", [FactChange(_fact(fact)) for fact in facts]))
            if without:
                store.commit(Change(_MODULE, "merge", [FactChange(_fact(fact), delete=True) for fact in without]))
            with store.generation() as generation:
                yield from_store(generation)
        finally:
            store.close()


def _fact(target: Target) -> Fact:
    return Fact(target.subject, target.relation, target.value, _MODULE)


def _knock(exam: Exam, examinee: Examinee, ledger: Ledger, memory: Recollect, profile: Profile) -> None:
    """Two hops, reading and logic with the memory on and off: what needs no memory must not miss it."""
    families: dict[str, Sequence[Item | Task]] = {
        "hops": multi_hop(exam, profile.memory_questions),
        "reading": draw_tasks(exam, READING, profile.memory_questions),
        "logic": draw_tasks(exam, LOGIC, profile.memory_questions),
    }
    questions = [one.prompt.question for asked in families.values() for one in asked]
    known: Continuations = {}
    for switch, source in (("on", memory), ("off", silence)):
        replies = iter(converse(examinee, questions, source, profile.batch, known=known))
        for family, asked in families.items():
            right = are_right(list(itertools.islice(replies, len(asked))), [one.accepted for one in asked])
            ledger.add(f"E.knock_{family}_{switch}", examinee.role, right, seeds=(exam.seed,))
