"""What is looked at while a run goes on: recall, logic, the way to the memory. Small, cheap, on fixed examples.

Not the evaluation, whose numbers make a core's report; a canary only has to fall in time.

Legend: M probed prompts, H hidden size, K classes.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from random import Random

import torch
from torch import Tensor

from knowledge_store.errors import ProtocolError
from knowledge_store.protocol import NOT_FOUND, Tag, ValueQuery, parse_query, render_values
from trainer.base_model import Base
from trainer.chat import Segment, render, render_prompt
from trainer.config import RunConfig
from trainer.fact import Target, relations_in_classes
from trainer.machine import Machine
from trainer.reader import Reader, to_places
from trainer.rollout import Rollout, answer_all
from trainer.streams.batch import Example, pack
from trainer.streams.encoder import Encoder
from trainer.streams.fact import value_text
from trainer.world.corpus import LOGIC_MIXTURE, mixture
from trainer.world.document import Document
from trainer.world.world import World

_DETERMINED = ("reading/*", "logic/*", "memory/*")  # kinds whose answer is not a matter of taste
_BATCH = 64
_PROBED = 4  # times as many facts are probed as are asked for recall
_RIDGE = 0.5


@dataclass(frozen=True, slots=True)
class Canaries:
    """One look. Shares of 1; what rollouts tell is None where none was asked for."""

    recall: float
    """Values foretold token by token at the end of a closed-book prompt, in held-out wording."""
    recall_seen: float
    logic: float
    lookup: float | None = None
    """Fact questions answered by a lookup of just that fact."""
    steps: float | None = None
    """Steps an answer, not a share."""
    chain: float | None = None
    """Fact questions on which a chain of thought was opened unprompted: adoption, as docs/gate.md defines it."""
    direct: float | None = None
    """Fact questions whose value stands in an answer that looked nothing up."""
    decoded: float | None = None
    """Accuracy of a fresh linear probe; None where no relation has enough subjects to a value."""
    decoded_chance: float | None = None
    """What naming the commonest value would give it."""


@dataclass(frozen=True, slots=True)
class Decodable:
    """Prompts on one relation whose values many subjects share: some fit a probe, the other subjects are asked.

    The probed place is the end of the prompt; the asked ones are in held-out wording.
    """

    fitted: tuple[Example, ...]
    asked: tuple[Example, ...]
    classes: int

    @property
    def chance(self) -> float:
        """Share of the asked whose class is the commonest of the fitted."""
        commonest, _ = Counter(one.label_class for one in self.fitted).most_common(1)[0]
        return sum(one.label_class == commonest for one in self.asked) / len(self.asked)

    def accuracy(self, reader: Reader, encoder: Encoder) -> float:
        """Of a linear probe that is fitted now, to the model as it is.

        Ridge regression on the classes, in closed form, so that nothing is drawn and a look takes a forward pass.
        """
        fitted_MH, classes_M = _states(reader, self.fitted, encoder)
        asked_MH, truth_M = _states(reader, self.asked, encoder)
        mean_H, spread_H = fitted_MH.mean(0), fitted_MH.std(0) + 1e-6
        fitted_MH, asked_MH = (fitted_MH - mean_H) / spread_H, (asked_MH - mean_H) / spread_H
        wanted_MK = torch.nn.functional.one_hot(classes_M, self.classes).double()
        shares_K = wanted_MK.mean(0)
        kernel_MM = fitted_MH @ fitted_MH.T / fitted_MH.shape[1]
        kernel_MM.diagonal().add_(_RIDGE)
        weights_MK = torch.linalg.solve(kernel_MM, wanted_MK - shares_K)
        said_M = (asked_MH @ fitted_MH.T / fitted_MH.shape[1] @ weights_MK + shares_K).argmax(-1)
        return float((said_M == truth_M).double().mean())


@dataclass(frozen=True, slots=True)
class CanarySet:
    """The fixed examples of a run."""

    held_out: tuple[Example, ...]
    seen: tuple[Example, ...]
    logic: tuple[Example, ...]
    questions: tuple[tuple[str, Target], ...]
    decodable: Decodable | None = None

    def look(self, reader: Reader, base: Base, machine: Machine, *, rollouts: bool = True) -> Canaries:
        """Look at a model; it is left as it was found."""
        training = reader.training
        reader.eval()
        encoder = base.encoder
        try:
            with machine.precision():
                recall, recall_seen, logic = (
                    sum(exact(reader, examples, encoder)) / max(len(examples), 1)
                    for examples in (self.held_out, self.seen, self.logic)
                )
                decoded = self.decodable.accuracy(reader, encoder) if self.decodable else None
            chance = self.decodable.chance if self.decodable else None
            seen = Canaries(recall, recall_seen, logic, decoded=decoded, decoded_chance=chance)
            if not rollouts or not self.questions:
                return seen
            answers = roll_out_facts(reader, base, self.questions)
        finally:
            reader.train(training)
        asked = [(answer, fact) for answer, (_, fact) in zip(answers, self.questions, strict=True)]
        return replace(
            seen,
            lookup=_share(asks_for(answer, fact) for answer, fact in asked),
            steps=sum(answer.steps for answer in answers) / len(answers),
            chain=_share(Tag.THINK in answer.text for answer in answers),
            direct=_share(recalls(answer, fact) for answer, fact in asked),
        )


def _share(outcomes: Iterable[bool]) -> float:
    found = list(outcomes)
    return sum(found) / len(found)


def canary_set(config: RunConfig, world: World, encoder: Encoder) -> CanarySet:
    """Draw a run's canaries: facts in held-out wording and in seen wording, documents of the logic stream."""
    rng = Random(f"{config.seed}/canary")
    count = config.watch.questions
    facts = rng.sample(world.facts, min(count, len(world.facts)))
    held_out = recall_examples(facts, world, encoder, config.facts.answer, rng, held_out=True)
    seen = recall_examples(facts, world, encoder, config.facts.answer, rng, held_out=False)
    patterns = [kind for kind in LOGIC_MIXTURE if kind.split("/")[0] in {name.split("/")[0] for name in _DETERMINED}]
    weights = {kind: LOGIC_MIXTURE[kind] for kind in patterns}
    chosen = mixture(weights, patterns=config.streams.logic.kinds, fact_free=True, rough_share=0.0)
    documents = [chosen.draw(world, rng) for _ in range(count)]
    asked = rng.sample(world.facts, min(config.watch.rollouts, len(world.facts)))
    questions = tuple((world.phrasings.ask(*fact.key, rng, held_out=True), fact) for fact in asked)
    return CanarySet(
        tuple(held_out), tuple(seen), tuple(answer_examples(documents, encoder)), questions,
        decodable(world, encoder, config.facts.answer, _PROBED * count, Random(f"{config.seed}/canary/probe")),
    )  # fmt: skip


