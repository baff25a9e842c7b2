"""Our batched decoding beside transformers' `generate`, on the gate's own questions: seconds, ratio, and agreement.

Both answer the same prompts greedily, in turns, in one process. The last line is JSON::

    python -m benchmarks.decoding --core models/demo-core --facts knowledge
"""

import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import torch

from trainer.decoding import decode, pad_left
from trainer.evaluate.command import files_of
from trainer.evaluate.examinee import Examinee, load_examinee
from trainer.evaluate.generate import TOOL_TAGS
from trainer.evaluate.outcome import Role
from trainer.evaluate.profile import QUICK_PROFILE
from trainer.evaluate.reasoning import ARITHMETIC, LOGIC, READING, draw_tasks
from trainer.evaluate.run import Request, read_exam

_TOKENS = 160


@click.command()
@click.option("--core", type=click.Path(path_type=Path, exists=True), default=Path("models/demo-core"))
@click.option("--facts", type=click.Path(path_type=Path, exists=True), multiple=True, default=(Path("knowledge"),))
@click.option("--questions", default=60, show_default=True, help="A skill, in one batch.")
@click.option("--turns", default=3, show_default=True, help="How often each of the two answers.")
def main(core: Path, facts: tuple[Path, ...], questions: int, turns: int) -> None:
    """Time both."""
    exam, _ = read_exam(Request(core, str(core), files_of(facts), QUICK_PROFILE))
    one = load_examinee(core, Role.CORE)
    summary = {}
    for skill, kinds in (("arithmetic", ARITHMETIC), ("logic", LOGIC), ("reading", READING)):
        tasks = draw_tasks(exam, kinds, questions)
        prompts = [one.encode(one.render(task.prompt)) for task in tasks]
        ours, theirs = [], []
        for _ in range(turns):
            seconds, made = _timed(partial(_ours, one, prompts))
            ours.append(seconds)
            seconds, reference = _timed(partial(_theirs, one, prompts))
            theirs.append(seconds)
        ratio = statistics.median(their / our for our, their in zip(ours, theirs, strict=True))
        same = sum(mine == other for mine, other in zip(made, reference, strict=True))
        print(
            f"{skill}: {statistics.median(ours):.1f} s, generate {statistics.median(theirs):.1f} s, {ratio:.1f} times; "
            f"{same} of {questions} answers are the same, {statistics.mean(map(len, made)):.0f} tokens an answer"
        )
        summary[skill] = {"seconds": statistics.median(ours), "ratio": ratio, "same": same}
    print(json.dumps({"benchmark": "decoding", "questions": questions, **summary}))


def _timed(work: Callable[[], list[list[int]]]) -> tuple[float, list[list[int]]]:
    started = time.perf_counter()
    made = work()
    return time.perf_counter() - started, made


def _ours(one: Examinee, prompts: list[list[int]]) -> list[list[int]]:
    return decode(
        one.model, prompts, stops=one.end_ids, pad_id=one.pad_id, most_tokens=_TOKENS,
        banned=[one.tag_ids[tag] for tag in TOOL_TAGS], batch=len(prompts),
    )  # fmt: skip


def _theirs(one: Examinee, prompts: list[list[int]]) -> list[list[int]]:
    ids_BT, mask_BT = pad_left(prompts, one.pad_id, one.device)
    with torch.no_grad():
        out = one.model.generate(  # type: ignore[operator]
            input_ids=ids_BT, attention_mask=mask_BT, max_new_tokens=_TOKENS, do_sample=False,
            eos_token_id=list(one.end_ids), pad_token_id=one.pad_id,
            suppress_tokens=[one.tag_ids[tag] for tag in TOOL_TAGS],
        )  # fmt: skip
    return [_until(row, one.end_ids) for row in out[:, ids_BT.shape[1] :].tolist()]


def _until(ids: list[int], ends: tuple[int, ...]) -> list[int]:
    return ids[: next((place + 1 for place, token in enumerate(ids) if token in ends), len(ids))]


if __name__ == "__main__":
    main()
