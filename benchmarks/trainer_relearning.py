"""What really erases: recipes side by side, each made from one base, then taught half of its facts again.

For every recipe of `--recipes` (see `_RECIPES`): the run of the trainer, its canaries, and the recall of the *other*
half of the facts while the first half is fine-tuned. The reference is `control`: the untouched base, asked for facts
whose subjects are nobody, so that what it gets right of the other half is what anyone could guess.
Run as `python -m benchmarks.trainer_relearning --base DIR --facts FILE… --out DIR [--scale 0.1]`.
The last line is JSON.
"""

import argparse
import copy
import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from random import Random

import torch
from torch.nn import functional
from transformers import AutoConfig

from trainer.base_model import Base, load_base
from trainer.canary import exact, recall_examples
from trainer.config import BaseConfig, RunConfig, parse_config
from trainer.fact import Target
from trainer.reader import Reader, to_places
from trainer.run import start_run
from trainer.sources import targets_of, world_of
from trainer.streams.batch import pack
from trainer.streams.encoder import Encoder
from trainer.world.world import World, stand_in

_REVERSAL = {"reversal": {"layers": "all"}, "anchor": {}}
_OUTPUT = {"never_knew": {}, "unlikelihood": {}, "anchor": {}}
_REGENERATE = {
    "anchor": {},
    "practice": {"weight": 0.5},
    "route": {},
    "never_knew": {"weight": 0.3},
    "unlikelihood": {"weight": 0.3},
}


Stages = list[dict[str, object]]
_BOTH: dict[str, object] = {"where": ["mlp", "attention"]}
_MLP: dict[str, object] = {"where": ["mlp"]}
_FLAT: dict[str, object] = {"flat": {"mass": 0.9}}
_AT_A_TIME = 2  # layers


