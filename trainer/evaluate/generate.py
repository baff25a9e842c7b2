"""Batched generation: many questions at once, greedy or sampled, with tokens banned and stops by id.

Left-padded, in batches of prompts of like length, through transformers' own `generate` with its key-value cache. Takes
and gives token ids; an answer's text is made by `Examinee.decode`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import GenerationConfig

from knowledge_store.protocol import Tag
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


def by_length(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Places of the sequences in batches of like length, so that little is padding."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for start in range(0, len(order), size):
        yield order[start : start + size]


def pad_left(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, both [B, T], right-aligned."""
    width = max(map(len, rows))
    ids_BT = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask_BT = torch.zeros((len(rows), width), dtype=torch.long)
    for place, row in enumerate(rows):
        ids_BT[place, width - len(row) :] = torch.tensor(row, dtype=torch.long)
        mask_BT[place, width - len(row) :] = 1
    return ids_BT.to(device), mask_BT.to(device)


@torch.no_grad()
def generate(
    examinee: Examinee, prompts: Sequence[Sequence[int]], decoding: Decoding, batch: int = 64
) -> list[list[list[int]]]:
    """For each prompt, `decoding.samples` continuations, each up to and with the token that ended it."""
    answers: list[list[list[int]]] = [[] for _ in prompts]
    config = _config(examinee, decoding)
    if decoding.temperature:
        torch.manual_seed(decoding.seed)
    for places in by_length([len(prompt) for prompt in prompts], max(1, batch // decoding.samples)):
        ids_BT, mask_BT = pad_left([prompts[place] for place in places], examinee.pad_id, examinee.device)
        made = examinee.model.generate(  # type: ignore[operator]
            input_ids=ids_BT, attention_mask=mask_BT, generation_config=config
        )
        ends = {*examinee.end_ids, *(examinee.tag_ids[tag] for tag in decoding.stops if tag in examinee.tag_ids)}
        for row, ids in enumerate(made[:, ids_BT.shape[1] :].tolist()):
            answers[places[row // decoding.samples]].append(_cut(ids, ends))
    return answers


def greedy(examinee: Examinee, prompts: Sequence[Sequence[int]], decoding: Decoding, batch: int = 64) -> list[str]:
    """One answer a prompt, as text."""
    return [examinee.decode(ids) for (ids,) in generate(examinee, prompts, decoding, batch)]


def _config(examinee: Examinee, decoding: Decoding) -> GenerationConfig:
    stops = [examinee.tag_ids[tag] for tag in decoding.stops if tag in examinee.tag_ids]
    banned = [examinee.tag_ids[tag] for tag in decoding.banned if tag in examinee.tag_ids]
    sampling = (
        {"do_sample": True, "temperature": decoding.temperature, "top_k": 0}
        if decoding.temperature
        else {"do_sample": False}
    )
    return GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=decoding.max_tokens,
        num_return_sequences=decoding.samples,
        eos_token_id=[*examinee.end_ids, *stops],
        pad_token_id=examinee.pad_id,
        suppress_tokens=banned or None,
        **sampling,
    )


def _cut(ids: list[int], ends: set[int]) -> list[int]:
    for place, one in enumerate(ids):
        if one in ends:
            return ids[: place + 1]
    return ids
