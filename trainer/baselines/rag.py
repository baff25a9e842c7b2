"""Just RAG: the base with all its facts, and what the store holds put into the question.

The rival that takes nothing out. Its memory is the real store; what it retrieves for a question stands before it as a
statement. Where the store is silent, the base is asked alone: it answers from its weights, which is the point.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from knowledge_store.protocol import NOT_FOUND, ValueQuery, escape_quoted, parse_values, render_query
from trainer.evaluate.behaviour import recall_direct
from trainer.evaluate.examinee import Examinee
from trainer.evaluate.generate import DIRECT, Decoding, greedy
from trainer.evaluate.memory import Recollect, silence
from trainer.evaluate.outcome import Ledger
from trainer.evaluate.profile import Profile
from trainer.evaluate.question import Exam, Item, is_right, recall
from trainer.evaluate.recovery import UNKNOWN, stored

_TOKENS = 48


def attack_rag(exam: Exam, examinee: Examinee, ledger: Ledger, profile: Profile, tick: Callable[[str], None]) -> None:
    """Enter E for a model whose memory is put into its questions; overwrites what was entered for its own lookups."""
    items = recall(exam, exam.sample(profile.memory_questions))
    asked = [item.fact for item in items]
    seeds, role = (exam.seed,), examinee.role

    def answers(memory: Recollect) -> list[str]:
        prompts = [examinee.encode(examinee.render(with_passage(exam, item, memory).prompt)) for item in items]
        return greedy(examinee, prompts, Decoding(_TOKENS, banned=DIRECT), profile.batch)

    def right(texts: Sequence[str], wanted: Sequence[tuple[str, ...]]) -> list[bool]:
        return [is_right(text, values) for text, values in zip(texts, wanted, strict=True)]

    truth = [item.accepted for item in items]
    tick("E.full")
    with stored(exam.world.facts) as memory:
        ledger.add("E.full", role, right(answers(memory), truth), seeds=seeds)
    tick("E.del_on")
    with stored(exam.world.facts, without=asked) as memory:
        ledger.add("E.del_on", role, right(answers(memory), truth), seeds=seeds)
    ledger.add("E.del_off", role, recall_direct(examinee, items, profile.batch), seeds=seeds)
    tick("E.counterfactual")
    swapped = [replace(fact, value=exam.world.value_like(fact, exam.rng(f"swap/{fact.key}"))) for fact in asked]
    with stored(swapped) as memory:
        ledger.add("E.counterfactual", role, right(answers(memory), [(fact.value,) for fact in swapped]), seeds=seeds)
    tick("E.abstains")
    unknown = [any(phrase.casefold() in text.casefold() for phrase in UNKNOWN) for text in answers(silence)]
    ledger.add("E.abstains", role, unknown, seeds=seeds)


def with_passage(exam: Exam, item: Item, memory: Recollect) -> Item:
    """The question with what the memory holds before it; as it was, where the memory is silent."""
    fact = item.fact
    found = memory(render_query(ValueQuery(fact.subject, fact.relation)))
    if found == NOT_FOUND:
        return item
    rng = exam.rng(f"passage/{fact.key}")
    passage = " ".join(
        exam.world.phrasings.state(fact.subject, fact.relation, value, rng) for value in parse_values(found)
    )
    return replace(item, prompt=replace(item.prompt, question=f"{escape_quoted(passage)}\n{item.prompt.question}"))
