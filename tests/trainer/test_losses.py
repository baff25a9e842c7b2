"""Each loss beside the number worked out by hand."""

from math import log

import pytest
import torch
from torch import Tensor

from trainer.losses.divergence import hidden_distance, kl_divergence
from trainer.losses.reversal import capped_probe_loss, probe_loss, reverse, warm_up
from trainer.losses.token import cross_entropy, misses, unlikelihood


def logits(*rows: tuple[float, ...]) -> Tensor:
    """Logits whose softmax is just the given probabilities."""
    return torch.tensor(rows).log()


HALF = (0.5, 0.25, 0.25)
SURE = (0.8, 0.1, 0.1)


def test_cross_entropy_is_minus_the_log_of_the_labels_probability_where_the_mask_is_set() -> None:
    loss = cross_entropy(logits(HALF, SURE, SURE), torch.tensor([0, 1, 0]), torch.tensor([1.0, 1.0, 0.0]))
    # -ln 0.5 - ln 0.1 = 0.6931 + 2.3026; the third place is masked
    assert float(loss.sum) == pytest.approx(0.6931 + 2.3026, abs=1e-4)
    assert float(loss.count) == 2
    assert float(loss.mean()) == pytest.approx(1.49787, abs=1e-4)


def test_unlikelihood_is_minus_the_log_of_what_is_left() -> None:
    loss = unlikelihood(logits(HALF, SURE), torch.tensor([1, 0]), torch.ones(2))
    # -ln(1 - 0.25) - ln(1 - 0.8) = 0.2877 + 1.6094
    assert float(loss.sum) == pytest.approx(0.2877 + 1.6094, abs=1e-4)


def test_unlikelihood_stays_finite_where_the_model_is_sure() -> None:
    loss = unlikelihood(torch.tensor([[100.0, 0.0]]), torch.tensor([0]), torch.ones(1))
    assert float(loss.sum) == pytest.approx(-log(1e-4), abs=1e-2)


def test_divergence_is_that_of_the_reference_from_the_model() -> None:
    loss = kl_divergence(logits(HALF), logits((0.25, 0.25, 0.5)), torch.ones(1))
    # 0.25 ln(0.25/0.5) + 0.25 ln(0.25/0.25) + 0.5 ln(0.5/0.25) = -0.1733 + 0 + 0.3466
    assert float(loss.sum) == pytest.approx(0.1733, abs=1e-4)


def test_divergence_reaches_the_model_and_never_the_reference() -> None:
    model, reference = logits(HALF).requires_grad_(), logits(SURE).requires_grad_()
    kl_divergence(model, reference, torch.ones(1)).sum.backward()
    # the gradient of KL(p || softmax(z)) is softmax(z) - p
    assert model.grad is not None
    assert torch.allclose(model.grad, torch.tensor([[0.5 - 0.8, 0.15, 0.15]]), atol=1e-6)
    assert reference.grad is None


def test_a_masked_place_adds_nothing_to_a_divergence() -> None:
    both = kl_divergence(logits(HALF, HALF), logits(SURE, SURE), torch.tensor([1.0, 0.0]))
    alone = kl_divergence(logits(HALF), logits(SURE), torch.ones(1))
    assert float(both.sum) == pytest.approx(float(alone.sum))
    assert float(both.count) == 1


def test_hidden_distance_is_relative_to_the_references_length() -> None:
    loss = hidden_distance(
        torch.tensor([[3.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 4.0], [1.0, 1.0]]), torch.ones(2)
    )
    # (9 + 16) / 16 = 1.5625, and nothing for equal states
    assert float(loss.sum) == pytest.approx(1.5625)


def test_a_probes_loss_is_plain_cross_entropy() -> None:
    loss = probe_loss(logits(HALF), torch.tensor([1]), torch.ones(1))
    assert float(loss.sum) == pytest.approx(log(4), abs=1e-5)


def test_the_reversed_loss_never_exceeds_chance() -> None:
    chance = torch.tensor([log(2), log(4), log(4)])
    # place 0: -ln 0.8 = 0.2231 is below its chance ln 2; place 1: -ln 0.1 = 2.3026 is above ln 4 = 1.3863
    loss = capped_probe_loss(logits(SURE, SURE), torch.tensor([0, 1]), torch.ones(2), chance)
    assert float(loss.sum) == pytest.approx(0.2231 + 1.3863, abs=1e-4)


def test_a_place_at_chance_has_no_gradient_and_one_below_has() -> None:
    chance = torch.tensor([log(2), log(4), log(4)])
    z = logits(SURE, SURE).requires_grad_()
    capped_probe_loss(z, torch.tensor([0, 1]), torch.ones(2), chance).sum.backward()
    assert z.grad is not None
    assert torch.allclose(z.grad[0], torch.tensor([-0.2, 0.1, 0.1]), atol=1e-6)
    assert torch.equal(z.grad[1], torch.zeros(3))


def test_reversal_keeps_the_value_and_turns_the_gradient_around() -> None:
    x = torch.tensor([2.0], requires_grad=True)
    y = reverse(x, 0.5)
    (3 * y).sum().backward()
    assert float(y) == 2.0
    assert x.grad is not None
    assert float(x.grad) == pytest.approx(-1.5)


def test_warm_up_rises_from_nothing_to_one() -> None:
    # 2 / (1 + e^-5) - 1 = 0.98661 in the middle
    assert warm_up(0, 100) == pytest.approx(0.0)
    assert warm_up(50, 100) == pytest.approx(0.98661, abs=1e-5)
    assert warm_up(100, 100) == warm_up(1000, 100) == 1.0


def test_misses_counts_labels_that_are_not_the_likeliest() -> None:
    loss = misses(logits(HALF, SURE, SURE), torch.tensor([0, 1, 2]), torch.ones(3))
    assert float(loss.sum) == 2
