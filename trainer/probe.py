"""Linear probes that decode facts from hidden states, one a layer.

A probe that has followed the model for long may have been led astray with it, so each starts anew now and then, the
layers in turn: there is always one that knows the present model and one that is not blind to what the others missed.

Legend: M probed places, H hidden size, K classes.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from trainer.losses.reversal import capped_probe_loss, probe_loss, reverse


class Probe(nn.Module):
    """Normalises and reads linearly."""

    def __init__(self, hidden: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden, elementwise_affine=False)
        self.linear = nn.Linear(hidden, classes)

    def forward(self, hidden_MH: Tensor) -> Tensor:
        """Logits (M, K)."""
        return cast("Tensor", self.linear(self.norm(hidden_MH.float())))

    def reset(self, generator: torch.Generator) -> None:
        """Start anew."""
        bound = self.linear.in_features**-0.5
        with torch.no_grad():
            for parameter in self.linear.parameters():
                parameter.copy_(torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator))


class ProbeBank(nn.Module):
    """The probes of a stage and their optimizer."""

    chance_K: Tensor

    def __init__(
        self, layers: Sequence[int], hidden: int, chance_nats: Sequence[float], *, learning_rate: float, seed: int
    ) -> None:
        super().__init__()
        self.layers = tuple(layers)
        self.seed = seed
        self.probes = nn.ModuleList(Probe(hidden, len(chance_nats)) for _ in layers)
        self.register_buffer("chance_K", torch.tensor(chance_nats), persistent=False)
        for place in range(len(self.layers)):
            self._reset(place, -1)
        self.optimizer = torch.optim.AdamW(self.probes.parameters(), lr=learning_rate, weight_decay=0.0)

    def _reset(self, place: int, step: int) -> None:
        generator = torch.Generator().manual_seed(hash((self.seed, place, step)) & 0x7FFFFFFF)
        cast("Probe", self.probes[place]).reset(generator)

    def reinitialise(self, step: int, every: int) -> tuple[int, ...]:
        """Start anew the probes whose turn it is at `step`; their layers come back."""
        if every <= 0 or step == 0:
            return ()
        count = len(self.layers)
        due = [place for place in range(count) if (step + place * every // count) % every == 0]
        for place in due:
            self._reset(place, step)
            for parameter in self.probes[place].parameters():
                self.optimizer.state.pop(parameter, None)
        return tuple(self.layers[place] for place in due)

    def reversed_sum(self, hidden: Sequence[Tensor], classes_M: Tensor, strength: float, *, capped: bool) -> Tensor:
        """The loss whose descent, in the model, makes the classes undecodable; the probes themselves stay.

        Summed over places, averaged over layers.
        """
        mask_M = torch.ones_like(classes_M, dtype=torch.float32)
        chance_K = self.chance_K if capped else torch.full_like(self.chance_K, torch.inf)
        sums = []
        for probe, hidden_MH in zip(self.probes, hidden, strict=True):
            frozen = {name: value.detach() for name, value in probe.named_parameters()}
            logits_MK = functional_call(probe, frozen, (reverse(hidden_MH, strength),))
            sums.append(capped_probe_loss(logits_MK, classes_M, mask_M, chance_K).sum)
        return torch.stack(sums).mean()

    def probe_sum(self, hidden: Sequence[Tensor], classes_M: Tensor) -> tuple[Tensor, Tensor]:
        """The probes' own loss, and how many places they decode; summed over places, averaged over layers."""
        mask_M = torch.ones_like(classes_M, dtype=torch.float32)
        sums, hits = [], []
        for probe, hidden_MH in zip(self.probes, hidden, strict=True):
            logits_MK = probe(hidden_MH.detach())
            sums.append(probe_loss(logits_MK, classes_M, mask_M).sum)
            hits.append((logits_MK.argmax(-1) == classes_M).float().sum())
        return torch.stack(sums).mean(), torch.stack(hits).mean()
