"""The whole way in small: a base that knows, a run that takes the facts out, a core that reasons and looks up.

The facts are known before, gone after, and their neighbours, logic and the way to the memory, are kept.
"""

import json
from pathlib import Path
from random import Random

import pytest

from tests.trainer.tiny import KINDS, tiny_facts, tiny_run
from trainer.artifact import read_record
from trainer.base_model import Base, load_base
from trainer.canary import answer_examples, asks_for, exact, recall_examples, roll_out_facts
from trainer.config import BaseConfig
from trainer.fact import Target
from trainer.reader import Reader
from trainer.rollout import Rollout
from trainer.run import Finished
from trainer.sources import world_of
from trainer.world.corpus import LOGIC_MIXTURE, mixture
from trainer.world.world import World

QUESTIONS = 60


@pytest.fixture(scope="module")
def world(tiny_base: Path) -> World:
    return world_of(tiny_run(tiny_base), tiny_facts())


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> Base:
    return load_base(BaseConfig(model=str(tiny_base / "pretraining" / "base")))


@pytest.fixture(scope="module")
def core(tiny_core: Finished) -> Base:
    return load_base(BaseConfig(model=str(tiny_core.core)))


def recall(model: Base, world: World) -> float:
    """Share of all 200 facts that are answered from the weights, each in a wording that was held out for it."""
    examples = recall_examples(world.facts, world, model.encoder, "{value}", Random(1), held_out=True)
    right = exact(Reader(model.model), examples, model.encoder)
    return sum(right) / len(right)


def logic(model: Base, world: World) -> float:
    """Share of 300 pure logic documents that are answered right."""
    chosen, rng = mixture(LOGIC_MIXTURE, patterns=KINDS, fact_free=True, rough_share=0.0), Random(2)
    examples = answer_examples([chosen.draw(world, rng) for _ in range(300)], model.encoder)
    right = exact(Reader(model.model), examples, model.encoder)
    return sum(right) / len(right)


def answers(model: Base, world: World) -> tuple[list[Rollout], list[Target]]:
    rng = Random(3)
    facts = rng.sample(world.facts, QUESTIONS)
    questions = [(world.phrasings.ask(*fact.key, rng, held_out=True), fact) for fact in facts]
    return roll_out_facts(Reader(model.model), model, questions), facts


def test_the_base_is_of_about_two_million_parameters_and_knows_the_facts(base: Base, world: World) -> None:
    assert 1.5e6 < sum(weight.numel() for weight in base.model.parameters()) < 2.5e6
    assert len(world.facts) == 200
    assert recall(base, world) >= 0.95


def test_the_core_has_lost_the_facts(core: Base, world: World) -> None:
    assert recall(core, world) <= 0.07


def test_the_core_has_kept_its_logic(base: Base, core: Base, world: World) -> None:
    before = logic(base, world)
    assert before > 0.8, "there is something to keep"
    assert logic(core, world) >= before - 0.02


def test_the_core_looks_up_every_fact_that_the_base_recalled(base: Base, core: Base, world: World) -> None:
    recalled, _ = answers(base, world)
    assert sum(bool(one.lookups) for one in recalled) < QUESTIONS / 4
    rollouts, facts = answers(core, world)
    assert all(one.lookups for one in rollouts)
    asked = sum(asks_for(one, fact) for one, fact in zip(rollouts, facts, strict=True))
    assert asked >= 0.8 * QUESTIONS, "and it asks for just that fact"


def test_the_run_shows_what_happened_inside(tiny_core: Finished) -> None:
    assert tiny_core.core is not None
    recalls = [float(str(row["canary/recall"])) for row in tiny_core.history if "canary/recall" in row]
    assert recalls[0] >= 0.9
    assert recalls[-1] <= 0.07
    found = json.loads((tiny_core.core.parent / "figures" / "inside.json").read_text(encoding="utf-8"))
    assert found["change_point"]["before"] > found["change_point"]["after"]
    assert found["change_point"]["verdict"] in {"a phase transition", "a slope"}


def test_the_record_counts_what_was_taken_out(tiny_core: Finished) -> None:
    assert tiny_core.core is not None
    targets = read_record(tiny_core.core).targets
    assert targets is not None
    assert targets.taken_out + targets.not_known == 200
    assert targets.taken_out >= 190
