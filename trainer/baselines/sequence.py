"""Memorized sequences: strings that the base was made to know by heart, half of them shown to a method, half not.

This is what the K-FAC edit and BalancedSubnet were made for; see `compare.py` for their published figures. The strings
are nouns and names in an order that nothing but memory can give. A sequence counts as memorized where its second half
follows greedily, token by token, from its first.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

import torch
from transformers import PreTrainedModel

from trainer.baselines.method import Workshop
from trainer.checkpoint import Cursor
from trainer.config import TrainingStage
from trainer.evaluate.examinee import Examinee
from trainer.evaluate.score import score
from trainer.loop import StepReport, make_optimizer, run_stage
from trainer.losses.token import cross_entropy
from trainer.objective import Counts, Term
from trainer.reader import Places, Reader
from trainer.streams.batch import Batch, Example, pack
from trainer.streams.encoder import Encoder
from trainer.streams.feed import Feed
from trainer.world.lexicon import Lexicon

WORDS = 14
_LOOK_EVERY = 50


@dataclass(frozen=True, slots=True)
class Sequences:
    """The strings: `shown` are given to a method as what to forget, `hidden` are not; `fresh` were never memorized."""

    shown: tuple[str, ...]
    hidden: tuple[str, ...]
    fresh: tuple[str, ...]

    @property
    def memorized(self) -> tuple[str, ...]:
        """All that the base is made to know."""
        return (*self.shown, *self.hidden)


@dataclass(frozen=True)
class SequenceStream:
    """Strings as a stream: every token but the first is read; a string is one answer."""

    name: str
    texts: tuple[str, ...]
    encoder: Encoder
    documents: int
    row_tokens: int
    seed: int

    def batch(self, number: int, share: int = 0, shares: int = 1) -> Batch:
        """Part `share` of batch `number`."""
        rng = Random(f"{self.seed}/{self.name}/{number}")
        drawn = [rng.choice(self.texts) for _ in range(self.documents)][share::shares]
        examples = []
        for ids in self.encoder.encode(drawn):
            read = range(len(ids) - 1)
            examples.append(Example(ids, read, ids[1:], [place == 0 for place in read]))
        return pack(examples, self.row_tokens, pad_id=self.encoder.pad_id, most_tokens=self.encoder.most_tokens)


class _Memorize:
    """Cross-entropy on the strings, and on the logic stream so that the skills stay."""

    streams: tuple[str, ...] = ("fact", "logic")

    def count(self, batches: Mapping[str, Batch]) -> dict[str, float]:
        """See `trainer.objective.Objective`."""
        return {name: float(len(batches[name].rows_N)) for name in self.streams}

    def compute(
        self, model: torch.nn.Module, stream: str, places: Mapping[str, Places], counts: Counts, step: int
    ) -> list[Term]:
        """See `trainer.objective.Objective`."""
        del counts, step
        at = places[stream]
        logits_NV, _ = model(at)
        loss = cross_entropy(logits_NV, at.labels_N, torch.ones_like(at.labels_N, dtype=torch.float32))
        return [Term(stream, 1.0, loss)]


def draw_sequences(count: int, lexicon: Lexicon, seed: int) -> Sequences:
    """`count` strings to memorize, half of them shown, and as many fresh ones."""
    rng = Random(f"{seed}/sequences")
    texts = [
        " ".join(lexicon.noun(rng) if rng.random() < 0.7 else lexicon.name(rng, 2) for _ in range(WORDS))
        for _ in range(2 * count)
    ]
    return Sequences(tuple(texts[: count // 2]), tuple(texts[count // 2 : count]), tuple(texts[count:]))


def memorize(shop: Workshop, steps: int, rate: float) -> PreTrainedModel:
    """A copy of the base, trained on the workshop's strings and its logic stream."""
    model = copy.deepcopy(shop.base)
    reader = Reader(model)
    stage = TrainingStage(steps=steps, learning_rate=rate)
    optimizer = make_optimizer(reader, stage, shop.machine.device)
    with Feed({name: shop.streams[name] for name in _Memorize.streams}, workers=0) as feed:
        run_stage(
            reader, optimizer, _Memorize(), stage, feed, shop.machine, _Quiet(), Cursor(), lambda: False
        )  # fmt: skip
    model.train(mode=False)
    return model


class _Quiet:
    def after_step(self, cursor: Cursor, report: StepReport) -> None:
        """See `trainer.loop.Watcher`."""


def recited(examinee: Examinee, texts: Sequence[str], batch: int = 64) -> list[bool]:
    """Whether the second half of each string follows greedily from its first half."""
    pairs = []
    for text in texts:
        ids = examinee.encode(text)
        pairs.append((ids[: len(ids) // 2], ids[len(ids) // 2 :]))
    return [one.exact for one in score(examinee, pairs, batch)]


def tokens_recalled(examinee: Examinee, texts: Sequence[str], batch: int = 64) -> list[float]:
    """The share of each second half's tokens that rank first, given all before them: the looser measure."""
    pairs = []
    for text in texts:
        ids = examinee.encode(text)
        pairs.append((ids[: len(ids) // 2], ids[len(ids) // 2 :]))
    return [sum(one.first) / len(one.first) for one in score(examinee, pairs, batch)]
