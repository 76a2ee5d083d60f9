"""Which files a command reads and which it writes, known before anything starts, so that none is lost.

A command tells its plan all of them: those named, and those that go beside them (states, journals, locks). One check then
refuses an output that is an input by whatever name, two outputs of one name, and whatever stands in an output's way:
`force` replaces what the user named and what a run of the same command left there, never an input, and never the files
of another command's run.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from pai_cli.errors import OutputError, ParameterError, SuffixError, UsageError
from pai_cli.files.atomic import check_output, is_special
from pai_cli.files.journal import Resumable, run_of
from pai_cli.spelling import for_shell, option

STANDARD_OUTPUT = 1

Identity = tuple[int, int] | Path
"""Of a file: its device and number; of one that is not there, its path."""


@dataclass(frozen=True)
class Source:
    """A file that is read; `what` it is, as in "x: is `what`"."""

    path: Path
    what: str


@dataclass(frozen=True)
class Folder:
    """A folder that is read: of what may be written in it, `holds` tells by the path below it what would count as read."""

    path: Path
    what: str
    holds: Callable[[Path], bool]


@dataclass(frozen=True)
class Output:
    """A file that is written: `what` it is, and the parameter, `option`, that names it or the file that it goes beside.

    `replace`: whether a file there may go. `run`: of a run's own file, whose; `resume`: that run is continued; `after`:
    the file without which it cannot be. `ours`: of another implicit file, whether what stands there is such a one.
    `seen_to`: what opens it tells whether it can be, as of a folder or a database.
    """

    path: Path
    what: str
    option: str
    replace: bool = True
    run: Resumable | None = None
    resume: bool = False
    after: Path | None = None
    ours: Callable[[Path], bool] | None = None
    seen_to: bool = False

    @property
    def implicit(self) -> bool:
        """Whether nobody named it: it goes beside what was named."""
        return self.run is not None or self.ours is not None


class FilePlan:
    """What a command reads and writes; `force`: files in the way of what is named may be replaced."""

    def __init__(self, *, force: bool = False):
        self.force = force
        self._sources: list[Source] = []
        self._folders: list[Folder] = []
        self._outputs: list[Output] = []

    def reads(self, what: str, *paths: Path | None) -> None:
        """Files that must stay as they are; None is no file."""
        self._sources += [Source(path, what) for path in paths if path is not None]

    def reads_in(self, what: str, folder: Path, holds: Callable[[Path], bool]) -> None:
        """A folder in which nothing may be written of which `holds` says, by the path below it, that it would be read."""
        self._folders.append(Folder(folder, what, holds))

    def writes(self, path: Path | None, what: str, option: str, *, replace: bool = False) -> None:
        """A file that is written whole; `replace`: whether one there may go without `force`. Raises `UsageError`."""
        check_name(path, option)
        if path is not None:
            self._outputs.append(Output(path, what, option, replace=replace or self.force))

    def writes_tensors(self, path: Path | None, what: str, parameter: str, *, replace: bool = False) -> None:
        """A safetensors file that is written whole. Raises `SuffixError` for a name that is of another format."""
        check_name(path, parameter, stream=True)
        check_suffix(path, what, parameter)
        self.writes(path, what, parameter, replace=replace)

    def adds_to(self, path: Path | None, what: str, option: str, *, seen_to: bool = False) -> None:
        """A file, or a folder, that is kept and added to; that it is one of its kind is for what reads it to see.

        `seen_to`: and so is that it can be written. Raises `UsageError`.
        """
        check_name(path, option)
        if path is not None:
            self._outputs.append(Output(path, what, option, seen_to=seen_to))

    def keeps(
        self, path: Path, what: str, option: str, run: Resumable, *, resume: bool = False, after: Path | None = None
    ) -> None:
        """A file of a run that can be continued, removed or replaced by this command: only one of the same `run`.

        `resume`: the run is continued. `after`: the file without which it cannot be. Raises `UsageError`.
        """
        check_name(path, option)
        self._outputs.append(Output(path, what, option, replace=self.force, run=run, resume=resume, after=after))

    def uses(self, path: Path, what: str, option: str, ours: Callable[[Path], bool]) -> None:
        """A file that comes and goes beside an output, as a lock does; `ours` says whether one there may go."""
        self._outputs.append(Output(path, what, option, ours=ours))

    def check(self) -> None:
        """Raise `OutputError` for the first thing that would be lost, or could not be written. Changes nothing."""
        read = {_identity(source.path): source for source in self._sources}
        self._check_standard_output(read)
        for output in self._outputs:
            self._check_inputs(output, read.get(_identity(output.path)))
        for one, other in combinations(self._outputs, 2):
            if _identity(one.path) == _identity(other.path) or _spelled(one.path) == _spelled(other.path):
                raise OutputError(_two_of_one_name(one, other))
        for output in self._outputs:
            if not output.seen_to:
                _check_place(output)

    def _check_standard_output(self, read: Mapping[Identity, Source]) -> None:
        """As `cat a >> a` is refused: what is shown would end up in a file that is read."""
        with suppress(OSError):
            facts = os.fstat(STANDARD_OUTPUT)
            source = read.get((facts.st_dev, facts.st_ino))
            if source is not None and stat.S_ISREG(facts.st_mode):
                raise OutputError(f"{source.path}: is {source.what}, and standard output goes there; change > or >>")

    def _check_inputs(self, output: Output, source: Source | None) -> None:
        if source is not None and output.implicit:
            raise OutputError(
                f"{output.path}: is {source.what}, and {output.what} goes there; change {option(output.option)}"
            )
        if source is not None:
            raise OutputError(
                f"{output.path}: is {source.what}, which stays as it is; choose another name ({option(output.option)})"
            )
        where = _real(output.path)
        for folder in self._folders:
            root = _real(folder.path)
            if where != root and where.is_relative_to(root) and folder.holds(where.relative_to(root)):
                raise OutputError(
                    f"{output.path}: would be {folder.what}; choose another place ({option(output.option)})"
                )


def check_name(path: Path | None, parameter: str, *, stream: bool = False) -> None:
    """Refuse the name that is standard output in a shell, which has another name by the time that it comes here.

    `stream`: whether what is written there can be. Raises `UsageError`.
    """
    if str(path) == "-":
        there = ", or /dev/stdout to write there" if stream else ""
        raise UsageError(f"{option(parameter, '-')}: names no file; give a path{there}")


def check_suffix(path: Path | None, what: str, parameter: str) -> None:
    """Raise `SuffixError` for a safetensors file, `what`, whose name is of another format."""
    from pai_cli.files.foreign.write import SAFETENSORS, SUFFIXES

    if path is not None and path.suffix in SUFFIXES and path.suffix != SAFETENSORS and not is_special(path):
        raise SuffixError(f"{path}: {what} would be written as {SAFETENSORS}; give {option(parameter)} such a name")


def _there(look: Callable[[], os.stat_result]) -> os.stat_result | None:
    """What stands at a path; None for nothing, also where another process has just taken it away."""
    try:
        return look()
    except FileNotFoundError:
        return None


def _check_place(output: Output) -> None:
    """Raise `OutputError` where it cannot be written, and for what stands there and may not go."""
    path, run = output.path, output.run
    if output.ours is not None:
        there = _there(path.lstat)
        if there is not None and not (stat.S_ISREG(there.st_mode) and output.ours(path)):
            raise OutputError(f"{path}: is in the way of {output.what}; move it, or change {option(output.option)}")
        return
    check_output(path, force=True)
    if is_special(path) or not os.path.lexists(path):
        return
    found = run_of(path)
    if run is None:
        if found is not None:
            raise OutputError(
                f"{path}: belongs to a {found.command} and is not replaced; change {option(output.option)}, or remove "
                "it"
            )
        check_output(path, force=output.replace)
    elif found is not None and found != run:
        raise OutputError(
            f"{path}: belongs to a {found.command}, and {output.what} goes there; change {option(output.option)}, or "
            "remove it"
        )
    elif (
        found is None and (there := _there(path.stat)) and there.st_size and not output.resume and not _damaged(output)
    ):
        raise OutputError(
            f"{path}: damaged, or no file of a {run.command}, and {output.what} goes there; change "
            f"{option(output.option)}, or remove it"
        )
    elif not (output.replace or output.resume):
        again = f"{option('resume')} continues it, {option('force')} starts it again"
        if output.after is not None and not output.after.exists():
            again = f"{output.after.name} is gone, without which it cannot go on; {option('force')} starts it again"
        raise OutputError(f"{path}: a {run.noun} was begun here; {again}")


def _damaged(output: Output) -> bool:
    """Whether what stands there is not known for a run's file but goes with one that is: then it was, and is damaged."""
    return output.after is not None and run_of(output.after) == output.run


def _two_of_one_name(one: Output, other: Output) -> str:
    first, second = sorted((one, other), key=lambda output: output.implicit)
    options = " or ".join(sorted({option(first.option), option(second.option)}, key=for_shell))
    return f"{first.path}: {first.what} and {second.what} need different names; change {options}"


def _identity(path: Path) -> Identity:
    """What two paths to one file have in common, be it by links; of a file that is not there, where it would be."""
    try:
        facts = path.stat()
    except (OSError, ValueError):
        return _real(path)
    return facts.st_dev, facts.st_ino


def _real(path: Path) -> Path:
    try:
        return Path(os.path.realpath(path))  # Path.resolve raises for links that lead in a circle
    except ValueError as e:  # a NUL, or half a character
        raise ParameterError(f"{path}: no file can have such a name") from e


def _spelled(path: Path) -> str:
    """A path as file systems compare it that take large and small letters, or two ways to write an accent, for the same."""
    return unicodedata.normalize("NFC", str(_real(path))).casefold()
