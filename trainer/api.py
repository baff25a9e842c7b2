"""The API of the articles, as a thin layer over a run: each argument means something true.

unlearning = RegenerativeUnlearning(model="models/demo-base", facts=["knowledge/people.ndjson"], output="runs/core")
core = unlearning.extract_logic_core(target_patterns=["people/*"], preserve_patterns=["logic/*", "memory/*"])
core.factual_retention, core.reasoning_score, core.cot_adoption_rate
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.canary import Canaries
from trainer.config import RunConfig, parse_config
from trainer.errors import CollapseError, ConfigError
from trainer.run import start_run

ERASE_STEPS = (150, 3000)
_PARTS = {"attention": "*attn*", "mlp": "*mlp*", "embeddings": "*embed*"}


@dataclass(frozen=True, slots=True)
class LogicCore:
    """What came of a run, by its canaries; `metabolism evaluate` measures a core in full."""

    folder: Path
    """The core folder."""
    factual_retention: float
    """Share of the probed target facts that the core still answers from its weights, in held-out wording."""
    reasoning_score: float
    """Share of fact-free documents (logic, reading, memory) whose answer the core gets right."""
    cot_adoption_rate: float
    """Share of fact questions, asked plainly, that the core answers step by step through a lookup of that fact."""
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
        facts: files of the facts to take out, as NDJSON.
        output: folder of the run; must not hold one.
        target_retention: the largest share of facts that may be left; a core above it is returned, but its `reached`
            is False, and `extract_logic_core(strict=True)` raises.
        preserve_layers: weights that are neither trained nor perturbed: numbers of layers, "attention", "mlp",
            "embeddings", or glob patterns over the names of weights. Facts of a subject that is spelled with one token
            stand in the embeddings and stay with them.
        settings: anything else of a run file, such as {"streams": {…}, "compute": {…}}; it wins over what the other
            arguments say.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        facts: Sequence[str | Path],
        output: str | Path,
        target_retention: float = 0.07,
        preserve_layers: Sequence[int | str] = (),
        settings: dict[str, Any] | None = None,
    ) -> None:
        if not 0 <= target_retention <= 1:
            raise ConfigError(f"target_retention is {target_retention}; it is a share between 0 and 1, such as 0.07")
        self.target_retention = target_retention
        self._settings: dict[str, Any] = {
            "output": str(output),
            "base": {"model": str(model), "preserve": [_pattern(layer) for layer in preserve_layers]},
            "facts": {"files": [str(path) for path in facts]},
        }
        self._own = settings or {}

    def config(
        self,
        *,
        reverse_gradients: bool = True,
        target_patterns: Sequence[str] = ("*",),
        preserve_patterns: Sequence[str] = ("*",),
    ) -> RunConfig:
        """The run that `extract_logic_core` would take; see there."""
        losses: dict[str, Any] = {"never_knew": {}, "unlikelihood": {}, "anchor": {}}
        if reverse_gradients:
            losses["reversal"] = {"layers": "deep"}
        kept = _pattern("embeddings") in self._settings["base"]["preserve"]
        stages: list[dict[str, Any]] = [
            {"kind": "metabolize", "steps": ERASE_STEPS[0], "losses": losses},
            *([] if kept else [{"kind": "perturb", "noise": 1.0, "where": ["names"]}]),
            {"kind": "perturb", "noise": 0.6},
            {"kind": "regenerate", "steps": ERASE_STEPS[1], "learning_rate": 1e-3},
        ]
        settings = self._settings | {
            "facts": self._settings["facts"] | {"targets": list(target_patterns)},
            "streams": {"logic": {"kinds": list(preserve_patterns)}},
            "stages": stages,
        }
        return parse_config(RunConfig, _merge(settings, self._own), "the arguments")

    def extract_logic_core(
        self,
        *,
        reverse_gradients: bool = True,
        target_patterns: Sequence[str] = ("*",),
        preserve_patterns: Sequence[str] = ("*",),
        strict: bool = False,
    ) -> LogicCore:
        """Run, and look at what came of it.

        Args:
            reverse_gradients: whether the gradients of fact probes are reversed into the model, beside the losses on
                its output.
            target_patterns: which facts go: glob patterns over module/relation/subject, such as ``people/*``.
            preserve_patterns: which skills are held: glob patterns over the kinds of documents, such as ``logic/*``.
            strict: raise where more facts are left than `target_retention` allows.

        Raises:
            CollapseError: `strict`, and too many facts are left; the core stays for inspection.
            TrainerError: as `trainer.run.start_run`.
        """
        config = self.config(
            reverse_gradients=reverse_gradients, target_patterns=target_patterns, preserve_patterns=preserve_patterns
        )
        finished = start_run(config)
        if finished.core is None or finished.canaries is None:
            raise CollapseError(f"the run was stopped; go on by `metabolism resume {config.output}`")
        core = _logic_core(finished.core, finished.canaries, self.target_retention)
        if strict and not core.reached:
            raise CollapseError(
                f"{core.factual_retention:.0%} of the facts are left, {self.target_retention:.0%} were allowed; "
                f"raise the noise or the steps. The core is in {core.folder}"
            )
        return core


def _logic_core(folder: Path, seen: Canaries, target: float) -> LogicCore:
    return LogicCore(folder, seen.recall, seen.logic, seen.lookup or 0.0, target)


def _pattern(layer: int | str) -> str:
    return f"*.{layer}.*" if isinstance(layer, int) else _PARTS.get(layer, layer)


def _merge(settings: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    merged = dict(settings)
    for name, value in own.items():
        before = merged.get(name)
        merged[name] = _merge(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return merged
