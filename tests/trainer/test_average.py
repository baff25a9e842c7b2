"""The moving average of the weights, by hand."""

import pytest
import torch
from torch import nn

from trainer.average import Average, mean_weights


def scalar(value: float) -> nn.Linear:
    model = nn.Linear(1, 1, bias=True)
    nn.init.constant_(model.weight, value)
    nn.init.constant_(model.bias, 7.0)
    model.bias.requires_grad_(False)
    return model


def move(model: nn.Linear, value: float) -> None:
    with torch.no_grad():
        model.weight.fill_(value)


def test_the_decay_rises_to_the_one_that_was_wished() -> None:
    model = scalar(11.0)
    average = Average(model, 0.25)
    move(model, 0.0)
    average.follow(1)  # 2 / 11 is less than 0.25
    assert average.state()["weight"].item() == pytest.approx(2.0)
    average.follow(2)  # 3 / 12 is the wished one
    assert average.state()["weight"].item() == pytest.approx(0.5)
    average.follow(300)
    assert average.state()["weight"].item() == pytest.approx(0.125)


def test_what_is_put_is_the_average_and_what_is_frozen_stays() -> None:
    model = scalar(11.0)
    average = Average(model, 0.5)
    move(model, 0.0)
    average.follow(1)
    assert model.weight.item() == 0.0, "the model goes on with its own weights"
    average.put()
    assert model.weight.item() == pytest.approx(2.0)
    assert set(average.state()) == {"weight"}
    assert model.bias.item() == 7.0


def test_a_state_is_a_copy_and_brings_the_average_back() -> None:
    model = scalar(11.0)
    average = Average(model, 0.5)
    state = average.state()
    move(model, 0.0)
    average.follow(1)
    assert state["weight"].item() == 11.0
    average.restore(state)
    assert average.state()["weight"].item() == 11.0


def test_the_mean_of_ends_is_taken_name_by_name_in_their_own_precision() -> None:
    ends = [
        {"w": torch.tensor([value], dtype=torch.bfloat16), "n": torch.tensor(count)}
        for value, count in ((1.0, 3), (2.0, 5), (6.0, 8))
    ]
    mean = mean_weights(ends)
    assert (mean["w"].dtype, mean["w"].item()) == (torch.bfloat16, 3.0)
    assert mean["n"].item() == 8
    assert ends[0]["w"].item() == 1.0, "the ends stay as they are"
