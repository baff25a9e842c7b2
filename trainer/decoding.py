"""Batched decoding: many prompts at once, left-padded, with a key-value cache; who has finished leaves the batch.

transformers' own `generate` computes every row until the last one ends: on a CPU, and with one answer of 160 tokens
among sixty of ten, most of its work is padding (`benchmarks/decoding.py` times both).

Legend: B rows, T tokens, V vocabulary.
"""

from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

_COMPACT = 7 / 8  # a smaller share of living rows is worth copying the cache for
_FEW = 8  # rows that are too few to be split for the sake of their padding


def by_length(lengths: Sequence[int], size: int, padding: float = 1.0) -> Iterator[list[int]]:
    """Places of the sequences in batches of like length, so that little is padding.

    A batch has `size` sequences, or fewer where padding would be more than that share of it.
    """
    batch: list[int] = []
    total = 0
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        full = total + lengths[place] < (1 - padding) * lengths[place] * (len(batch) + 1)
        if len(batch) == size or (full and len(batch) >= _FEW):
            yield batch
            batch, total = [], 0
        batch.append(place)
        total += lengths[place]
    if batch:
        yield batch


def pad_left(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids and mask, both [B, T], right-aligned."""
    width = max(map(len, rows))
    ids_BT = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask_BT = torch.zeros((len(rows), width), dtype=torch.long)
    for place, row in enumerate(rows):
        ids_BT[place, width - len(row) :] = torch.tensor(row, dtype=torch.long)
        mask_BT[place, width - len(row) :] = 1
    return ids_BT.to(device), mask_BT.to(device)


def steps_of(mask_BT: Tensor) -> Tensor:
    """The place of each token in its own sequence, from 0; padding before it stands at 0 as well."""
    return (mask_BT.cumsum(-1) - 1).clamp(min=0)


def decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    stops: Collection[int],
    pad_id: int,
    most_tokens: int,
    banned: Collection[int] = (),
    temperature: float = 0.0,
    batch: int = 64,
) -> list[list[int]]:
    """The continuation of each prompt, up to and with the token that stopped it, or `most_tokens` long.

    Args:
        model: in evaluation mode; it is called as any causal model with a cache is.
        prompts: token ids, one at least each.
        stops: ids that end a row.
        pad_id: the id that fills a batch; masked.
        most_tokens: bound on a continuation.
        banned: ids that are never written.
        temperature: 0 takes the likeliest token; above, tokens are drawn with torch's global generator.
        batch: rows at a time.
    """
    made: list[list[int]] = [[] for _ in prompts]
    for places in by_length([len(prompt) for prompt in prompts], batch):
        chosen = [prompts[place] for place in places]
        rows = _decode_batch(model, chosen, frozenset(stops), pad_id, most_tokens, list(banned), temperature)
        for place, ids in zip(places, rows, strict=True):
            made[place] = ids
    return made


@torch.no_grad()
def _decode_batch(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    stops: frozenset[int],
    pad_id: int,
    most_tokens: int,
    banned: list[int],
    temperature: float,
) -> list[list[int]]:
    places = {prompt: place for place, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
    each_B = torch.tensor([places[tuple(prompt)] for prompt in prompts], device=model.device)
    ids_BT, mask_BT = pad_left(list(places), pad_id, model.device)  # who asks for several samples is read once
    positions_BT, cache = steps_of(mask_BT), None
    made: list[list[int]] = [[] for _ in prompts]
    rows = list(range(len(prompts)))  # which prompt each row of the batch belongs to
    for _ in range(most_tokens):
        output = model(
            input_ids=ids_BT, attention_mask=mask_BT, position_ids=positions_BT, past_key_values=cache, use_cache=True,
            logits_to_keep=1,
        )  # fmt: skip
        logits_BV = output.logits[:, -1].float()
        if cache is None and len(places) < len(prompts):
            output.past_key_values.batch_select_indices(each_B)
            logits_BV, mask_BT = logits_BV[each_B], mask_BT[each_B]
        cache = output.past_key_values
        next_B = _choose(logits_BV, banned, temperature)
        for row, token in zip(rows, next_B.tolist(), strict=True):
            if not _ended(made[row], stops):
                made[row].append(token)
        living = [place for place, row in enumerate(rows) if not _ended(made[row], stops)]
        if not living:
            break
        if len(living) <= _COMPACT * len(rows):
            kept = torch.tensor(living, device=ids_BT.device)
            cache.batch_select_indices(kept)
            next_B, mask_BT, rows = next_B[kept], mask_BT[kept], [rows[place] for place in living]
        mask_BT = torch.cat([mask_BT, mask_BT.new_ones(len(rows), 1)], dim=1)
        ids_BT, positions_BT = next_B[:, None], mask_BT.sum(-1, keepdim=True) - 1
    return made


def _ended(ids: Sequence[int], stops: frozenset[int]) -> bool:
    return bool(ids) and ids[-1] in stops


def _choose(logits_BV: Tensor, banned: list[int], temperature: float) -> Tensor:
    logits_BV[:, banned] = -torch.inf
    if not temperature:
        return logits_BV.argmax(-1)
    return torch.multinomial((logits_BV / temperature).softmax(-1), 1)[:, 0]
