"""What K-FAC and BalancedSubnet were made for, tried on our own small models: strings and labels learned by heart.

The published pattern, for models of billions of weights: 3.4 % of the memorized text left after the K-FAC edit,
16.1 % on unseen quotes against 60 % for BalancedSubnet, logic at 95 to 106 %, arithmetic at 66 to 86 %, open-book near
100 %; and 66.5 % of wrongly labelled images named rightly again. The rows here say what a model of this size does.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeGuard

from pydantic import Field

from trainer.baselines.method import Applied, ByStages, Made, Method, Untouched, Workshop, apply, at_work
from trainer.baselines.sequence import SequenceStream, draw_sequences, memorize, recited, tokens_recalled
from trainer.baselines.vision import Digits, VisionTransformer, edited, load, recovered, train
from trainer.config import AverageStage, PerturbStage, Strict
from trainer.errors import NotFiniteError
from trainer.evaluate.examinee import Examinee
from trainer.evaluate.generate import DIRECT, TOOL_TAGS
from trainer.evaluate.outcome import Role
from trainer.evaluate.profile import Profile
from trainer.evaluate.question import Exam
from trainer.evaluate.reasoning import ARITHMETIC, LOGIC, READING, answers, draw_tasks, grade
from trainer.evaluate.statistic import interval
from trainer.streams.encoder import Encoder


class SequencesConfig(Strict):
    """Strings to learn by heart."""

    count: int = Field(default=100, ge=2, description="how many; half are shown to a method")
    documents: int = Field(default=64, ge=1, description="strings a step")
    shown_documents: int | None = Field(
        default=None, ge=1, description="strings a step of a method; as many as in learning where none is given"
    )
    steps: int = Field(default=300, ge=1, description="steps of learning")
    learning_rate: float = Field(default=5e-4, gt=0)
    methods: tuple[str, ...] = Field(
        default=(), description="which methods forget them, by name; all that can where none is named"
    )


class VisionConfig(Strict):
    """Digits with wrong labels."""

    wrong_share: float = Field(default=0.1, gt=0, lt=1)
    epochs: int = Field(default=150, ge=1)
    shares: tuple[float, ...] = Field(default=(0.99, 0.95, 0.9, 0.8, 0.6), description="mass that an edit keeps")


class Share(Strict):
    """A share or mean with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int


class SequenceRow(Strict):
    """One method on memorized strings."""

    name: str
    title: str
    shown: Share = Field(description="strings shown to the method that are still recited")
    hidden: Share = Field(description="memorized strings that the method never saw")
    tokens: Share = Field(description="tokens of both that still follow")
    fresh: Share = Field(description="tokens of strings that were never memorized")
    logic: Share
    arithmetic: Share
    reading: Share


class VisionRow(Strict):
    """One edit of the vision transformer."""

    edit: str
    share: float
    right_again: Share = Field(description="wrongly labelled images that are named rightly")
    still_wrong: Share = Field(description="wrongly labelled images that are named as told")
    unseen: Share = Field(description="unseen images that are named rightly")