def decodable(world: World, encoder: Encoder, answer: str, most: int, rng: Random) -> Decodable | None:
    """Up to `most` facts for a fresh probe, of the largest relation that mostly has few, shared values; or None."""
    for _, usable in relations_in_classes(world.facts):
        return _split(rng.sample(usable, min(most, len(usable))), world, encoder, answer, rng)
    return None


def _split(chosen: Sequence[Target], world: World, encoder: Encoder, answer: str, rng: Random) -> Decodable:
    number = {value: place for place, value in enumerate(sorted({fact.value for fact in chosen}))}
    half = len(chosen) // 2
    fitted, asked = (
        tuple(
            replace(example, probed=[example.read[0]], label_class=number[fact.value])
            for fact, example in zip(
                part, recall_examples(part, world, encoder, answer, rng, held_out=held_out), strict=True
            )
        )
        for part, held_out in ((chosen[:half], False), (chosen[half:], True))
    )
    return Decodable(fitted, asked, len(number))


def _states(reader: Reader, examples: Sequence[Example], encoder: Encoder) -> tuple[Tensor, Tensor]:
    """Hidden states (M, H) of the last layer, where probes of the demo base find its facts, and their classes (M)."""
    device = next(reader.parameters()).device
    states, classes = [], []
    for start in range(0, len(examples), _BATCH):
        part = examples[start : start + _BATCH]
        places = to_places(pack(part, 256, pad_id=encoder.pad_id, most_tokens=encoder.most_tokens), device)
        with torch.no_grad():
            _, (hidden_MH,) = reader(places, (reader.layers,), at_probes=True)
        states.append(hidden_MH.double().cpu())
        classes.append(places.classes_M.cpu())
    return torch.cat(states), torch.cat(classes)


