"""Teacher-forced scoring: how likely a model finds a text that it is given, and what stands in its hidden states.

Shapes: B batch, T tokens, V vocabulary, L layers with the embeddings first, D hidden width, N prompts, P positions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from trainer.decoding import by_length, pad_left, steps_of
from trainer.evaluate.examinee import Examinee

_PADDING = 0.1  # the share of a batch at which splitting it is the cheaper


@dataclass(frozen=True, slots=True)
class Score:
    """A continuation under a model: for each of its tokens the log-probability in nats, and whether it ranked first."""

    logprobs: tuple[float, ...]
    first: tuple[bool, ...]

    @property
    def total(self) -> float:
        """Log-probability of the whole."""
        return sum(self.logprobs)

    @property
    def per_token(self) -> float:
        """Mean log-probability; candidates of different length are compared by it."""
        return self.total / len(self.logprobs)

    @property
    def exact(self) -> bool:
        """Whether greedy decoding would have written it."""
        return all(self.first)

    @property
    def extraction(self) -> float:
        """Share of the tokens that greedy decoding writes once it was given those before them.

        Source: extraction strength, Carlini et al. 2021 (arXiv 2012.07805), as defined by Maini et al. 2024
        (arXiv 2401.06121): one minus the shortest prefix after which the rest follows.
        """
        needed = max((place + 1 for place, hit in enumerate(self.first) if not hit), default=0)
        return 1 - needed / len(self.first)


@torch.no_grad()
def score(examinee: Examinee, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], batch: int = 64) -> list[Score]:
    """Score each continuation after its prompt; a continuation has one token at least.

    A prompt that several continuations share is read once for all of them.
    """
    sharing: dict[tuple[int, ...], list[int]] = {}
    for place, (prompt, _) in enumerate(pairs):
        sharing.setdefault(tuple(prompt), []).append(place)
    alone = [places[0] for places in sharing.values() if len(places) == 1]
    shared = {prompt: places for prompt, places in sharing.items() if len(places) > 1}
    scores: dict[int, Score] = {}
    for chosen in by_length([sum(map(len, pairs[place])) for place in alone], batch, _PADDING):
        places = [alone[one] for one in chosen]
        scores |= zip(places, _score_whole(examinee, [pairs[place] for place in places]), strict=True)
    for prompts in _filled(shared, batch):
        places = [place for prompt in prompts for place in shared[prompt]]
        rests = [[pairs[place][1] for place in shared[prompt]] for prompt in prompts]
        scores |= zip(places, _score_after(examinee, prompts, rests), strict=True)
    return [scores[place] for place in range(len(pairs))]


def _filled(shared: dict[tuple[int, ...], list[int]], batch: int) -> Iterator[list[tuple[int, ...]]]:
    """The prompts by length, in batches of at most so many continuations, or of one prompt."""
    prompts: list[tuple[int, ...]] = []
    rows = 0
    for prompt in sorted(shared, key=len):
        if prompts and rows + len(shared[prompt]) > batch:
            yield prompts
            prompts, rows = [], 0
        prompts.append(prompt)
        rows += len(shared[prompt])
    if prompts:
        yield prompts


def _score_whole(examinee: Examinee, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Score]:
    """In one pass over prompts and continuations."""
    ids_BT, mask_BT = pad_left([[*prompt, *rest] for prompt, rest in pairs], examinee.pad_id, examinee.device)
    widest = max(len(rest) for _, rest in pairs)
    logits_BTV = forward(examinee, ids_BT, mask_BT, keep=widest + 1)[:, :-1]
    return _scores(logits_BTV, ids_BT[:, -widest:], [range(widest - len(rest), widest) for _, rest in pairs])


def _score_after(
    examinee: Examinee, prompts: Sequence[Sequence[int]], rests: Sequence[Sequence[Sequence[int]]]
) -> list[Score]:
    """Each prompt once, and what it left in the cache for each of its continuations."""
    ids_BT, mask_BT = pad_left(prompts, examinee.pad_id, examinee.device)
    read = examinee.model(
        input_ids=ids_BT, attention_mask=mask_BT, position_ids=steps_of(mask_BT), use_cache=True, logits_to_keep=1
    )
    rows = torch.tensor([row for row, some in enumerate(rests) for _ in some], device=ids_BT.device)
    flat = [rest for some in rests for rest in some]
    widest = max(map(len, flat))
    # what pads a continuation stands behind it, where nothing that counts can see it
    targets_BT = torch.tensor([[*rest, *[examinee.pad_id] * (widest - len(rest))] for rest in flat]).to(ids_BT.device)
    logits_BTV = read.logits[rows]
    if widest > 1:
        cache = read.past_key_values
        cache.batch_select_indices(rows)
        whole_BT = torch.cat([mask_BT[rows], torch.ones_like(targets_BT[:, 1:])], dim=1)
        more_BTV = examinee.model(
            input_ids=targets_BT[:, :-1], attention_mask=whole_BT,
            position_ids=steps_of(whole_BT)[:, 1 - widest :], past_key_values=cache, use_cache=True,
        ).logits  # fmt: skip
        logits_BTV = torch.cat([logits_BTV, more_BTV], dim=1)
    return _scores(logits_BTV, targets_BT, [range(len(rest)) for rest in flat])


def _scores(logits_BTV: torch.Tensor, targets_BT: torch.Tensor, counted: Sequence[range]) -> list[Score]:
    """What stands at the places of each row that count."""
    logprobs_BT = logits_BTV.float().log_softmax(-1).gather(-1, targets_BT[..., None])[..., 0].tolist()
    first_BT = (logits_BTV.argmax(-1) == targets_BT).tolist()
    return [
        Score(tuple(logprobs[place] for place in places), tuple(first[place] for place in places))
        for logprobs, first, places in zip(logprobs_BT, first_BT, counted, strict=True)
    ]


def forward(examinee: Examinee, ids_BT: torch.Tensor, mask_BT: torch.Tensor, keep: int = 0) -> torch.Tensor:
    """Logits [B, keep or T, V] of left-padded ids; `keep` asks for the last positions only."""
    output = examinee.model(
        input_ids=ids_BT, attention_mask=mask_BT, position_ids=steps_of(mask_BT), use_cache=False, logits_to_keep=keep
    )
    logits: torch.Tensor = output.logits
    return logits


@torch.no_grad()
def hidden_states(
    examinee: Examinee, prompts: Sequence[Sequence[int]], positions: Sequence[Sequence[int]], batch: int = 64
) -> torch.Tensor:
    """Hidden states [L, N, P, D] in float32 on the CPU; `positions` index each prompt's own tokens, from its start."""
    parts: dict[int, torch.Tensor] = {}
    for places in by_length([len(prompt) for prompt in prompts], batch, _PADDING):
        ids_BT, mask_BT = pad_left([prompts[place] for place in places], examinee.pad_id, examinee.device)
        output = examinee.model(
            input_ids=ids_BT, attention_mask=mask_BT, position_ids=steps_of(mask_BT), use_cache=False,
            output_hidden_states=True, logits_to_keep=1,
        )  # fmt: skip
        states_LBTD = torch.stack(output.hidden_states)
        width = ids_BT.shape[1]
        for row, place in enumerate(places):
            shift = width - len(prompts[place])
            wanted = [shift + one for one in positions[place]]
            parts[place] = states_LBTD[:, row, wanted].float().cpu()
    return torch.stack([parts[place] for place in range(len(prompts))], dim=1)
