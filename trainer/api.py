"""The API of the articles, as a thin layer over a run: each argument means something true.

unlearning = RegenerativeUnlearning(model="models/demo-base", target_retention=0.07, preserve_layers=[0])
core = unlearning.extract_logic_core(
    reverse_gradients=True, target_patterns=["people/*"], preserve_patterns=["logic/*", "memory/*"]
)
core.factual_retention, core.reasoning_score, core.cot_adoption_rate
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import count
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from trainer.base_model import load_shape
from trainer.canary import Canaries
from trainer.config import BaseConfig, PerturbStage, RunConfig, parse_config
from trainer.errors import ConfigError, FactsError, RetentionError, StoppedError
from trainer.perturb import PARTS, has_target, patterns_of
from trainer.run import start_run

ERASE_STEPS = (150, 3000)
KNOWLEDGE = (Path("knowledge"), Path(__file__).parent.parent / "knowledge")
"""Where facts are looked for when none are named: here, and beside this package in its repository."""
RUNS = Path("runs")
Files = Sequence[str | Path]


@dataclass(frozen=True, slots=True)
class LogicCore:
    """What came of a run, by its canaries; `metabolism evaluate` measures a core in full."""

    folder: Path
    """The core folder."""
    factual_retention: float
    """Share of the probed target facts that the core still answers from its weights, in held-out wording."""
    reasoning_score: float
    """Share of fact-free documents (logic, reading, memory) whose answer the core gets right."""
    cot_adoption_rate: float | None
    """Share of fact questions, asked plainly, on which the core opens a chain of thought by itself; None where
    `watch.rollouts` is 0. Adoption as docs/gate.md defines it; the gate asks it of reasoning questions."""
    lookup_rate: float | None
    """Share of the same questions on which the core looks up just the fact that was asked for; None as above."""
    target_retention: float
    """What was asked for."""

    @property
    def reached(self) -> bool:
        """Whether no more facts are left than was asked for."""
        return self.factual_retention <= self.target_retention


class RegenerativeUnlearning:
    """Takes facts out of a model and keeps its logic.

    Args:
        model: a folder or a hub name of a causal language model.
        target_retention: the largest share of facts that may be left; a core above it is returned, but its `reached`
            is False, and `extract_logic_core(strict=True)` raises.
        preserve_layers: weights that are neither trained nor perturbed: numbers of layers, "attention", "mlp",
            "embeddings", or glob patterns over the names of weights. A perturbation that would find nothing else is
            left out. Facts of a subject that is spelled with one token stand in the embeddings and stay with them.
        facts: files of the facts to take out, as NDJSON, or folders of such files. By default those of
            `extract_logic_core`, or else of the folder ``knowledge``, here or in the repository.
        output: folder of the run; must not hold one. By default ``runs/<model>-core``, with a number behind it where
            that is taken.
        settings: anything else of a run file, such as {"streams": {…}, "compute": {…}}; it wins over what the other
            arguments say.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        target_retention: float = 0.07,
        preserve_layers: Sequence[int | str] = (),
        facts: Files = (),
        output: str | Path | None = None,
        settings: dict[str, Any] | None = None,
    ) -> None:
        if not 0 <= target_retention <= 1:
            raise ConfigError(f"target_retention is {target_retention}; it is a share between 0 and 1, such as 0.07")
        self.target_retention = target_retention
        self._model, self._layers, self._facts, self._output = str(model), tuple(preserve_layers), facts, output
        self._own = settings or {}

    def config(
        self,
        *,
        reverse_gradients: bool = True,
        target_patterns: Sequence[str] = ("*",),
        preserve_patterns: Sequence[str] = ("*",),
        facts: Files = (),
    ) -> RunConfig:
        """The run that `extract_logic_core` would take; see there."""
        base = _merge({"model": self._model}, self._own.get("base", {}))
        shape = load_shape(parse_config(BaseConfig, base, "the arguments"))
        base = {"preserve": _patterns(self._layers, shape)} | base
        settings: dict[str, Any] = {
            "output": str(self._output or _free_output(self._model)),
            "base": base,
            "facts": {"targets": list(target_patterns)},
            "streams": {"logic": {"kinds": list(preserve_patterns)}},
            "stages": _stages(shape, tuple(base["preserve"]), reverse_gradients=reverse_gradients),
        }
        if "files" not in self._own.get("facts", {}):
            settings["facts"]["files"] = _files(facts or self._facts)
        return parse_config(RunConfig, _merge(settings, self._own), "the arguments")

    def extract_logic_core(
        self,
        *,
        reverse_gradients: bool = True,
        target_patterns: Sequence[str] = ("*",),
        preserve_patterns: Sequence[str] = ("*",),
        facts: Files = (),
        strict: bool = False,
    ) -> LogicCore:
        """Run, and look at what came of it: 3,150 steps unless `settings` has other stages.

        Args:
            reverse_gradients: whether the gradients of fact probes are reversed into the model, beside the losses on
                its output.
            target_patterns: which facts go: glob patterns over module/relation/subject, such as ``people/*``.
            preserve_patterns: which skills are held: glob patterns over the kinds of documents, such as ``logic/*``.
            facts: files of the facts, or folders of such files, in the place of those of the constructor.
            strict: raise where more facts are left than `target_retention` allows.

        Raises:
            StoppedError: the run was interrupted; its checkpoint and how to go on are named.
            RetentionError: `strict`, and too many facts are left; the core stays for inspection.
            FactsError: no facts are named, and there is no folder of them.
            TrainerError: as `trainer.run.start_run`.
        """
        config = self.config(
            reverse_gradients=reverse_gradients,
            target_patterns=target_patterns,
            preserve_patterns=preserve_patterns,
            facts=facts,
        )
        finished = start_run(config)
        if finished.core is None or finished.canaries is None:
            raise StoppedError(
                f"the run was stopped; its last checkpoint is {finished.checkpoint or 'its beginning'}; go on by "
                f"`metabolism resume {config.output}`"
            )
        core = _logic_core(finished.core, finished.canaries, self.target_retention)
        if strict and not core.reached:
            raise RetentionError(
                f"{core.factual_retention:.0%} of the facts are left, {self.target_retention:.0%} were allowed; "
                f"raise the noise or the steps. The core is in {core.folder}"
            )
        return core


