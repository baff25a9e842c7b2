import math

import pytest
import torch

from trainer.baselines.ascent import ascent
from trainer.baselines.npo import npo
from trainer.baselines.rival import answers_of
from trainer.baselines.rmu import control_vector, misdirection, retention


def test_ascent_is_the_log_probability_itself():
    # Even odds over two tokens: log(1/2) a place; the masked place does not count.
    loss = ascent(torch.zeros(3, 2), torch.tensor([0, 1, 0]), torch.tensor([1.0, 1.0, 0.0]))
    assert float(loss.sum) == pytest.approx(2 * math.log(0.5))
    assert float(loss.count) == 2


def test_npo_of_an_unchanged_model_is_two_over_beta_times_log_two():
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    loss = npo(logits, logits, torch.tensor([0, 1, 2, 3]), torch.tensor([0, 0, 1, 1]), beta=0.1)
    assert float(loss.sum) == pytest.approx(2 * (2 / 0.1) * math.log(2), rel=1e-5)
    assert float(loss.count) == 2


def test_npo_takes_the_ratio_of_whole_answers():
    # The model gives both tokens 1/4, the reference 1/2: the answer's ratio is 1/4, and 1 + (1/4)^2 with beta 2.
    model = torch.tensor([[0.0, math.log(3.0)], [0.0, math.log(3.0)]])
    loss = npo(model, torch.zeros(2, 2), torch.tensor([0, 0]), torch.tensor([0, 0]), beta=2.0)
    assert float(loss.sum) == pytest.approx(math.log(1 + 0.25**2), rel=1e-5)


def test_npo_fades_where_ascent_does_not():
    labels, answer, ones = torch.tensor([0]), torch.tensor([0]), torch.ones(1)
    slopes = []
    for made in (0.0, -20.0):
        logits = torch.tensor([[made, 0.0]], requires_grad=True)
        faded = torch.autograd.grad(npo(logits, torch.zeros(1, 2), labels, answer, 1.0).sum, logits)[0].norm()
        climbed = torch.autograd.grad(ascent(logits, labels, ones).sum, logits)[0].norm()
        slopes.append((float(faded), float(climbed)))
    assert slopes[1][0] < slopes[0][0] / 100
    assert slopes[1][1] > slopes[0][1]


def test_misdirection_is_the_mean_squared_distance_to_the_direction():
    hidden, target = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([1.0, 0.0])
    # (0 + 4) / 2 = 2 and (4 + 16) / 2 = 10.
    assert float(misdirection(hidden, target, torch.ones(2)).sum) == pytest.approx(12)
    assert float(misdirection(hidden, target, torch.tensor([1.0, 0.0])).sum) == pytest.approx(2)
    assert float(retention(hidden, hidden, torch.ones(2)).sum) == 0


def test_the_direction_has_its_length_and_its_seed():
    one, same, other = control_vector(16, 6.5, 0), control_vector(16, 6.5, 0), control_vector(16, 6.5, 1)
    assert float(one.norm()) == pytest.approx(6.5)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_answers_are_numbered_by_their_first_tokens():
    assert answers_of(torch.tensor([True, False, True, True, False])).tolist() == [0, 0, 1, 2, 2]
