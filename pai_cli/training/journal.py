"""A training's own files: JSON lines of its numbers, the state that it goes on from, TensorBoard's events."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pai_cli.errors import OutputError, RecipeError, ResumeError
from pai_cli.files.atomic import flush_file, write_atomically
from pai_cli.files.ordering import spelled
from pai_cli.files.runs import journal_beside, state_beside
from pai_cli.files.sealed import Chain, unsealed
from pai_cli.printable import reason_of
from pai_cli.spelling import option
from pai_cli.training.outputs import damaged

if TYPE_CHECKING:
    from pai_cli.files.tables import Record
    from pai_cli.training.state import TrainingState

VERSION = 2
DONE = "test_accuracy"
"""What the last line of a finished training has."""

DIGEST = "digest"
"""In that line, last: the digest of all that stands before it in the file."""


@dataclass
class Journal:
    """The files of one training: `path`, JSON lines, the first of which says what is trained; and `state_path`."""

    path: Path
    state_path: Path
    settings: dict[str, Any]
    log_dir: Path | None = None
    lines: list[Record] = field(default_factory=list)
    _scalars: Callable[[Record], None] | None = None
    _begun: bool = False

    @staticmethod
    def beside(out: Path, settings: dict[str, Any], log_dir: Path | None = None) -> Journal:
        """The journal of the training that writes `out`: the same name with .jsonl and .state.safetensors."""
        return Journal(journal_beside(out), state_beside(out), settings, log_dir)

    def begin(self, *, force: bool) -> None:
        """Start anew, in the place of a training before it. `force`: events of one before may be added to.

        Raises `OutputError`, and `RecipeError` for the folder of events.
        """
        check_log_dir(self.log_dir, force=force)
        self.state_path.unlink(missing_ok=True)
        self._rewrite()
        self._begun = True

    @contextmanager
    def unless_empty(self) -> Iterator[None]:
        """Remove the journal again when what runs inside fails before there is anything to continue, as a refusal does."""
        try:
            yield
        except BaseException:
            if self._begun and not self.lines and not self.state_path.exists():
                self.path.unlink(missing_ok=True)
            raise

    def resume(self) -> bytes | None:
        """The kept state, and the lines cut back to it; None when nothing was kept. See `finished`.

        Raises `ResumeError` when there is no training here, or one of other settings; `OutputError`, `RecipeError` for the
        folder of events.
        """
        if not self.path.exists():
            raise ResumeError(f"{self.path}: no training to continue here; leave {option('resume')} out to begin one")
        check_log_dir(self.log_dir, force=True)
        found = self._read_lines()
        try:
            data = self.state_path.read_bytes()
        except FileNotFoundError:
            data = None
        except OSError as e:
            raise ResumeError(f"{self.state_path}: cannot be read: {reason_of(e)}") from e
        if data is not None:
            found = self._up_to_state(found, data)
        elif not (found and DONE in found[-1]):
            found = []
        elif found[-1].get(DIGEST) != self._digest(found[:-1], found[-1]):
            raise ResumeError(f"{self.path}: damaged; {option('force')} starts the training again")
        self.lines = found
        self._rewrite()
        return data

    @property
    def finished(self) -> Record | None:
        """The last line of a training that came to its end."""
        return self.lines[-1] if self.lines and DONE in self.lines[-1] else None

    def append(self, record: Record) -> None:
        """Add one line, at once, and its numbers to TensorBoard's. Raises `OutputError`."""
        plain: Record = {key: _plain(value) for key, value in record.items()}
        if DONE in plain:
            plain[DIGEST] = self._digest(self.lines, plain)
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(plain, allow_nan=False) + "\n")
        except OSError as e:
            raise OutputError(f"{self.path}: cannot be written: {reason_of(e)}") from e
        self.lines.append(plain)
        if self._scalars is not None:
            self._scalars(plain)

    def keep(self, state: TrainingState) -> None:
        """Write the state, with how many lines it comes after. Raises `OutputError`."""
        from pai_cli.training.state import write_state

        state.facts |= {"lines": len(self.lines), DIGEST: self._digest(self.lines)}
        flush_file(self.path)
        write_state(self.state_path, state, self.settings)

    def open_events(self) -> Callable[[], None]:
        """Begin to write TensorBoard's events, those of the lines there are first; gives what closes them."""
        if self.log_dir is None:
            return lambda: None
        from torch.utils.tensorboard import SummaryWriter

        try:
            writer = SummaryWriter(str(self.log_dir), purge_step=0)
        except OSError as e:
            raise OutputError(f"{option('log_dir', self.log_dir)}: cannot be written: {reason_of(e)}") from e

        latest = 0

        def write(record: Record) -> None:
            nonlocal latest
            ended = DONE in record  # the last line has no step, and repeats the best epoch's numbers
            step = record.get("step")
            latest = step if isinstance(step, int) and step else latest
            for key, value in record.items():
                number = isinstance(value, (int, float)) and not isinstance(value, bool)
                if number and (key.startswith("test_") if ended else key not in ("step", "seconds")):
                    writer.add_scalar(key, value, latest)

        for record in self.lines:
            write(record)
        self._scalars = write
        close: Callable[[], None] = writer.close
        return close

    def close(self) -> None:
        """Remove the state: the training is finished."""
        flush_file(self.path)
        self.state_path.unlink(missing_ok=True)

    def _first_line(self) -> str:
        return json.dumps({"training": VERSION, **self.settings})

    def _digest(self, lines: list[Record], last: Record | None = None) -> str:
        """Of the first line and these, and of a last one without its own digest."""
        told = [*lines, *([] if last is None else [{key: last[key] for key in last if key != DIGEST}])]
        return Chain([self._first_line(), *map(json.dumps, told)]).after(len(told) + 1)

    def _up_to_state(self, found: list[Record], data: bytes) -> list[Record]:
        """The lines that a state comes after. Raises `ResumeError` when they are not those that it was written with."""
        try:
            facts = json.loads(unsealed(data)["facts"])
            count, digest = facts["lines"], facts[DIGEST]
            if type(count) is not int or count < 0:
                raise ValueError("the number of lines")
        except (ValueError, KeyError, TypeError, RecursionError) as e:
            raise damaged(self.state_path) from e
        if len(found) < count or self._digest(found[:count]) != digest:
            raise ResumeError(
                f"{self.path}: is not as it was when {self.state_path.name} was written; {option('force')} starts the "
                "training again"
            )
        return found[:count]

    def _rewrite(self) -> None:
        text = "".join(line + "\n" for line in (self._first_line(), *map(json.dumps, self.lines))).encode()

        def write(stream: BinaryIO) -> None:
            stream.write(text)

        write_atomically(self.path, write, force=True)

    def _read_lines(self) -> list[Record]:
        """The lines after the first that are whole, the first compared with the settings."""
        try:
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as e:
            raise ResumeError(f"{self.path}: cannot be read: {reason_of(e)}") from e
        first = _parsed(lines[0]) if lines else None
        if first is None or "training" not in first:
            raise ResumeError(
                f"{self.path}: is not the journal of a training; give another {option('output')}, or remove it"
            )
        if first["training"] != VERSION:
            raise ResumeError(
                f"{self.path}: was written by another version of pai; {option('force')} starts the training again"
            )
        for key, value in self.settings.items():
            if first.get(key) != value:
                raise ResumeError(
                    f"{self.path}: that training had {key} {first.get(key)}, this one has {value}; give the same, or "
                    f"begin again with {option('force')} instead of {option('resume')}"
                )
        found: list[Record] = []
        for line in lines[1:]:
            record = _parsed(line)
            if record is None:  # the crash came in the middle of it
                break
            found.append(record)
        return found


def check_log_dir(path: Path | None, *, force: bool) -> None:
    """Refuse, before any work, a folder for TensorBoard that could not be written, or has events of another run.

    Raises `RecipeError` without the package, `OutputError`.
    """
    if path is None:
        return
    if find_spec("tensorboard") is None:
        raise RecipeError(f"{option('log_dir')}: needs tensorboard; pip install pai-cli[tensorboard]")
    if spelled(str(path)) != str(path):
        raise OutputError(
            f"{option('log_dir', path)}: tensorboard takes no name that is not UTF-8; name another folder"
        )
    if path.exists() and not path.is_dir():
        raise OutputError(f"{option('log_dir', path)}: is a file; name a folder")
    if not force and path.is_dir() and any(path.glob("events.out.tfevents.*")):
        raise OutputError(
            f"{option('log_dir', path)}: has events of a training already; name another folder, or give "
            f"{option('force')}"
        )


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _plain(value: Any) -> Any:
    """None for a number that JSON has no word for."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
