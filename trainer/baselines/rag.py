"""Just RAG: the base with all its facts, and what the store holds put into the question.

The rival that takes nothing out. Its memory is the real store; what it retrieves for a question stands before it as a
statement. Where the store is silent, the base is asked alone: it answers from its weights, which is the point.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from knowledge_store.protocol import NOT_FOUND, Turn, ValueQuery, escape_quoted, parse_values, render_query
from trainer.evaluate.examinee import Examinee
from trainer.evaluate.generate import DIRECT, Decoding, greedy
from trainer.evaluate.memory import Recollect
from trainer.evaluate.outcome import Ledger
from trainer.evaluate.profile import Profile
from trainer.evaluate.question import Exam, Item, recall
from trainer.evaluate.recovery import ask_every_memory
from trainer.rollout import Rollout

_TOKENS = 48


def attack_rag(exam: Exam, examinee: Examinee, ledger: Ledger, profile: Profile, tick: Callable[[str], None]) -> None:
    """Enter E for a model whose memory is put into its questions; overwrites what was entered for its own lookups."""
    items = recall(exam, exam.sample(profile.memory_questions))

    def ask(memory: Recollect, items: Sequence[Item]) -> list[Rollout]:
        passages = [with_passage(exam, item, memory) for item in items]
        prompts = [examinee.encode(examinee.render(one.prompt)) for one in passages]
        texts = greedy(examinee, prompts, Decoding(_TOKENS, banned=DIRECT), profile.batch)
        return [Rollout(item.prompt.question, text, Turn((), text)) for item, text in zip(items, texts, strict=True)]

    # what retrieves is no tool of the model's, so it is served without the prompt that offers tools
    ask_every_memory(exam, examinee, (items,), ask, ledger, profile, tick)


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
