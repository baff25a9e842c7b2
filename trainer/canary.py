"""What is looked at while a run goes on: recall, logic, the way to the memory. Small, cheap, on fixed examples.

Not the evaluation, whose numbers make a core's report; a canary only has to fall in time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import torch

from knowledge_store.errors import ProtocolError
from knowledge_store.protocol import NOT_FOUND, Tag, ValueQuery, parse_query, render_values
from trainer.base_model import Base
from trainer.chat import Segment, render, render_prompt
from trainer.config import RunConfig
from trainer.fact import Target
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


@dataclass(frozen=True, slots=True)
class Canaries:
    """One look. Shares of 1; `lookup` and `steps` are None where no rollout was asked for."""

    recall: float
    recall_seen: float
    logic: float
    lookup: float | None = None
    steps: float | None = None


@dataclass(frozen=True, slots=True)
class CanarySet:
    """The fixed examples of a run."""

    held_out: tuple[Example, ...]
    seen: tuple[Example, ...]
    logic: tuple[Example, ...]
    questions: tuple[tuple[str, Target], ...]

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
            if not rollouts or not self.questions:
                return Canaries(recall, recall_seen, logic)
            answers = roll_out_facts(reader, base, self.questions)
        finally:
            reader.train(training)
        looked = sum(asks_for(answer, fact) for answer, (_, fact) in zip(answers, self.questions, strict=True))
        steps = sum(answer.steps for answer in answers)
        return Canaries(recall, recall_seen, logic, looked / len(answers), steps / len(answers))


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
    return CanarySet(tuple(held_out), tuple(seen), tuple(answer_examples(documents, encoder)), questions)


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
