import itertools

import torch
from torch import nn

from trainer.baselines.subnet import drop, locate
from trainer.losses import Loss


def test_the_weight_that_only_the_forgotten_needs_is_found_and_dropped():
    layer = nn.Linear(4, 1, bias=False)
    layer.weight.data = torch.tensor([[2.0, 2.0, 2.0, 2.0]])
    forgotten, kept = torch.eye(4)[:1], torch.eye(4)[1:]

    def losses(call):
        def error(rows):
            return Loss((call(rows) - 2.0).square().sum(), torch.tensor(float(len(rows))))

        return error(forgotten), error(kept)

    masks = locate(layer, ["weight"], itertools.repeat(losses), ratio=0.25, balance=0.5, steps=40, rate=0.1, seed=3)
    assert masks["weight"].tolist() == [[1.0, 0.0, 0.0, 0.0]]
    assert drop(layer, masks) == 1
    assert layer.weight.tolist() == [[0.0, 2.0, 2.0, 2.0]]


def test_a_ratio_too_small_for_a_weight_drops_none():
    layer = nn.Linear(4, 1, bias=False)
    before = layer.weight.clone()

    def losses(call):
        loss = Loss(call(torch.ones(1, 4)).sum(), torch.tensor(1.0))
        return loss, loss

    masks = locate(layer, ["weight"], itertools.repeat(losses), ratio=0.1, balance=0.5, steps=2, rate=0.1, seed=0)
    assert drop(layer, masks) == 0
    assert torch.equal(layer.weight, before)
