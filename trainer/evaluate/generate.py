"""What an examinee says: greedy or sampled, with tags banned and stops by tag.

Takes and gives token ids; an answer's text is made by `Examinee.decode`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from knowledge_store.protocol import Tag
from trainer.decoding import decode
from trainer.evaluate.examinee import Examinee

TOOL_TAGS = (Tag.LOOKUP, Tag.CALC)
DIRECT = (Tag.THINK, *TOOL_TAGS)
"""Banned, these make the weights answer at once."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """How to decode. `banned` tags are never sampled; `stops` end a sequence, as the end of the turn does."""

    max_tokens: int = 32
    banned: tuple[Tag, ...] = ()
    stops: tuple[Tag, ...] = ()
    samples: int = 1
    temperature: float = 0.0
    seed: int = 0


def generate(
    examinee: Examinee, prompts: Sequence[Sequence[int]], decoding: Decoding, batch: int = 64
) -> list[list[list[int]]]:
    """For each prompt, `decoding.samples` continuations, each up to and with the token that ended it."""
    if decoding.temperature:
        torch.manual_seed(decoding.seed)
    made = iter(
        decode(
            examinee.model,
            [prompt for prompt in prompts for _ in range(decoding.samples)],
            stops={*examinee.end_ids, *_ids(examinee, decoding.stops)},
            pad_id=examinee.pad_id,
            most_tokens=decoding.max_tokens,
            banned=_ids(examinee, decoding.banned),
            temperature=decoding.temperature,
            batch=batch,
        )
    )
    return [[next(made) for _ in range(decoding.samples)] for _ in prompts]


def greedy(examinee: Examinee, prompts: Sequence[Sequence[int]], decoding: Decoding, batch: int = 64) -> list[str]:
    """One answer a prompt, as text."""
    return [examinee.decode(ids) for (ids,) in generate(examinee, prompts, decoding, batch)]


def _ids(examinee: Examinee, tags: Sequence[Tag]) -> set[int]:
    return {examinee.tag_ids[tag] for tag in tags if tag in examinee.tag_ids}
