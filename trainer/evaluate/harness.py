"""D on public tasks, for real models with a network: lm-evaluation-harness on base and core, with the adoption metric.

The one file that knows the harness, which is an extra (`pip install digital-metabolism[eval]`). Its samples are paired
by task and document, so that GSM8K and its kin are judged like every other skill.

Adoption here: an answer that shows two worked steps or more, a step being a line or sentence with a calculation in it.
It says how the model writes; whether the steps carry the answer is what the controls of `reasoning.py` are for.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.errors import BaseModelError
from trainer.evaluate.examinee import Examinee
from trainer.evaluate.outcome import Ledger

Harness = Callable[..., Mapping[str, Any]]
"""`lm_eval.simple_evaluate`, or what stands for it."""
_METRICS = ("exact_match", "acc_norm", "acc")
_WORKED = re.compile(r"\d\s*[-+*/×÷=]\s*\$?\d")
_ENOUGH = 2


@dataclass(frozen=True, slots=True)
class Sample:
    """One document of one task: right or wrong, and what was answered."""

    task: str
    document: int
    right: bool
    text: str


def attack_tasks(
    examinee: Examinee, source: str, tasks: Sequence[str], ledger: Ledger, *, limit: int | None, batch: int
) -> None:
    """Enter the tasks' outcomes for one model, which lies at `source`.

    Raises:
        BaseModelError: the harness is not installed, or does not know a task.
    """
    chat = bool(getattr(examinee.tokenizer, "chat_template", None))
    samples = run_tasks(_load(), source, str(examinee.device), tasks, limit=limit, batch=batch, chat=chat)
    note = f"{', '.join(tasks)}; {'in its chat template' if chat else 'as plain text'}"
    ledger.add("D.tasks", examinee.role, (sample.right for sample in samples), note=note)
    ledger.add("D.tasks_adoption", examinee.role, (worked_steps(one.text) >= _ENOUGH for one in samples), note=note)


def run_tasks(
    harness: Harness,
    source: str,
    device: str,
    tasks: Sequence[str],
    *,
    limit: int | None,
    batch: int,
    chat: bool = False,
) -> list[Sample]:
    """Run the tasks; the samples come in the order of tasks and documents, the first filter of each document.

    With `chat` the questions come in the model's own chat template, as it was trained to be asked.
    """
    try:
        results = harness(
            model="hf", model_args=f"pretrained={source}", tasks=list(tasks), device=device, batch_size=batch,
            limit=limit, log_samples=True, apply_chat_template=chat,
        )  # fmt: skip
    except (KeyError, ValueError) as error:
        raise BaseModelError(f"lm-eval cannot run {', '.join(tasks)}: {error}; see `lm_eval ls tasks`") from error
    samples: dict[tuple[str, int], Sample] = {}
    for task, rows in sorted(results["samples"].items()):
        for row in rows:
            metric = next((name for name in _METRICS if name in row), None)
            if metric is None:
                raise BaseModelError(f"the task {task} is scored by none of {', '.join(_METRICS)}; leave it out")
            key = task, int(row["doc_id"])
            samples.setdefault(key, Sample(task, key[1], bool(row[metric]), _text(row)))
    return [samples[key] for key in sorted(samples)]


def worked_steps(text: str) -> int:
    """How many lines or sentences hold a calculation."""
    return sum(_WORKED.search(part) is not None for part in re.split(r"\n|(?<=[.!?])\s", text))


def _text(row: Mapping[str, Any]) -> str:
    """What the model wrote; a scored choice has no text."""
    response = row["resps"]
    while isinstance(response, list | tuple) and response:
        response = response[0]
    return response if isinstance(response, str) else ""


def _load() -> Harness:
    try:
        from lm_eval import simple_evaluate
    except ImportError as error:
        raise BaseModelError("public tasks need lm-eval: pip install 'digital-metabolism[eval]'") from error
    harness: Harness = simple_evaluate
    return harness