def compare_sequences(
    config: SequencesConfig,
    methods: Sequence[Applied],
    shop: Workshop,
    exam: Exam,
    base: Examinee,
    profile: Profile,
    tick: Callable[[str], None],
) -> tuple[SequenceRow, ...]:
    """Let the base learn strings by heart, then apply every method; see `forgets_strings`."""
    strings = draw_sequences(config.count, exam.world.lexicon, exam.seed)

    def stream(texts: tuple[str, ...], documents: int) -> SequenceStream:
        return SequenceStream("fact", texts, _encoder_of(shop), documents, 512, exam.seed)

    tick("strings: the base learns them")
    learning = replace(shop, streams={**shop.streams, "fact": stream(strings.memorized, config.documents)})
    model = memorize(learning, config.steps, config.learning_rate)
    shown = stream(strings.shown, config.shown_documents or config.documents)
    knowing = at_work(shop, model, {**shop.streams, "fact": shown})
    rows = []
    for method in methods:
        tick(f"strings: {method.title}")
        try:
            changed = apply(method, knowing)
        except NotFiniteError:
            continue
        one = Examinee(Role.CORE, method.name, changed, base.tokenizer)
        batch, skills = profile.batch, []
        for kinds, banned in ((LOGIC, TOOL_TAGS), (ARITHMETIC, DIRECT), (READING, TOOL_TAGS)):
            tasks = draw_tasks(exam, kinds, profile.skill_questions)
            skills.append(_share(grade(tasks, answers(one, tasks, banned, batch))))
        rows.append(
            SequenceRow(
                name=method.name,
                title="Base, strings learned" if isinstance(method, Untouched) else method.title,
                shown=_share(recited(one, strings.shown, batch)),
                hidden=_share(recited(one, strings.hidden, batch)),
                tokens=_share(tokens_recalled(one, strings.memorized, batch)),
                fresh=_share(tokens_recalled(one, strings.fresh, batch)),
                logic=skills[0],
                arithmetic=skills[1],
                reading=skills[2],
            )
        )  # fmt: skip
    return tuple(rows)


def compare_vision(config: VisionConfig, seed: int = 0) -> tuple[VisionRow, ...]:
    """Train the vision transformer on wrong labels, then edit it by curvature and by spectrum, at every share."""
    digits, model = load(config.wrong_share, seed), VisionTransformer(seed=seed)
    train(model, digits, config.epochs, 1e-3, seed)
    rows = [_vision_row("as trained", 1.0, model, digits)]
    for name, curvature in (("K-FAC", True), ("SVD", False)):
        for share in config.shares:
            changed = edited(model, digits, share, seed, curvature=curvature)
            rows.append(_vision_row(name, share, changed, digits))
    return tuple(rows)


def _vision_row(name: str, share: float, model: VisionTransformer, digits: Digits) -> VisionRow:
    found = recovered(model, digits)
    return VisionRow(
        edit=name, share=share, right_again=_share(found.right_again), still_wrong=_share(found.still_wrong),
        unseen=_share(found.unseen),
    )  # fmt: skip


def forgets_strings(method: Method) -> TypeGuard[Applied]:
    """Whether a method needs no prompts about facts, which strings do not have."""
    if isinstance(method, ByStages):
        return all(isinstance(stage, PerturbStage | AverageStage) or _fact_free(stage) for stage in method.stages)
    return not isinstance(method, Made) and not (isinstance(method, Untouched) and method.kind == "rag")


def chosen_for_strings(config: SequencesConfig, methods: Sequence[Method]) -> tuple[Applied, ...]:
    """The methods that are to forget strings, in the comparison's order.

    Raises:
        ValueError: one that is named is no method of the comparison, or cannot forget a string.
    """
    able = tuple(filter(forgets_strings, methods))
    names = [method.name for method in able]
    for name in config.methods:
        if name not in names:
            known = any(method.name == name for method in methods)
            reason = "cannot forget strings, which have no prompt" if known else "is no method of this comparison"
            raise ValueError(f"sequences.methods: {name} {reason}; these can: {', '.join(names)}")
    return tuple(method for method in able if not config.methods or method.name in config.methods)


def _fact_free(stage: object) -> bool:
    losses = getattr(stage, "losses", None)
    return losses is not None and not (losses.reversal or losses.never_knew or losses.route)


def _encoder_of(shop: Workshop) -> Encoder:
    encoder = getattr(shop.streams["logic"], "encoder", None)
    assert isinstance(encoder, Encoder), "the logic stream encodes its documents"
    return encoder


def _share(items: Sequence[float]) -> Share:
    values = [float(item) for item in items]
    bounds = interval(values)
    return Share(value=bounds.value, low=bounds.low, high=bounds.high, n=len(values))
