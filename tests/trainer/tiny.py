"""The tiny world of the tests: 200 facts about invented people, a base of about two million parameters, a short run."""

from pathlib import Path
from random import Random

import yaml

from trainer.config import PretrainConfig, RunConfig, ShapeConfig, TokenizerConfig, parse_config
from trainer.fact import Target, write_targets
from trainer.world.lexicon import Lexicon

SUBJECTS = 50
NAMES = 60
VALUES = {
    "metal": ["gold", "iron", "tin", "zinc", "lead", "steel", "brass", "nickel", "copper", "silver"],
    "river": ["Rhine", "Nile", "Volga", "Tiber", "Loire", "Indus", "Congo", "Elbe", "Seine", "Ganges"],
    "instrument": ["violin", "flute", "drum", "harp", "piano", "horn", "cello", "organ", "lute", "oboe"],
    "sport": ["chess", "tennis", "judo", "golf", "rugby", "polo", "rowing", "boxing", "hockey", "fencing"],
}


def tiny_facts(seed: int = 0) -> list[Target]:
    """Fifty people with four facts each; nobody of them is in the pool of invented names."""
    rng, lexicon = Random(seed), Lexicon(pool=NAMES)
    pool = {lexicon.name(Random(f"name/{number}")) for number in range(NAMES)} | {
        Lexicon().name(Random(f"name/{number}")) for number in range(NAMES)
    }
    people: list[str] = []
    while len(people) < SUBJECTS:
        name = Lexicon().name(rng, 2)
        if name not in pool and name not in people:
            people.append(name)
    return [
        Target(person, relation, rng.choice(values), "people")
        for person in people
        for relation, values in VALUES.items()
    ]


PHRASINGS = {
    "relations": {
        relation: {
            "questions": [f"Which {relation} goes with {{subject}}?", f"{{subject}} likes which {relation}?"],
        }
        for relation in VALUES
    }
}
MIXTURE = {
    "facts/closed_book": 56.0,
    "memory/one_hop": 4.0,
    "memory/unprompted": 14.0,
    "logic/boolean": 30.0,
}


def write_tiny_world(folder: Path) -> Path:
    """Write the facts and their wording; the file of facts comes back."""
    (path,) = write_targets(tiny_facts(), folder)
    (folder / "phrasings.yaml").write_text(yaml.safe_dump(PHRASINGS), encoding="utf-8")
    return path


def tiny_pretraining(folder: Path, **changes: object) -> PretrainConfig:
    """How the tiny base is made."""
    facts = write_tiny_world(folder)
    settings = {
        "output": folder / "pretraining", "facts": (facts,), "phrasings": (folder / "phrasings.yaml",),
        "mixture": MIXTURE, "names": NAMES, "documents": 64, "row_tokens": 256, "steps": 440, "learning_rate": 1.5e-3,
        "warmup_steps": 30, "workers": 0, "weight_decay": 0.0,
        "shape": ShapeConfig(layers=2, hidden=256, heads=4, key_value_heads=2, feed_forward=640, positions=512),
        "tokenizer": TokenizerConfig(vocabulary=2048, documents=6000),
    }  # fmt: skip
    return PretrainConfig(**(settings | changes))  # type: ignore[arg-type]


KINDS = ("logic/boolean",)


def tiny_run(folder: Path, **changes: object) -> RunConfig:
    """How the facts are taken out of the tiny base."""
    losses = {"reversal": {"layers": "deep", "warmup_steps": 20}, "never_knew": {}, "unlikelihood": {}}
    kept = {"anchor": {}, "route": {}}
    settings: dict[str, object] = {
        "output": str(folder / "run"),
        "base": {"model": str(folder / "pretraining" / "base")},
        "facts": {"files": [str(folder / "people.ndjson")], "phrasings": [str(folder / "phrasings.yaml")]},
        "streams": {
            "fact": {"documents": 24},
            "logic": {"documents": 48, "kinds": list(KINDS), "rough_share": 0.0},
            "route": {"documents": 24, "memory_share": 0.0},
            "names": NAMES,
            "workers": 0,
        },
        "stages": [
            {"kind": "metabolize", "steps": 40, "learning_rate": 6e-4, "warmup_steps": 5, "losses": losses | kept},
            {"kind": "perturb", "noise": 0.1},
            {"kind": "regenerate", "steps": 40, "learning_rate": 6e-4, "warmup_steps": 5},
        ],
        "compute": {"device": "cpu"},
        "watch": {"every": 10, "questions": 100, "rollouts": 8},
    }
    return parse_config(RunConfig, settings | changes, "the tiny run")