def _stages(steps: int, *noises: dict[str, object], watched: bool = False) -> Stages:
    """Forget at the output; then noise and regeneration in turns, `steps` of it in all."""
    losses = _REGENERATE | ({"reversal": {"weight": 0.3, "layers": "all"}} if watched else {})
    each = max(steps // len(noises), 2)
    regenerate = {"kind": "regenerate", "steps": each, "learning_rate": 1e-3, "losses": losses}
    turns = [stage for noise in noises for stage in ({"kind": "perturb", **noise}, regenerate)]
    return [{"kind": "metabolize", "steps": max(steps // 8, 2), "losses": _OUTPUT}, *turns]


def _by_layers(layers: int) -> list[dict[str, object]]:
    """New MLPs, a few layers at a time, from the last to the first."""
    starts = range(0, layers, _AT_A_TIME)
    parts = [list(range(start, min(start + _AT_A_TIME, layers))) for start in starts]
    return [{"noise": 1.0, "layers": part} | _MLP for part in reversed(parts)]


_RECIPES: dict[str, Callable[[int, int], Stages]] = {
    "mask": lambda steps, _: [{"kind": "metabolize", "steps": steps, "losses": _OUTPUT}],
    "reversal": lambda steps, _: [{"kind": "metabolize", "steps": steps, "losses": _REVERSAL}],
    "noise-0.3": lambda steps, _: _stages(steps, {"noise": 0.3} | _BOTH),
    "noise-0.6": lambda steps, _: _stages(steps, {"noise": 0.6} | _BOTH),
    "noise-0.9": lambda steps, _: _stages(steps, {"noise": 0.9} | _BOTH),
    "mlp-0.6": lambda steps, _: _stages(steps, {"noise": 0.6} | _MLP),
    "mlp-anew": lambda steps, _: _stages(steps, {"noise": 1.0} | _MLP),
    "mlp-anew-by-layers": lambda steps, layers: _stages(steps, *_by_layers(layers)),
    "flat-0.6": lambda steps, _: _stages(steps, {"noise": 0.6} | _BOTH | _FLAT),
    "flat-anew": lambda steps, _: _stages(steps, {"noise": 1.0} | _BOTH | _FLAT),
    "noise-0.6-watched": lambda steps, _: _stages(steps, {"noise": 0.6} | _BOTH, watched=True),
}


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", required=True)
    parser.add_argument("--facts", required=True, nargs="+")
    parser.add_argument("--phrasings", nargs="*", default=[])
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--recipes", nargs="*", default=["control", "mask", "noise-0.6"])
    parser.add_argument("--steps", type=int, default=200, help="steps of regeneration")
    parser.add_argument("--documents", type=int, default=32)
    parser.add_argument("--relearn-steps", type=int, default=100)
    parser.add_argument("--relearn-facts", type=int, default=200, help="facts that are split in halves")
    parser.add_argument("--names", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=["*"], help="kinds of documents that the base has read")
    arguments = parser.parse_args()
    rows = [_compare(name, arguments) for name in arguments.recipes]
    print(f"{'recipe':20}{'recall':>8}{'logic':>8}{'lookup':>8}{'other half, by steps of relearning':>40}{'s':>8}")
    for row in rows:
        seen = row["canaries"] or {}
        curve = " ".join(f"{step}:{other:.2f}" for step, other, _ in row["relearning"])
        shares = f"{seen.get('recall', 0):8.2f}{seen.get('logic', 0):8.2f}{seen.get('lookup') or 0:8.2f}"
        print(f"{row['recipe']:20}{shares}{curve:>40}{row['elapsed_s']:8.0f}")
    print(json.dumps(rows))


def _compare(recipe: str, arguments: argparse.Namespace) -> dict[str, object]:
    layers = AutoConfig.from_pretrained(arguments.base).num_hidden_layers
    stages = [{"kind": "perturb", "noise": 0.5}] if recipe == "control" else _RECIPES[recipe](arguments.steps, layers)
    config = _config(arguments, arguments.out / recipe, stages)
    started, canaries, model = time.perf_counter(), None, arguments.base
    if recipe != "control":
        finished = start_run(config)
        assert finished.core is not None, "nobody stopped it"
        canaries, model = asdict(finished.canaries) if finished.canaries else None, str(finished.core)
    elapsed_s = time.perf_counter() - started
    base = load_base(BaseConfig(model=model))
    facts = Random("relearn").sample(targets_of(config.facts).facts, arguments.relearn_facts)
    world = world_of(config, facts)
    if recipe == "control":
        rng = Random("nobody")
        facts = [replace(fact, subject=stand_in(fact, world.lexicon, rng)) for fact in facts]
        world = world_of(config, facts)
    curve = relearn(base, world, facts, arguments.relearn_steps, arguments.documents)
    return {"recipe": recipe, "canaries": canaries, "relearning": curve, "elapsed_s": elapsed_s}


def _config(arguments: argparse.Namespace, output: Path, stages: Stages) -> RunConfig:
    size = {"documents": arguments.documents}
    settings = {
        "output": str(output),
        "base": {"model": arguments.base},
        "facts": {"files": arguments.facts, "phrasings": arguments.phrasings, "known_only": False},
        "streams": {
            "fact": size,
            "logic": size | {"kinds": arguments.kinds},
            "route": size | {"kinds": [kind for kind in arguments.kinds if kind.startswith("memory")] or ["memory/*"]},
            "names": arguments.names,
            "workers": 0,
        },
        "stages": stages,
        "watch": {"every": 50, "questions": 64, "rollouts": 16, "least_logic": 0},
        "save": {"every": 100_000},
    }
    return parse_config(RunConfig, settings, "the benchmark")


def relearn(
    base: Base, world: World, facts: list[Target], steps: int, documents: int
) -> list[tuple[int, float, float]]:
    """Fine-tune on the first half; (step, recall of the other half, recall of the first) in held-out wording."""
    encoder, reader = base.encoder, Reader(copy.deepcopy(base.model)).train()
    half, rng = len(facts) // 2, Random("halves")
    shown, other = facts[:half], facts[half:]
    optimizer = torch.optim.AdamW(reader.parameters(), lr=1e-4)
    curve = [_recalls(reader, encoder, world, other, shown, 0)]
    for step in range(1, steps + 1):
        drawn = rng.choices(shown, k=documents)
        examples = recall_examples(drawn, world, encoder, "{value}", rng, held_out=False)
        places = to_places(
            pack(examples, 256, pad_id=encoder.pad_id, most_tokens=encoder.most_tokens), torch.device("cpu")
        )
        logits, _ = reader(places)
        optimizer.zero_grad()
        functional.cross_entropy(logits, places.labels_N).backward()
        optimizer.step()
        if step in {25, 50, 100, 200, steps}:
            curve.append(_recalls(reader, encoder, world, other, shown, step))
    return curve


def _recalls(
    reader: Reader, encoder: Encoder, world: World, other: list[Target], shown: list[Target], step: int
) -> tuple[int, float, float]:
    reader.eval()
    shares = []
    for facts in (other, shown):
        examples = recall_examples(facts, world, encoder, "{value}", Random("asked"), held_out=True)
        right = exact(reader, examples, encoder)
        shares.append(sum(right) / len(right))
    reader.train()
    return step, shares[0], shares[1]


if __name__ == "__main__":
    main()
