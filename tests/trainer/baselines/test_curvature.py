import torch
from torch import nn

from trainer.baselines.curvature import (
    edit,
    keep_by_curvature,
    keep_by_spectrum,
    mlp_layers,
    new_factors,
    sampled_loss,
    tapped,
    top_mass,
)


def exact_fisher(layer: nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
    """Of softmax regression: the gradient of every label's log-probability, weighted by that probability."""
    fisher = torch.zeros(layer.weight.numel(), layer.weight.numel())
    for row in inputs:
        logs = layer(row).log_softmax(-1)
        for label in range(len(logs)):
            gradient = torch.autograd.grad(logs[label], layer.weight, retain_graph=True)[0].flatten()
            fisher += logs[label].exp().detach() * torch.outer(gradient, gradient)
    return fisher / len(inputs)


def test_the_factors_are_the_exact_fisher_of_a_tiny_layer():
    torch.manual_seed(0)
    layer, row = nn.Linear(3, 4, bias=False), torch.randn(3)
    odds = layer(row).softmax(-1).detach()
    gradients = odds.expand(4, 4) - torch.eye(4)  # of the loss of each label, at the outputs
    factors = new_factors(layer)
    factors.add(row.expand(4, 3), gradients, weights_N=odds)
    approximated = torch.kron(factors.gradient_moment, factors.input_moment).float()
    assert torch.allclose(approximated, exact_fisher(layer, row[None]), atol=1e-6)


def test_labels_drawn_from_the_model_come_near_the_exact_fisher():
    torch.manual_seed(0)
    layer, row, factors = nn.Linear(3, 4, bias=False), torch.randn(3), None
    with tapped({"layer": layer}) as taps:
        # An input that asks for its gradient, as a hidden state does: else the backward hook is not called.
        sampled_loss(layer(row.expand(20000, 3).clone().requires_grad_()), torch.Generator().manual_seed(0)).backward()
        factors = new_factors(layer)
        factors.add(taps["layer"].inputs, taps["layer"].gradients)
    approximated = torch.kron(factors.gradient_moment, factors.input_moment).float()
    exact = exact_fisher(layer, row[None])
    assert (approximated - exact).norm() < 0.03 * exact.norm()


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


def test_the_mass_mask_takes_the_largest_until_the_share_is_reached():
    assert top_mass(torch.tensor([[1.0, 5.0], [3.0, 1.0]]), 0.5).tolist() == [[0.0, 1.0], [0.0, 0.0]]
    assert top_mass(torch.tensor([[1.0, 5.0], [3.0, 1.0]]), 0.79).tolist() == [[0.0, 1.0], [1.0, 0.0]]


def test_an_edit_touches_the_mlp_and_nothing_else(micro):
    model = micro.examinee(micro.base).model
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    layers = mlp_layers(model, [1])
    edit(layers, None, 0.5)
    moved = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert moved == {f"{name}.weight" for name in layers}
    assert len(moved) == 3


def test_less_mass_moves_the_weight_further():
    torch.manual_seed(0)
    layer, factors = nn.Linear(12, 9), new_factors(nn.Linear(12, 9))
    factors.add(torch.randn(60, 12), torch.randn(60, 9))
    gaps = [float((keep_by_curvature(layer.weight, factors, s) - layer.weight).norm()) for s in (0.99, 0.8, 0.5)]
    assert gaps == sorted(gaps)
