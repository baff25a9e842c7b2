"""What really erases: recipes side by side, each made from one base, then taught half of its facts again.

For every recipe of `--recipes` (see `_RECIPES`): the run of the trainer, its canaries, and the gate's own relearning:
the recall of the *other* half of the facts while the first half is fine-tuned. The reference is `control`: the model of
`--control`, which never knew, or else the base itself, taught and asked facts whose subjects are nobody.
Run as `python -m benchmarks.trainer_relearning --base DIR --facts FILE… --out DIR [--scale 0.1]`.
The last line is JSON.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from random import Random

from transformers import AutoConfig

from trainer.config import RunConfig, parse_config
from trainer.evaluate.examinee import load_examinee
from trainer.evaluate.outcome import Role
from trainer.evaluate.profile import SMALL_PROFILE
from trainer.evaluate.question import Exam
from trainer.evaluate.relearning import Relearning, facts_stream, halves, relearn
from trainer.run import start_run
from trainer.sources import targets_of, world_of
from trainer.world.world import stand_in

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
    parser.add_argument("--control", help="a model that never knew the facts; see trainer/recipe/pretrain-control.yaml")
    parser.add_argument("--relearn-steps", type=int, default=100)
    parser.add_argument("--relearn-rate", type=float, default=1e-4)
    parser.add_argument("--relearn-facts", type=int, default=200, help="facts that are split in halves")
    parser.add_argument("--names", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=["*"], help="kinds of documents that the base has read")
    arguments = parser.parse_args()
    rows = [_compare(name, arguments) for name in arguments.recipes]
    print(f"{'recipe':20}{'recall':>8}{'logic':>8}{'lookup':>8}{'other half, by steps of relearning':>40}{'s':>8}")
    for row in rows:
        seen = row["canaries"] or {}
        curve = " ".join(f"{step}:{other:.2f}" for step, other in row["relearning"])
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
    facts = Random("relearn").sample(targets_of(config.facts).facts, arguments.relearn_facts)
    if recipe == "control" and arguments.control:
        model = arguments.control
    elif recipe == "control":
        rng, lexicon = Random("nobody"), world_of(config, facts).lexicon
        facts = [replace(fact, subject=stand_in(fact, lexicon, rng)) for fact in facts]
    curve = _relearned(Exam(world_of(config, facts), tuple(facts)), model, arguments)
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


def _relearned(exam: Exam, folder: str, arguments: argparse.Namespace) -> list[tuple[int, float]]:
    """(step, recall of the other half) in held-out wording, while a copy is fine-tuned on the first half."""
    examinee = load_examinee(folder, Role.CORE)
    shown, other = halves(exam)
    way = Relearning("C.relearn", arguments.relearn_steps, arguments.relearn_rate)
    profile = replace(SMALL_PROFILE, relearn_batch=arguments.documents)
    examples = facts_stream(exam, examinee, shown)
    trial = relearn(exam, examinee, examples, other, way, profile, stand_ins=False)
    return [(step, sum(right) / len(right)) for step, right in zip(trial.steps, trial.right, strict=True)]


if __name__ == "__main__":
    main()
