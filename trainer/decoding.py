"""Batched decoding: many prompts at once, left-padded, with a key-value cache; who has finished makes room for others.

transformers' own `generate` computes every row until the last one ends: on a CPU, and with one answer of 160 tokens
among sixty of ten, most of its work is padding (`benchmarks/decoding.py` times both). Here prompts are read in parts of
like length, and a part joins the rows that are being written as soon as there is room for it. A row that stops for a
call can be told the reply and go on where it is, beside the others. So little padding is computed, and no text is read
twice.

Legend: B rows, T tokens, V vocabulary.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from trainer.cache import is_plain, joined, roomy, widened

Resume = Callable[[int, list[int]], Sequence[int]]
"""(place of the prompt, what its row wrote until it stopped) -> what it reads before it writes on; nothing ends it."""
_COMPACT = 7 / 8  # a smaller share of living rows is worth copying the cache for
_FEW = 8  # rows that are too few to be split for the sake of their padding
_PADDING = 0.1  # the share of the prompts at which reading them in one more part is the cheaper
_PARTS = 4  # that make a batch, so that there is soon room for the next


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


@dataclass(slots=True)
class _Row:
    """One continuation: all of it, what it wrote since it was last resumed, and what it was given and has not read."""

    place: int
    made: list[int] = field(default_factory=list)
    written: list[int] = field(default_factory=list)
    unread: deque[int] = field(default_factory=deque)
    done: bool = False


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
    resume: Resume | None = None,
) -> list[list[int]]:
    """The continuation of each prompt, up to and with the token that stopped it, or `most_tokens` long.

    Args:
        model: in evaluation mode; it is called as any causal model with a cache is.
        prompts: token ids, one at least each.
        stops: ids that end a row.
        pad_id: the id that fills a batch; masked.
        most_tokens: bound on a continuation, counted anew from where it is resumed; one at least.
        banned: ids that are never written.
        temperature: 0 takes the likeliest token; above, tokens are drawn with torch's global generator.
        batch: rows at a time.
        resume: asked of each row that stops; what it gives is part of the continuation.
    """
    rows = [_Row(place) for place in range(len(prompts))]
    waiting = deque(by_length([len(prompt) for prompt in prompts], max(1, batch // _PARTS), _PADDING))
    stop_ids, banned_ids = frozenset(stops), list(banned)
    now: _Batch | None = None
    while waiting or now:
        while waiting and (now is None or (is_plain(now.cache) and len(now.rows) + len(waiting[0]) <= batch)):
            places = waiting.popleft()
            part = _read(model, [prompts[place] for place in places], [rows[place] for place in places], pad_id)
            now = now.joined(part) if now else part
        assert now is not None, "what waits is read where nothing is written"
        chosen = _choose(now.logits_BV, banned_ids, temperature).tolist()
        read = [
            _advance(row, token, stop_ids, most_tokens, resume) for row, token in zip(now.rows, chosen, strict=True)
        ]
        now = now.after(model, read)
    return [row.made for row in rows]


@dataclass(slots=True)
class _Batch:
    """Rows that are being written; they have read what the mask covers, and the logits are those at its end."""

    rows: list[_Row]
    mask_BT: Tensor
    logits_BV: Tensor
    cache: Cache

    def joined(self, other: "_Batch") -> "_Batch":
        """The rows of both."""
        width = max(self.mask_BT.shape[1], other.mask_BT.shape[1])
        mask_BT = torch.cat([widened(one.mask_BT, width, 1) for one in (self, other)])
        logits_BV = torch.cat([self.logits_BV, other.logits_BV])
        return _Batch([*self.rows, *other.rows], mask_BT, logits_BV, joined(self.cache, other.cache))

    @torch.no_grad()
    def after(self, model: PreTrainedModel, next_ids: Sequence[int]) -> "_Batch | None":
        """The batch when each row has read one token more, without those that are done; None where all are."""
        ids_B = torch.tensor(next_ids, device=self.mask_BT.device)
        rows, mask_BT, cache = self.rows, self.mask_BT, self.cache
        living = [place for place, row in enumerate(rows) if not row.done]
        if not living:
            return None
        if len(living) <= _COMPACT * len(rows):
            kept_B = torch.tensor(living, device=ids_B.device)
            rows, ids_B, mask_BT = [rows[place] for place in living], ids_B[kept_B], mask_BT[kept_B]
            if is_plain(cache):
                first = int(mask_BT.any(0).to(torch.uint8).argmax())  # before it, there is padding only
                mask_BT, cache = mask_BT[:, first:], roomy(cache, kept_B, first)
            else:
                cache.batch_select_indices(kept_B)
        mask_BT = torch.cat([mask_BT, mask_BT.new_ones(len(rows), 1)], dim=1)
        output = model(
            input_ids=ids_B[:, None], attention_mask=mask_BT, position_ids=mask_BT.sum(-1, keepdim=True) - 1,
            past_key_values=cache, use_cache=True, logits_to_keep=1,
        )  # fmt: skip
        return _Batch(rows, mask_BT, output.logits[:, -1].float(), output.past_key_values)


@torch.no_grad()
def _read(model: PreTrainedModel, prompts: Sequence[Sequence[int]], rows: list[_Row], pad_id: int) -> _Batch:
    """The prompts of these rows, in one pass; one that several rows share, such as samples of it, is read once."""
    unique = {prompt: place for place, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
    ids_BT, mask_BT = pad_left(list(unique), pad_id, model.device)
    output = model(
        input_ids=ids_BT, attention_mask=mask_BT, position_ids=steps_of(mask_BT), use_cache=True, logits_to_keep=1
    )
    logits_BV, cache = output.logits[:, -1].float(), output.past_key_values
    if len(unique) < len(prompts):
        each_B = torch.tensor([unique[tuple(prompt)] for prompt in prompts], device=model.device)
        cache.batch_select_indices(each_B)
        logits_BV, mask_BT = logits_BV[each_B], mask_BT[each_B]
    return _Batch(rows, mask_BT, logits_BV, roomy(cache) if is_plain(cache) else cache)


def _advance(row: _Row, chosen: int, stops: frozenset[int], most_tokens: int, resume: Resume | None) -> int:
    """What the row reads next: of what it was given, or else what the model chose, which may end it."""
    if row.done:
        return chosen
    if row.unread:
        return row.unread.popleft()
    row.made.append(chosen)
    row.written.append(chosen)
    if chosen in stops or len(row.written) == most_tokens:
        given = resume(row.place, row.written) if resume else ()
        row.made += given
        row.unread += given
        row.written = []
        row.done = not given
    return chosen


def _choose(logits_BV: Tensor, banned: list[int], temperature: float) -> Tensor:
    logits_BV[:, banned] = -torch.inf
    if not temperature:
        return logits_BV.argmax(-1)
    return torch.multinomial((logits_BV / temperature).softmax(-1), 1)[:, 0]
