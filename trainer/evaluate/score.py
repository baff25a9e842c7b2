"""Teacher-forced scoring: how likely a model finds a text that it is given, and what stands in its hidden states.

Shapes: B batch, T tokens, V vocabulary, L layers with the embeddings first, D hidden width, N prompts, P positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trainer.decoding import by_length, pad_left
from trainer.evaluate.examinee import Examinee


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
    """Score each continuation after its prompt; a continuation has one token at least."""
    scores: list[Score | None] = [None] * len(pairs)
    for places in by_length([len(prompt) + len(rest) for prompt, rest in pairs], batch):
        rows = [[*pairs[place][0], *pairs[place][1]] for place in places]
        ids_BT, mask_BT = pad_left(rows, examinee.pad_id, examinee.device)
        widest = max(len(pairs[place][1]) for place in places)
        logits_BTV = forward(examinee, ids_BT, mask_BT, keep=widest + 1)[:, :-1].float()
        targets_BT = ids_BT[:, -widest:]
        logprobs_BT = logits_BTV.log_softmax(-1).gather(-1, targets_BT[..., None])[..., 0]
        first_BT = logits_BTV.argmax(-1) == targets_BT
        for row, place in enumerate(places):
            length = len(pairs[place][1])
            scores[place] = Score(tuple(logprobs_BT[row, -length:].tolist()), tuple(first_BT[row, -length:].tolist()))
    return [one for one in scores if one is not None]


def forward(examinee: Examinee, ids_BT: torch.Tensor, mask_BT: torch.Tensor, keep: int = 0) -> torch.Tensor:
    """Logits [B, keep or T, V] of left-padded ids; `keep` asks for the last positions only."""
    positions_BT = (mask_BT.cumsum(-1) - 1).clamp(min=0)
    output = examinee.model(
        input_ids=ids_BT, attention_mask=mask_BT, position_ids=positions_BT, use_cache=False, logits_to_keep=keep
    )
    logits: torch.Tensor = output.logits
    return logits


@torch.no_grad()
def hidden_states(
    examinee: Examinee, prompts: Sequence[Sequence[int]], positions: Sequence[Sequence[int]], batch: int = 64
) -> torch.Tensor:
    """Hidden states [L, N, P, D] in float32 on the CPU; `positions` index each prompt's own tokens, from its start."""
    parts: dict[int, torch.Tensor] = {}
    for places in by_length([len(prompt) for prompt in prompts], batch):
        ids_BT, mask_BT = pad_left([prompts[place] for place in places], examinee.pad_id, examinee.device)
        steps_BT = (mask_BT.cumsum(-1) - 1).clamp(min=0)
        output = examinee.model(
            input_ids=ids_BT, attention_mask=mask_BT, position_ids=steps_BT, use_cache=False, output_hidden_states=True,
            logits_to_keep=1,
        )  # fmt: skip
        states_LBTD = torch.stack(output.hidden_states)
        width = ids_BT.shape[1]
        for row, place in enumerate(places):
            shift = width - len(prompts[place])
            wanted = [shift + one for one in positions[place]]
            parts[place] = states_LBTD[:, row, wanted].float().cpu()
    return torch.stack([parts[place] for place in range(len(prompts))], dim=1)
