"""How far a long job is: a bar on a terminal, a line a minute where there is none, as in a log file."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from tqdm import tqdm

_EVERY_S = 60.0
_Item = TypeVar("_Item")
_LINE = "{desc}: {n_fmt} of {total_fmt} {unit}s, {rate_fmt}, {elapsed} gone, {remaining} left{postfix}"


class Progress:
    """Counts the units of a job to standard error; silent where not `shown`, as in the second of two processes."""

    def __init__(self, title: str, total: int, unit: str, *, done: int = 0, shown: bool = True) -> None:
        self._bar = tqdm(
            desc=title, total=total, initial=done, unit=unit, disable=None if shown else True, dynamic_ncols=True
        )
        self._shown, self._title, self._unit = shown, title, unit
        self._done = self._from = done
        self._total = total
        self._began = self._told = time.monotonic()

    def advance(self, title: str | None = None, figures: Mapping[str, str] | None = None) -> None:
        """One unit more; `title` says what the job is at, `figures` what stands beside the count."""
        self._done += 1
        self._title = title or self._title
        self._bar.set_description(self._title, refresh=False)
        self._bar.set_postfix(figures, refresh=False)
        self._bar.update()
        if self._bar.disable and time.monotonic() - self._told >= _EVERY_S:
            self._told = time.monotonic()
            beside = ", ".join(f"{name} {value}" for name, value in (figures or {}).items())
            self.say(self._line(beside))

    def say(self, line: str) -> None:
        """A line for people, above the bar."""
        if self._shown:
            self._bar.write(line, file=sys.stderr)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()

    def _line(self, beside: str) -> str:
        return tqdm.format_meter(
            self._done, self._total, self._told - self._began, initial=self._from, prefix=self._title,
            unit=self._unit, postfix=beside, bar_format=_LINE,
        )  # fmt: skip


def watched(items: Sequence[_Item], title: str, unit: str, *, shown: bool = True) -> Iterator[_Item]:
    """The items one by one, each counted when the next is asked for."""
    progress = Progress(title, len(items), unit, shown=shown)
    try:
        for item in items:
            yield item
            progress.advance()
    finally:
        progress.close()
