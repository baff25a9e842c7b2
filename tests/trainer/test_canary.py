"""What a look at a running model tells: the fresh probe knows what the model holds, and no more."""

from pathlib import Path
from random import Random

import pytest
import torch

from knowledge_store.protocol import Origin, Parser, split_tags
from tests.trainer.conftest import make_config
from trainer.base_model import load_base
from trainer.canary import Decodable, canary_set, decodable, recalls
from trainer.config import BaseConfig
from trainer.fact import Target
from trainer.reader import Reader
from trainer.rollout import Rollout
from trainer.sources import world_of

VALUES = ("gold", "iron")


def facts_of(count: int) -> list[Target]:
    return [Target(f"Ada {number}", "metal", VALUES[number % 2], "people") for number in range(count)]


def probed(raw_base: Path, raw_run: dict[str, object], facts: list[Target]) -> Decodable | None:
    base = load_base(BaseConfig(model=str(raw_base / "base")))
    world = world_of(make_config(raw_run), facts)
    return decodable(world, base.encoder, "{value}", 40, Random(0))


def test_the_probe_is_asked_about_other_subjects_than_it_was_fitted_to(
    raw_base: Path, raw_run: dict[str, object]
) -> None:
    found = probed(raw_base, raw_run, facts_of(60))
    assert found is not None
    assert (len(found.fitted), len(found.asked), found.classes) == (20, 20, 2)
    assert not {tuple(one.ids) for one in found.fitted} & {tuple(one.ids) for one in found.asked}
    assert 0.2 < found.chance < 0.8


def test_no_probe_is_fitted_where_values_are_not_shared(raw_base: Path, raw_run: dict[str, object]) -> None:
    assert probed(raw_base, raw_run, facts_of(8)) is None


def test_the_probe_reads_what_stands_in_a_hidden_state_and_nothing_from_noise(
    raw_base: Path, raw_run: dict[str, object]
) -> None:
    base = load_base(BaseConfig(model=str(raw_base / "base")))
    world = world_of(make_config(raw_run), facts_of(400))
    found = decodable(world, base.encoder, "{value}", 400, Random(0))
    assert found is not None

    class Reading(Reader):
        """Hidden states that hold the class in one direction, or noise alone."""

        strength = 0.0

        def forward(self, places, hidden_layers=(), *, at_probes=False):  # type: ignore[no-untyped-def]
            del hidden_layers, at_probes
            hidden_MH = torch.randn(len(places.classes_M), 32, generator=noise)
            hidden_MH[:, 3] += self.strength * places.classes_M
            return torch.zeros(0), (hidden_MH,)

    noise, reader = torch.Generator().manual_seed(0), Reading(base.model)
    assert found.accuracy(reader, base.encoder) == pytest.approx(0.5, abs=0.12)
    reader.strength = 8.0
    assert found.accuracy(reader, base.encoder) > 0.95


def test_a_look_tells_probes_and_chains_beside_recall(raw_base: Path, raw_run: dict[str, object]) -> None:
    config = make_config(raw_run, watch={"every": 1, "questions": 8, "rollouts": 2})
    base = load_base(BaseConfig(model=str(raw_base / "base")))
    canaries = canary_set(config, world_of(config, facts_of(60)), base.encoder)
    from trainer.machine import Machine

    before = torch.random.get_rng_state()
    looks = [canaries.look(Reader(base.model), base, Machine(config.compute)) for _ in range(2)]
    assert looks[0] == looks[1], "a look draws nothing"
    assert torch.equal(before, torch.random.get_rng_state())
    assert None not in (looks[0].decoded, looks[0].decoded_chance, looks[0].chain, looks[0].direct)


def rollout(text: str) -> Rollout:
    parser = Parser()
    for piece in split_tags(text):
        parser.feed([piece], Origin.INJECTED if parser.pending is not None else Origin.SAMPLED)
    return Rollout("q", text, parser.finish())


def test_recalling_is_saying_the_value_without_a_lookup() -> None:
    fact = Target("Ada", "metal", "gold", "people")
    assert recalls(rollout("Gold"), fact)
    assert not recalls(rollout("iron"), fact)
    looked = "<think>\nI need it. <lookup>Ada | metal</lookup><fact>gold</fact>\n</think>\ngold"
    assert not recalls(rollout(looked), fact)
