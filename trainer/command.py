"""The trainer's commands, which the composition file puts into `metabolism`.

Each option has an environment variable METABOLISM_<NAME>; `--json` prints one document on standard output, everything
else goes to standard error. Exit codes: 0 done, 1 the answer is no, 2 wrong use, 3 something outside failed, 130 Ctrl-C
ended it with nothing half done to keep.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from trainer.baselines.command import compare
from trainer.errors import (
    ArtifactError,
    BaseModelError,
    CheckpointError,
    CollapseError,
    ConfigError,
    FactsError,
    FeedError,
    NotFiniteError,
    OutOfMemoryError,
    RunExistsError,
    StreamError,
    TrainerError,
)
from trainer.evaluate.command import evaluate

if TYPE_CHECKING:
    from trainer.run import Finished

_RUN_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_NO = (CollapseError, NotFiniteError)
_WRONG_USE = (ConfigError, FactsError, StreamError, RunExistsError)
_OUTSIDE = (FeedError, BaseModelError, CheckpointError, OutOfMemoryError, ArtifactError)
_INTERRUPTED = 130  # as a shell says it of SIGINT
_Command = TypeVar("_Command", bound=Callable[..., Any])


def _json_option(command: _Command) -> _Command:
    return click.option("--json", "as_json", is_flag=True, envvar="METABOLISM_JSON", help="Print one JSON document.")(
        command
    )


def _exit_code(error: TrainerError) -> int:
    if isinstance(error, _NO):
        return 1
    return 2 if isinstance(error, _WRONG_USE) else 3


@contextmanager
def reporting(stopped: str) -> Iterator[None]:
    """Say what went wrong and end with its exit code; where Ctrl-C ends it, say what that left, and end with 130.

    A run that saves itself at Ctrl-C does so inside, and does not come here.
    """
    try:
        yield
    except TrainerError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(_exit_code(error))
    except KeyboardInterrupt:
        click.echo(f"stopped: {stopped}", err=True)
        sys.exit(_INTERRUPTED)


def _say(result: dict[str, Any], text: str, *, as_json: bool) -> None:
    click.echo(json.dumps(result, ensure_ascii=False) if as_json else text)


@click.command()
@click.argument("run_file", type=_RUN_FILE)
@_json_option
def check(run_file: Path, *, as_json: bool) -> None:
    """See whether RUN_FILE would run: files, base, which facts it knows, memory, time, two dry steps."""
    from trainer.config import read_run
    from trainer.rehearsal import rehearse

    with reporting("a check leaves nothing behind"):
        found = rehearse(read_run(run_file))
    _say(found.as_dict(), found.as_text(), as_json=as_json)


@click.command()
@click.argument("run_file", type=_RUN_FILE)
@_json_option
def train(run_file: Path, *, as_json: bool) -> None:
    """Make a core as RUN_FILE says."""
    from trainer.config import read_run
    from trainer.run import start_run

    with reporting("before the first step; the same command begins anew"):
        done = start_run(read_run(run_file))
    _say_how_it_ended(done, as_json=as_json)


@click.command()
@click.argument("folder", type=_FOLDER)
@click.option("--from", "step", type=int, envvar="METABOLISM_FROM", help="Step of the checkpoint; the last by default.")
@_json_option
def resume(folder: Path, step: int | None, *, as_json: bool) -> None:
    """Go on with the run in FOLDER, exactly as if it had never stopped."""
    from trainer.run import resume_run

    with reporting("before another step was taken; the same command goes on"):
        done = resume_run(folder, step=step)
    _say_how_it_ended(done, as_json=as_json)


def _say_how_it_ended(done: "Finished", *, as_json: bool) -> None:
    result = {
        "core": str(done.core) if done.core else None,
        "checkpoint": str(done.checkpoint) if done.checkpoint else None,
        "canaries": asdict(done.canaries) if done.canaries else None,
    }
    _say(result, f"the core is in {done.core}" if done.core else _stopped(done), as_json=as_json)


def _stopped(done: "Finished") -> str:
    if done.checkpoint is None:
        return "stopped before the first checkpoint; `metabolism resume` will begin anew"
    again = f", and the steps that were taken after it ({done.again}) will be taken again" if done.again else ""
    return f"stopped; go on by `metabolism resume`: the last checkpoint is {done.checkpoint}{again}"


@click.command()
@click.argument("run_file", type=_RUN_FILE)
@_json_option
def pretrain(run_file: Path, *, as_json: bool) -> None:
    """Make a demo base, or its control, as RUN_FILE says; the same command goes on where it was stopped."""
    from trainer import pretraining
    from trainer.checkpoint import last_checkpoint
    from trainer.config import read_pretraining

    with reporting("before another step was taken; the same command goes on"):
        config = read_pretraining(run_file)
        folder = pretraining.pretrain(config)
    saved = last_checkpoint(config.output / pretraining.CHECKPOINTS)
    stopped = (
        f"stopped; the same command goes on; the last checkpoint is {saved}"
        if saved
        else "stopped before the first checkpoint; the same command will begin anew"
    )
    _say({"base": str(folder) if folder else None}, f"the base is in {folder}" if folder else stopped, as_json=as_json)


COMMANDS: tuple[click.Command, ...] = (pretrain, check, train, resume, evaluate, compare)
"""What the composition file adds."""