def recall_examples(
    facts: Sequence[Target], world: World, encoder: Encoder, answer: str, rng: Random, *, held_out: bool
) -> list[Example]:
    """A closed-book prompt for each fact, with its value to be foretold token by token."""
    asked = [(world.phrasings.ask(*fact.key, rng, held_out=held_out), fact) for fact in facts]
    return value_examples(asked, encoder, answer)


def value_examples(asked: Sequence[tuple[str, Target]], encoder: Encoder, answer: str) -> list[Example]:
    """Closed-book prompts of these questions, with the values of their facts to be foretold token by token."""
    documents = []
    for question, fact in asked:
        before, value = value_text(answer, fact.value)
        documents.append((*render_prompt(question, encoder.frame), Segment(before, False), Segment(value, True)))
    return encoder.examples(documents)


def answer_examples(documents: Sequence[Document], encoder: Encoder) -> list[Example]:
    """Documents whose thoughts are given and whose answers are to be foretold."""
    return encoder.examples([_only_answer(render(document, encoder.frame)) for document in documents])


def _only_answer(segments: Sequence[Segment]) -> list[Segment]:
    *before, last, end = segments
    head, closing, said = last.text.rpartition(f"{Tag.END_THINK}\n")
    given = [Segment(segment.text, False) for segment in before]
    return [*given, Segment(head + closing, False), Segment(said, True), Segment(end.text, False)]


def exact(reader: Reader, examples: Sequence[Example], encoder: Encoder, *, batch: int = _BATCH) -> list[bool]:
    """Whether every read token of an example is the likeliest one."""
    device = next(reader.parameters()).device
    results: list[bool] = []
    for start in range(0, len(examples), batch):
        part = examples[start : start + batch]
        packed = pack(part, 256, pad_id=encoder.pad_id, most_tokens=encoder.most_tokens)
        places = to_places(packed, device)
        with torch.no_grad():
            logits_NV, _ = reader(places)
        missed = (logits_NV.argmax(-1) != places.labels_N).cpu()
        owners = torch.from_numpy(packed.example_N)
        misses = torch.zeros(len(part)).index_add_(0, owners, missed.float())
        results += (misses == 0).tolist()
    return results


def roll_out_facts(reader: Reader, base: Base, questions: Sequence[tuple[str, Target]]) -> list[Rollout]:
    """Answer fact questions in full, with a memory that holds just these facts."""
    truth = {fact.key: fact.value for _, fact in questions}

    def memory(number: int, body: str) -> str:
        del number
        try:
            query = parse_query(body)
        except ProtocolError:
            return NOT_FOUND
        value = truth.get((query.subject, query.relation)) if isinstance(query, ValueQuery) else None
        return render_values([value] if value is not None else [])

    texts = [question for question, _ in questions]
    return answer_all(reader.model, base.tokenizer, base.frame, texts, memory, most_calls=3, most_tokens=64)


def asks_for(rollout: Rollout, fact: Target) -> bool:
    """Whether an answer looked up just this fact."""
    for call in rollout.lookups:
        try:
            if parse_query(call.body) == ValueQuery(*fact.key):
                return True
        except ProtocolError:
            continue
    return False


def recalls(rollout: Rollout, fact: Target) -> bool:
    """Whether an answer says the fact's value without having looked anything up."""
    return not rollout.lookups and rollout.answer is not None and fact.value.casefold() in rollout.answer.casefold()
