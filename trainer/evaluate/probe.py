"""Fresh probes: small classifiers fitted to hidden states, all layers at once. Never the probes of a training run.

Shapes: L layers (and positions, flattened into them), N examples, D width, K classes, H hidden units.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional

Kind = Literal["linear", "mlp"]
_STEPS = 150
_RATE = 5e-3
_DECAY = 0.1
_HIDDEN = 128


@dataclass(frozen=True, slots=True)
class Split:
    """Which examples fit a probe, which choose its layer, and which count."""

    fit: torch.Tensor
    choose: torch.Tensor
    count: torch.Tensor


@dataclass(frozen=True, slots=True)
class Reading:
    """A probe's result: the layer that the second split chose, and right or wrong for each example that counts."""

    layer: int
    right: tuple[bool, ...]
    by_layer: tuple[float, ...]


def split(count: int, seed: int) -> Split:
    """Six tenths to fit, fifteen hundredths to choose, the rest to count."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    first, second = int(count * 0.6), int(count * 0.75)
    return Split(order[:first], order[first:second], order[second:])


def read(
    fit_LND: torch.Tensor, asked_LND: torch.Tensor, labels_N: torch.Tensor, parts: Split, kind: Kind, seed: int
) -> Reading:
    """Fit probes on `fit_LND` (one phrasing) and read them on `asked_LND` (another); the two hold the same subjects.

    The layer is chosen on subjects that neither fit nor count, so that the best of many layers is no lucky draw. All is
    computed where `fit_LND` lies.
    """
    asked_LND, labels_N = asked_LND.to(fit_LND.device), labels_N.to(fit_LND.device)
    mean_L1D = fit_LND[:, parts.fit].mean(1, keepdim=True)
    scale_L1D = fit_LND[:, parts.fit].std(1, keepdim=True) + 1e-6
    probe = _Probe(fit_LND.shape[0], fit_LND.shape[2], int(labels_N.max()) + 1, kind, seed, fit_LND.device)
    probe.fit((fit_LND[:, parts.fit] - mean_L1D) / scale_L1D, labels_N[parts.fit])
    chosen_LN = probe.predict((asked_LND[:, parts.choose] - mean_L1D) / scale_L1D) == labels_N[parts.choose]
    layer = int(chosen_LN.float().mean(1).argmax())
    right_LN = probe.predict((asked_LND[:, parts.count] - mean_L1D) / scale_L1D) == labels_N[parts.count]
    return Reading(layer, tuple(right_LN[layer].tolist()), tuple(right_LN.float().mean(1).tolist()))


def majority(labels_N: torch.Tensor, parts: Split) -> tuple[bool, ...]:
    """Right or wrong where the commonest class of the fitted examples is said each time."""
    commonest = labels_N[parts.fit].mode().values
    return tuple((labels_N[parts.count] == commonest).tolist())


class _Probe:
    """One classifier a layer, fitted together by full-batch AdamW."""

    def __init__(self, layers: int, width: int, classes: int, kind: Kind, seed: int, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> torch.Tensor:
            weight: torch.Tensor = torch.randn(*shape, generator=generator) / shape[1] ** 0.5
            return weight.to(device).requires_grad_()

        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(*shape, device=device, requires_grad=True)

        self._first = draw(layers, width, _HIDDEN) if kind == "mlp" else None
        self._first_bias = zeros(layers, 1, _HIDDEN) if kind == "mlp" else None
        self._last = draw(layers, _HIDDEN if kind == "mlp" else width, classes)
        self._last_bias = zeros(layers, 1, classes)

    def fit(self, states_LND: torch.Tensor, labels_N: torch.Tensor) -> None:
        """Minimise the cross-entropy of every layer's probe."""
        weights = [one for one in (self._first, self._first_bias, self._last, self._last_bias) if one is not None]
        optimizer = torch.optim.AdamW(weights, lr=_RATE, weight_decay=_DECAY)
        layers = states_LND.shape[0]
        for _ in range(_STEPS):
            optimizer.zero_grad()
            logits_LNK = self._logits(states_LND)
            loss = functional.cross_entropy(logits_LNK.flatten(0, 1), labels_N.repeat(layers)) * layers
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    @torch.no_grad()
    def predict(self, states_LND: torch.Tensor) -> torch.Tensor:
        """Classes [L, N]."""
        classes_LN: torch.Tensor = self._logits(states_LND).argmax(-1)
        return classes_LN

    def _logits(self, states_LND: torch.Tensor) -> torch.Tensor:
        inner: torch.Tensor = states_LND
        if self._first is not None and self._first_bias is not None:
            inner = functional.relu(states_LND @ self._first + self._first_bias)
        logits_LNK: torch.Tensor = inner @ self._last + self._last_bias
        return logits_LNK
