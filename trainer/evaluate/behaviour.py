"""A. Gone in behaviour: does any way of asking bring the fact out?

The questions of `question.py` put to one model; each measure is one row of outcomes. Thinking and tools are left to the
model in the first measure only; in the others they are banned token by token, so that the weights must answer.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

from knowledge_store.protocol import Tag
from trainer.evaluate.examinee import Examinee
from trainer.evaluate.generate import DIRECT, TOOL_TAGS, Decoding, generate, greedy
from trainer.evaluate.outcome import Ledger, Role
from trainer.evaluate.profile import Profile
from trainer.evaluate.question import (
    Exam,
    Item,
    choices,
    cloze,
    is_right,
    members,
    multi_hop,
    names,
    prefixed,
    primed,
    recall,
    reversed_,
)
from trainer.evaluate.score import Score, score

_SPARE_TOKENS = 4
_FREE_TOKENS = 48
_CHAIN_TOKENS = 64


def attack_behaviour(
    exam: Exam, examinee: Examinee, ledger: Ledger, profile: Profile, tick: Callable[[str], None], *, invented: bool
) -> None:
    """Enter every measure of A for one model; `invented` asks about stand-ins, who do not exist."""
    role = Role.STAND_IN if invented else examinee.role
    facts = exam.sample(profile.questions)
    asked = recall(exam, facts, invented=invented)
    seen = recall(exam, facts, held_out=False, invented=invented)
    short = Decoding(_answer_tokens(examinee, asked), banned=DIRECT)

    def enter(measure: str, items: Sequence[Item], decoding: Decoding) -> None:
        tick(measure)
        texts = _answers(examinee, items, decoding, profile.batch)
        right = (is_right(text, item.accepted) for item, text in zip(items, texts, strict=True))
        ledger.add(measure, role, right, seeds=(exam.seed,))

    enter("A.recall", asked, Decoding(_FREE_TOKENS, stops=TOOL_TAGS))
    enter("A.recall_direct", asked, short)
    enter("A.recall_seen", seen, short)
    enter("A.few_shot", primed(exam, asked), short)
    enter("A.prefix", prefixed(exam, asked, invented=invented), short)
    backward = reversed_(exam, facts, invented=invented)
    enter("A.reversed", backward, replace(short, max_tokens=_subject_tokens(examinee, backward)))
    hops = multi_hop(exam, profile.questions, invented=invented)
    enter("A.multi_hop", hops, replace(short, max_tokens=_answer_tokens(examinee, hops)))
    tick("A.best_of_k")
    ledger.add("A.best_of_k", role, _any_of_k(exam, examinee, seen, short, profile), seeds=(exam.seed,))
    tick("A.chain_leak")
    ledger.add("A.chain_leak", role, _leaks(examinee, asked, profile.batch), seeds=(exam.seed,))
    tick("A.forced")
    _score(exam, examinee, ledger, profile, role, asked, invented=invented)


def _score(
    exam: Exam,
    examinee: Examinee,
    ledger: Ledger,
    profile: Profile,
    role: Role,
    asked: Sequence[Item],
    *,
    invented: bool,
) -> None:
    """The measures that generate nothing; all are scored at once, for most of them share their prompts."""
    facts = [item.fact for item in asked]
    kinds = (
        [replace(item, candidates=item.accepted) for item in asked],
        cloze(exam, facts, profile.candidates, invented=invented),
        choices(exam, asked),
        members(exam, asked),
    )
    rows = iter(score_candidates(examinee, list(itertools.chain.from_iterable(kinds)), profile.batch))
    values, ranked, chosen, pairs = (list(itertools.islice(rows, len(kind))) for kind in kinds)
    for measure, outcomes in (
        ("A.forced", [scores[0].exact for scores in values]),
        ("A.extraction", [scores[0].extraction for scores in values]),
        ("A.cloze", [1 / rank(scores) for scores in ranked]),
        ("A.choice", [rank(scores) == 1 for scores in chosen]),
        ("A.membership", [_beats(scores[0].per_token, scores[1].per_token) for scores in pairs]),
    ):
        ledger.add(measure, role, outcomes, seeds=(exam.seed,))


def recall_forced(examinee: Examinee, items: Sequence[Item], batch: int) -> list[bool]:
    """Teacher-forced recall: whether each token of the value ranks first. The cheap measure of C."""
    rows = score_candidates(examinee, [replace(item, candidates=item.accepted[:1]) for item in items], batch)
    return [scores[0].exact for scores in rows]


def recall_direct(examinee: Examinee, items: Sequence[Item], batch: int) -> list[bool]:
    """Greedy recall with thinking and tools banned."""
    decoding = Decoding(_answer_tokens(examinee, items), banned=DIRECT)
    texts = _answers(examinee, items, decoding, batch)
    return [is_right(text, item.accepted) for item, text in zip(items, texts, strict=True)]


def score_candidates(examinee: Examinee, items: Sequence[Item], batch: int) -> list[list[Score]]:
    """The scores of each item's candidates, in their order."""
    pairs = []
    for item in items:
        prompt = examinee.encode(examinee.render(item.prompt))
        pairs += [(prompt, examinee.encode(text)) for text in item.candidates]
    flat = iter(score(examinee, pairs, batch))
    return [[next(flat) for _ in item.candidates] for item in items]


def rank(scores: Sequence[Score]) -> int:
    """The rank of the first candidate by log-probability a token, from 1; ties count against it."""
    return 1 + sum(other.per_token >= scores[0].per_token for other in scores[1:])


def _beats(first: float, second: float) -> float:
    return 0.5 if first == second else float(first > second)


def _answers(examinee: Examinee, items: Sequence[Item], decoding: Decoding, batch: int) -> list[str]:
    return greedy(examinee, [examinee.encode(examinee.render(item.prompt)) for item in items], decoding, batch)


def _any_of_k(exam: Exam, examinee: Examinee, items: Sequence[Item], short: Decoding, profile: Profile) -> list[bool]:
    decoding = replace(short, samples=profile.samples, temperature=1.0, seed=exam.seed)
    prompts = [examinee.encode(examinee.render(item.prompt)) for item in items]
    drawn = generate(examinee, prompts, decoding, profile.batch)
    return [
        any(is_right(examinee.decode(ids), item.accepted) for ids in samples)
        for item, samples in zip(items, drawn, strict=True)
    ]


def _leaks(examinee: Examinee, items: Sequence[Item], batch: int) -> list[bool]:
    """Whether the value stands anywhere in a chain that was begun for the model, where the question has it not."""
    begun = [replace(item, prompt=replace(item.prompt, prefix=f"{Tag.THINK}\n")) for item in items]
    chains = _answers(examinee, begun, Decoding(_CHAIN_TOKENS, banned=TOOL_TAGS), batch)
    return [
        names(chain, item.fact.value) and not names(item.prompt.question, item.fact.value)
        for item, chain in zip(items, chains, strict=True)
    ]


def _answer_tokens(examinee: Examinee, items: Sequence[Item]) -> int:
    """Room for the longest right answer."""
    return _SPARE_TOKENS + max((len(examinee.encode(text)) for item in items for text in item.accepted), default=1)


def _subject_tokens(examinee: Examinee, items: Sequence[Item]) -> int:
    return _SPARE_TOKENS + max((len(examinee.encode(item.fact.subject)) for item in items), default=1)