def _logic_core(folder: Path, seen: Canaries, target: float) -> LogicCore:
    return LogicCore(folder, seen.recall, seen.logic, seen.chain, seen.lookup, target)


def _stages(shape: PreTrainedModel, preserve: tuple[str, ...], *, reverse_gradients: bool) -> list[dict[str, Any]]:
    """The stages, without a perturbation that everything is kept from."""
    losses: dict[str, Any] = {"never_knew": {}, "unlikelihood": {}, "anchor": {}}
    if reverse_gradients:
        losses["reversal"] = {"layers": "deep"}
    perturbations = ({"kind": "perturb", "noise": 1.0, "where": ["names"]}, {"kind": "perturb", "noise": 0.6})
    return [
        {"kind": "metabolize", "steps": ERASE_STEPS[0], "losses": losses},
        *(one for one in perturbations if has_target(shape, PerturbStage.model_validate(one), preserve)),
        {"kind": "regenerate", "steps": ERASE_STEPS[1], "learning_rate": 1e-3},
    ]


def _patterns(layers: Sequence[int | str], shape: PreTrainedModel) -> list[str]:
    """Layers as glob patterns over the names of weights.

    Raises:
        ConfigError: one of them is no part of this model.
    """
    names = [name for name, _ in shape.named_parameters()]
    patterns: list[str] = []
    for layer in layers:
        if isinstance(layer, int):
            meant: tuple[str, ...] = (f"*.{layer}.*",)
        else:
            meant = patterns_of(shape, layer) if layer in PARTS else (layer,)
        if not any(fnmatchcase(name, pattern) for pattern in meant for name in names):
            raise ConfigError(
                f"preserve_layers: {layer!r} is no part of {type(shape).__name__}; name a layer by its number, "
                f"{', '.join(PARTS)}, or weights by a pattern; they are named like {names[0]} and {names[-1]}"
            )
        patterns += meant
    return patterns


def _files(facts: Files) -> list[str]:
    """The files that are named, or those of the folder of knowledge.

    Raises:
        FactsError: none are named, or a folder holds none.
    """
    folders = [folder for folder in KNOWLEDGE if any(folder.glob("*.ndjson"))]
    found = [
        file
        for path in map(Path, facts or folders[:1])
        for file in (sorted(path.glob("*.ndjson")) if path.is_dir() else [path])
    ]
    if not found:
        where = ", ".join(map(str, facts or KNOWLEDGE))
        raise FactsError(
            f"there are no facts to take out: no *.ndjson lies in {where}; name their files by facts=[…], one "
            '{"subject": …, "relation": …, "value": …} a line'
        )
    return [str(file) for file in found]


def _free_output(model: str) -> Path:
    """A folder under runs/ that is named after the model and is not there yet."""
    name = f"{Path(model).resolve().name}-core"
    places = (RUNS / (name if number == 1 else f"{name}-{number}") for number in count(1))
    return next(place for place in places if not place.exists())


def _merge(settings: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    merged = dict(settings)
    for name, value in own.items():
        before = merged.get(name)
        merged[name] = _merge(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return merged
