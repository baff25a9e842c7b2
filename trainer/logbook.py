"""What a run writes down as it goes: progress for people, TensorBoard for the eye, history for the figures."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from types import TracebackType
from typing import Self

from torch.utils.tensorboard import SummaryWriter

from trainer.canary import Canaries
from trainer.checkpoint import Cursor
from trainer.files import write_whole
from trainer.loop import StepReport
from trainer.progress import Progress

Row = dict[str, float | str | None]


def last_look(history: Iterable[Row]) -> Canaries | None:
    """The last look that a history notes; None where it notes none."""
    names = [field.name for field in fields(Canaries)]
    found: Canaries | None = None
    for row in history:
        values = {name: row[f"canary/{name}"] for name in names if f"canary/{name}" in row}
        if "logic" in values:
            found = Canaries(**{name: float(str(value)) for name, value in values.items()})
    return found


class Logbook:
    """Keeps the history of a run; use as a context manager. Only the main process writes."""

    def __init__(
        self, folder: Path, *, steps: int, done: int = 0, history: tuple[Row, ...] = (), writes: bool = True
    ) -> None:
        self.history: list[Row] = list(history)
        self.writes = writes
        self._path = folder / "history.jsonl"
        self._progress = Progress("training", steps, "step", done=done, shown=writes)
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=done) if writes else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.close()
        if self._board is not None:
            self._board.close()

    def step(self, cursor: Cursor, stage: str, strength: float, report: StepReport) -> None:
        """Note a step."""
        shown = {name: f"{value:.3f}" for name, value in report.losses.items()}
        if report.probe_accuracy is not None:
            shown |= {"λ": f"{strength:.2f}", "probe": f"{report.probe_accuracy:.0%}"}
        self._progress.advance(stage, shown)
        values = {f"loss/{name}": value for name, value in report.losses.items()}
        values |= {
            "step/norm": report.norm,
            "step/learning_rate": report.learning_rate,
            "step/elapsed_s": report.elapsed_s,
        }
        values |= {"step/tokens": float(report.tokens), "step/waited_s": report.waited_s, "step/lambda": strength}
        if report.probe_accuracy is not None:
            values["canary/probe"] = report.probe_accuracy
        self._note(cursor.total, values)
        row: Row = {"step": float(cursor.total), "stage": stage, **values}
        self.history.append(row)

    def look(self, cursor: Cursor, stage: str, seen: Canaries) -> None:
        """Note a look at the canaries, and write the history down."""
        values = {f"canary/{name}": value for name, value in asdict(seen).items() if value is not None}
        self._note(cursor.total, values)
        self.history.append({"step": float(cursor.total), "stage": stage, **values})
        if self.writes:
            said = " ".join(f"{name.removeprefix('canary/')} {value:.3g}" for name, value in values.items())
            self.say(f"step {cursor.total} {stage}: {said}")
            self.write()

    def say(self, line: str) -> None:
        """A line for people, above the bar."""
        self._progress.say(line)

    def write(self) -> None:
        """Write the history down."""
        if self.writes:
            write_whole(self._path, "".join(json.dumps(row) + "\n" for row in self.history))

    def _note(self, step: int, values: Mapping[str, float]) -> None:
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
