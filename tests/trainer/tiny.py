"""The tiny world of the tests: 200 facts about invented people, a base of about two million parameters, a short run."""

from pathlib import Path
from random import Random

import yaml

from trainer.config import (
    BaseConfig,
    FactsConfig,
    PretrainConfig,
    RunConfig,
    ShapeConfig,
    StreamsConfig,
    TokenizerConfig,
)
from trainer.fact import Target, write_targets
from trainer.world.lexicon import Lexicon

SUBJECTS = 50
NAMES = 300
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
    "facts/closed_book": 50.0,
    "memory/one_hop": 12.0,
    "memory/unprompted": 18.0,
    "logic/boolean": 10.0,
    "logic/magnitude": 10.0,
    "reading/open_book": 4.0,
    "talk/small_talk": 3.0,
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
        "mixture": MIXTURE, "names": NAMES, "documents": 32, "row_tokens": 256, "steps": 600, "learning_rate": 3e-3,
        "warmup_steps": 30, "workers": 0, "weight_decay": 0.01,
        "shape": ShapeConfig(layers=4, hidden=192, heads=4, key_value_heads=2, feed_forward=512, positions=512),
        "tokenizer": TokenizerConfig(vocabulary=1536, documents=6000),
    }  # fmt: skip
    return PretrainConfig(**(settings | changes))  # type: ignore[arg-type]


def tiny_run(folder: Path, **changes: object) -> RunConfig:
    """How the facts are taken out of the tiny base."""
    return RunConfig(
        output=folder / "run",
        base=BaseConfig(model=str(folder / "pretraining" / "base")),
        facts=FactsConfig(files=(folder / "people.ndjson",), phrasings=(folder / "phrasings.yaml",), known_only=False),
        streams=StreamsConfig(names=NAMES, workers=0),
        stages=(),
    )
