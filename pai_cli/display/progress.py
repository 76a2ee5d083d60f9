"""A progress bar on standard error, on a terminal and for work that takes a while; elsewhere a line a milestone, or a
minute.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pai_cli.compute.stopping import check
from pai_cli.display.console import errors, errors_have_no_terminal, note
from pai_cli.printable import as_line
from pai_cli.progress import Milestone, Progress

PATIENCE = 1.0  # seconds before a bar appears: quick work shows none

LOGGED = 60.0  # seconds after which work says where it is, where there is no bar


class _Log:
    """A `Progress` for where there is no terminal."""

    def __init__(self, title: str):
        self._title = as_line(title)
        self._said = time.monotonic()

    def __call__(self, done: int, total: int, what: str = "") -> None:
        check()
        if isinstance(what, Milestone):
            self._say(what)
        elif time.monotonic() - self._said >= LOGGED and done < total:
            doing = f", {as_line(what)}" if what else ""
            self._say(f"{self._title}: {int(100 * done / total)}% done{doing}")

    def _say(self, line: str) -> None:
        self._said = time.monotonic()
        note(line)


@contextmanager
def progress_bar(title: str, *, streaming: bool = False) -> Iterator[Progress]:
    """A `Progress` that draws what is being done, how far it is and how long it will take; without a terminal it says
    milestones, a line each, and where it is once a minute.

    `streaming`: results are written to standard output meanwhile; where that is a terminal, no bar is drawn into them. Each
    call sees to it that no signal is lost.
    """
    if errors_have_no_terminal():
        yield _Log(title)
        return
    console = errors()
    if not console.is_terminal or (streaming and sys.stdout.isatty()):
        yield _Log(title)
        return
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar
    from rich.table import Column

    words = TextColumn("{task.description}", markup=False)
    columns = [words, BarColumn(), TaskProgressColumn(), TimeRemainingColumn(table_column=Column(no_wrap=True))]
    bar = Bar(*columns, console=console, transient=True)
    task = bar.add_task(as_line(title), total=None)
    begin = time.monotonic()

    def show(done: int, total: int, what: str = "") -> None:
        check()
        if not bar.live.is_started and time.monotonic() - begin > PATIENCE:
            bar.start()
        if done >= total:
            bar.stop()  # before anything else is written
            return
        told = None if isinstance(what, Milestone) else f"{as_line(title)} {as_line(what)}".strip()
        bar.update(task, completed=done, total=total, description=told)

    try:
        yield show
    finally:
        bar.stop()
