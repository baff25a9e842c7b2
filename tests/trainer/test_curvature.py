"""Which directions of a matrix the loss feels: the factors, their eigenpairs, and noise among the flat ones."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from trainer.base_model import load_base
from trainer.config import BaseConfig, FlatConfig, PerturbStage
from trainer.curvature import Factors, eigenpairs, estimate_factors, new_factors, sampled_loss, tapped, top_mass
from trainer.errors import BaseModelError
from trainer.perturb import flat_change, perturb
from trainer.reader import Places, Reader, to_places
from trainer.streams.batch import Example, pack


def exact_fisher(layer: nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
    """Of softmax regression: the gradient of every label's log-probability, weighted by that probability."""
    fisher = torch.zeros(layer.weight.numel(), layer.weight.numel())
    for row in inputs:
        logs = layer(row).log_softmax(-1)
        for label in range(len(logs)):
            gradient = torch.autograd.grad(logs[label], layer.weight, retain_graph=True)[0].flatten()
            fisher += logs[label].exp().detach() * torch.outer(gradient, gradient)
    return fisher / len(inputs)


def test_the_factors_are_the_exact_fisher_of_a_tiny_layer() -> None:
    torch.manual_seed(0)
    layer, row = nn.Linear(3, 4, bias=False), torch.randn(3)
    odds = layer(row).softmax(-1).detach()
    gradients = odds.expand(4, 4) - torch.eye(4)  # of the loss of each label, at the outputs
    factors = new_factors(layer)
    factors.add(row.expand(4, 3), gradients, weights_N=odds)
    approximated = torch.kron(factors.gradient_moment, factors.input_moment).float()
    assert torch.allclose(approximated, exact_fisher(layer, row[None]), atol=1e-6)


def test_labels_drawn_from_the_model_come_near_the_exact_fisher() -> None:
    torch.manual_seed(0)
    layer, row, factors = nn.Linear(3, 4, bias=False), torch.randn(3), None
    with tapped({"layer": layer}) as taps:
        sampled_loss(layer(row.expand(20000, 3)), torch.Generator().manual_seed(0)).backward()
        factors = new_factors(layer)
        factors.add(taps["layer"].inputs, taps["layer"].gradients)
    approximated = torch.kron(factors.gradient_moment, factors.input_moment).float()
    exact = exact_fisher(layer, row[None])
    assert (approximated - exact).norm() < 0.03 * exact.norm()


def test_the_mass_mask_takes_the_largest_until_the_share_is_reached() -> None:
    assert top_mass(torch.tensor([[1.0, 5.0], [3.0, 1.0]]), 0.5).tolist() == [[0.0, 1.0], [0.0, 0.0]]
    assert top_mass(torch.tensor([[1.0, 5.0], [3.0, 1.0]]), 0.79).tolist() == [[0.0, 1.0], [1.0, 0.0]]


def test_noise_takes_the_place_of_the_flat_part_at_its_own_size() -> None:
    factors = Factors(torch.diag(torch.tensor([4.0, 1.0])).double(), torch.diag(torch.tensor([3.0, 1.0])).double(), 1.0)
    # The curvature of the four entries is 12, 3, 4, 1 of 20: 0.6 of it is the first alone, so three entries are flat.
    pairs = eigenpairs(factors, 0.6)
    weight, noise = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[9.0, 2.0], [-1.0, 2.0]])
    size = 29**0.5 / 3  # of the flat weights, root of 2² + 3² + 4², to that of the flat noise, root of 2² + 1² + 2²
    expected = torch.tensor([[0.0, 2 * size - 2], [-size - 3, 2 * size - 4]])
    assert torch.allclose(flat_change(weight, noise, pairs), expected, atol=1e-5)


def test_the_steep_and_the_flat_part_are_the_whole() -> None:
    torch.manual_seed(0)
    layer, factors = nn.Linear(6, 5), new_factors(nn.Linear(6, 5))
    factors.add(torch.randn(40, 6), torch.randn(40, 5))
    pairs = eigenpairs(factors, 0.7)
    steep, flat = pairs.steep(layer.weight), pairs.flat(layer.weight)
    assert torch.allclose(steep + flat, layer.weight, atol=1e-6)
    assert float((steep * flat).sum().detach()) == pytest.approx(0, abs=1e-6)


def flat_stage(noise: float = 1.0, mass: float = 0.9) -> PerturbStage:
    return PerturbStage(kind="perturb", noise=noise, flat=FlatConfig(mass=mass, batches=2))


@pytest.fixture
def model(raw_base: Path) -> PreTrainedModel:
    return load_base(BaseConfig(model=str(raw_base / "base"))).model.float()


def text() -> Iterator[Places]:
    for start in itertools.count(10):
        examples = [Example(list(range(start + n, start + n + 9)), list(range(8)), [start] * 8) for n in range(4)]
        yield to_places(pack(examples, 32, pad_id=0, most_tokens=64), torch.device("cpu"))


def copied(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def test_with_all_of_the_curvature_kept_no_weight_changes(model: PreTrainedModel) -> None:
    before = copied(model)
    assert perturb(model, flat_stage(mass=1.0), seed=0, text=text())
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


def test_flat_noise_leaves_what_the_loss_feels_and_the_size_of_the_rest(model: PreTrainedModel) -> None:
    reader, before = Reader(model), copied(model)
    layers = {f"{name}.weight": part for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    factors = estimate_factors(reader, layers, lambda at: reader(at)[0], itertools.islice(text(), 2), seed=3)
    changed = perturb(model, flat_stage(), seed=3, text=text())
    assert {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])} == set(changed)
    for name in changed:
        pairs, after = eigenpairs(factors[name], 0.9), model.get_parameter(name).detach()
        assert torch.allclose(pairs.steep(after), pairs.steep(before[name]), atol=1e-5)
        flat, noisy = pairs.flat(before[name]), pairs.flat(after)
        assert float(noisy.norm()) == pytest.approx(float(flat.norm()), rel=1e-4)
        assert float((noisy - flat).norm()) > 0.5 * float(flat.norm())


def test_flat_noise_is_the_same_for_the_same_seed_and_leaves_no_gradient(raw_base: Path) -> None:
    models = [load_base(BaseConfig(model=str(raw_base / "base"))).model for _ in range(3)]
    for one, seed in zip(models, (5, 5, 6), strict=True):
        one.train()
        changed = perturb(one, flat_stage(), seed=seed, text=text())
        assert one.training
        assert all(weight.grad is None for weight in one.parameters())
    same, again, other = (copied(one) for one in models)
    assert all(torch.equal(same[name], again[name]) for name in same)
    assert not any(torch.equal(same[name], other[name]) for name in changed)


def test_frozen_layers_have_a_curvature_too(model: PreTrainedModel) -> None:
    model.requires_grad_(False)
    before = copied(model)
    changed = perturb(model, flat_stage(), seed=0, text=text())
    assert not any(torch.equal(model.get_parameter(name), before[name]) for name in changed)


def test_matrices_of_other_than_linear_layers_are_refused() -> None:
    shape = {"vocab_size": 50, "n_positions": 64, "n_embd": 16, "n_layer": 1, "n_head": 2}
    with pytest.raises(BaseModelError, match="not the weight of a linear layer"):
        perturb(GPT2LMHeadModel(GPT2Config(**shape)), flat_stage(), seed=0, text=text())
