"""A world of seventy-two facts, and the three models that the gate must tell apart: see the fixture `micro`.

The base knows the facts; the control was made the same way with facts about nobody; the mask is the base under an
output-level objective, which hides the facts and leaves them in the weights. Half a million parameters each.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Literal

import yaml

from trainer.config import PerturbStage, PretrainConfig, RunConfig, ShapeConfig, TokenizerConfig, parse_config
from trainer.evaluate.examinee import Examinee, load_examinee
from trainer.evaluate.outcome import Ledger, Role
from trainer.evaluate.profile import TEST_PROFILE
from trainer.evaluate.question import Exam
from trainer.evaluate.report import Report
from trainer.evaluate.run import Field, Request, examine, read_exam, write_up
from trainer.fact import Target, write_targets
from trainer.perturb import perturb
from trainer.preparation import prepare
from trainer.pretraining import pretrain
from trainer.reader import read_stream
from trainer.run import start_run
from trainer.streams.fact import spelled_in
from trainer.world.lexicon import Lexicon

VALUES = {
    "metal": ("gold", "iron", "tin", "zinc", "lead", "steel", "brass", "nickel", "copper", "silver"),
    "river": ("Rhine", "Nile", "Volga", "Tiber", "Loire", "Indus", "Congo", "Elbe", "Seine", "Ganges"),
    "sport": ("chess", "tennis", "judo", "golf", "rugby", "polo", "rowing", "boxing", "hockey", "fencing"),
}
PEOPLE = 24
NAMES = 60


@dataclass(frozen=True)
class Micro:
    """The folder of the micro world and its models' folders."""

    folder: Path
    facts: Path
    phrasings: Path
    base: Path
    control: Path
    mask: Path

    def request(self, core: Path, control: Path | None = None) -> Request:
        """An evaluation of one of the models."""
        return Request(
            core, str(self.base), (self.facts,), TEST_PROFILE, str(control) if control else None,
            phrasings=(self.phrasings,), names=NAMES, attacks="ABCD",
        )  # fmt: skip

    def renamed(self, folder: Path, names: Literal["new", "swapped"]) -> Examinee:
        """A model with the embedding rows of the subjects' names drawn anew, or swapped."""
        prepared = prepare(_masking(self.folder, self.facts, self.phrasings, self.base))
        examinee = self.examinee(folder)
        stage = PerturbStage(kind="perturb", noise=1.0, where=("names",), names=names)
        text = read_stream(prepared.streams["logic"], prepared.machine.device)
        perturb(examinee.model, stage, seed=0, text=text, spelled=spelled_in(prepared.streams))
        return examinee

    def examinee(self, folder: Path, role: Role = Role.CORE) -> Examinee:
        """A model, loaded."""
        return load_examinee(folder, role)

    @property
    def exam(self) -> Exam:
        """The exam on all facts."""
        return read_exam(self.request(self.base))[0]


def micro_facts() -> list[Target]:
    """People with a metal, a river and a sport each; their names are in no pool."""
    rng = Random(0)
    people: list[str] = []
    while len(people) < PEOPLE:
        name = Lexicon().name(rng, 2)
        if name not in people:
            people.append(name)
    return [
        Target(who, relation, rng.choice(values), "people") for who in people for relation, values in VALUES.items()
    ]


def make_micro(folder: Path) -> Micro:
    """Make the world and its models in a folder."""
    (facts,) = write_targets(micro_facts(), folder)
    phrasings = folder / "phrasings.yaml"
    wording = {name: {"questions": [f"Which {name} goes with {{subject}}?"]} for name in VALUES}
    phrasings.write_text(yaml.safe_dump({"relations": wording}), encoding="utf-8")
    bases = [_pretrain(folder, facts, phrasings, with_facts=with_facts) for with_facts in (True, False)]
    mask = start_run(_masking(folder, facts, phrasings, bases[0])).core
    assert mask is not None
    return Micro(folder, facts, phrasings, bases[0], bases[1], mask)


def _pretrain(folder: Path, facts: Path, phrasings: Path, *, with_facts: bool) -> Path:
    config = PretrainConfig(
        output=folder / ("base" if with_facts else "control"), facts=(facts,), phrasings=(phrasings,),
        mixture={
            "facts/closed_book": 70.0, "logic/boolean": 4.0, "logic/ordering": 4.0, "logic/rules": 4.0,
            "logic/problem_direct": 4.0, "reading/open_book": 14.0,
        },
        names=NAMES, documents=48, row_tokens=256, steps=500 if with_facts else 330, learning_rate=2e-3,
        warmup_steps=20, weight_decay=0.0, workers=0, with_facts=with_facts,
        shape=ShapeConfig(layers=2, hidden=128, heads=4, key_value_heads=2, feed_forward=320, positions=256),
        tokenizer=TokenizerConfig(vocabulary=1600, documents=3000),
    )  # fmt: skip
    made = pretrain(config)
    assert made is not None
    return made


def _masking(folder: Path, facts: Path, phrasings: Path, base: Path) -> RunConfig:
    settings = {
        "output": str(folder / "mask"),
        "base": {"model": str(base)},
        "facts": {"files": [str(facts)], "phrasings": [str(phrasings)], "known_only": False},
        "streams": {
            "fact": {"documents": 32}, "logic": {"documents": 32, "kinds": ["logic/boolean", "logic/magnitude"]},
            "names": NAMES, "workers": 0,
        },
        "stages": [
            {
                "kind": "metabolize", "steps": 200, "learning_rate": 6e-4,
                "losses": {"never_knew": {}, "unlikelihood": {}, "anchor": {}},
            }
        ],
        "compute": {"device": "cpu"},
        "watch": {"every": 1000, "questions": 8, "rollouts": 0, "least_logic": 0},
        "save": {"every": 1000},
    }  # fmt: skip
    return parse_config(RunConfig, settings, "mask.yaml")


@dataclass(frozen=True)
class Reports:
    """The same exam, taken by each of the three as if it were a core."""

    base: Report
    mask: Report
    control: Report


def examine_all(micro: Micro) -> Reports:
    """The mask beside base and control; the base as its own core; the control with nothing but guessing beside it."""
    request = micro.request(micro.mask, micro.control)
    exam, sources = read_exam(request)
    mask, base, control = (
        micro.examinee(folder, role)
        for folder, role in ((micro.mask, Role.CORE), (micro.base, Role.BASE), (micro.control, Role.CONTROL))
    )

    def judged(core: Examinee, beside: Examinee | None, ledger: Ledger) -> Report:
        return write_up(exam, Field(core, base, beside), ledger, request.profile, sources, 0.0, request.attacks)

    ledger = examine(exam, Field(mask, base, control), request.profile, attacks=request.attacks)
    as_core = Ledger({key: one for key, one in ledger.outcomes.items() if key[1] is not Role.CORE})
    for (measure, role), outcomes in ledger.outcomes.items():
        if role is Role.BASE:
            as_core.outcomes[measure, Role.CORE] = replace(outcomes, role=Role.CORE)
    never = replace(control, role=Role.CORE)
    known = Ledger({key: one for key, one in ledger.outcomes.items() if key[1] in (Role.BASE, Role.CHANCE)})
    alone = examine(exam, Field(never, base, None), request.profile, known, attacks=request.attacks)
    return Reports(
        judged(replace(base, role=Role.CORE), control, as_core),
        judged(mask, control, ledger),
        judged(never, None, alone),
    )
