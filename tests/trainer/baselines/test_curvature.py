import pytest
import torch
from torch import nn

from trainer.baselines.curvature import edit, keep_by_curvature, keep_by_spectrum, mlp_layers
from trainer.curvature import new_factors
from trainer.errors import ConfigError


def test_keeping_all_of_the_curvature_mass_changes_nothing():
    layer = nn.Linear(6, 5)
    factors = new_factors(layer)
    factors.add(torch.randn(40, 6), torch.randn(40, 5))
    assert torch.allclose(keep_by_curvature(layer.weight, factors, 1.0), layer.weight, atol=1e-6)
    assert torch.allclose(keep_by_spectrum(layer.weight, 1.0), layer.weight, atol=1e-6)


def test_a_direction_that_no_input_takes_is_dropped_first():
    weight = torch.ones(2, 2)
    factors = new_factors(nn.Linear(2, 2))
    factors.add(torch.tensor([[3.0, 0.01]]).expand(50, 2), torch.eye(2).repeat(25, 1))
    kept = keep_by_curvature(weight, factors, 0.99)
    # The inputs lie along (1, 0) nearly: what reads the second input goes, what reads the first stays.
    assert torch.allclose(kept[:, 0], torch.ones(2), atol=0.02)
    assert kept[:, 1].abs().max() < 0.02


def test_plain_svd_keeps_the_large_singular_directions():
    weight = torch.diag(torch.tensor([3.0, 2.0, 1.0]))
    # Squares 9, 4, 1 of 14: nine fourteenths are one direction, thirteen are two.
    assert torch.allclose(keep_by_spectrum(weight, 0.6), torch.diag(torch.tensor([3.0, 0.0, 0.0])), atol=1e-6)
    assert torch.allclose(keep_by_spectrum(weight, 0.9), torch.diag(torch.tensor([3.0, 2.0, 0.0])), atol=1e-6)


def test_an_edit_touches_the_mlp_and_nothing_else(micro):
    model = micro.examinee(micro.base).model
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    layers = mlp_layers(model, [1])
    edit(layers, None, 0.5)
    moved = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert moved == {f"{name}.weight" for name in layers}
    assert len(moved) == 3


def test_layers_that_the_model_does_not_have_are_named(micro):
    with pytest.raises(ConfigError, match=r"no MLP in the layers \[5, 6\]: there are layers \[0, 1\]"):
        mlp_layers(micro.examinee(micro.base).model, [1, 5, 6])


def test_less_mass_moves_the_weight_further():
    torch.manual_seed(0)
    layer, factors = nn.Linear(12, 9), new_factors(nn.Linear(12, 9))
    factors.add(torch.randn(60, 12), torch.randn(60, 9))
    with torch.no_grad():
        gaps = [float((keep_by_curvature(layer.weight, factors, s) - layer.weight).norm()) for s in (0.99, 0.8, 0.5)]
    assert gaps == sorted(gaps)
