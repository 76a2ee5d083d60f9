"""A run that can be continued: the rows that it has written so far, beside them the state that it goes on from.

Rows are JSON lines, the first of which has the settings; a run without rows has its state alone. The state is one
safetensors file, replaced whole, after the rows that it comes after are on the disk: what a crash leaves behind it is cut
off. It tells its own digest, the settings, and the digest of its rows; what does not fit is refused, by name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from pai_cli.errors import OutputError, PaiError, ResumeError
from pai_cli.files.atomic import flush_file, write_bytes
from pai_cli.files.messages import some_names
from pai_cli.files.sealed import Chain, sealed, told_version, unsealed
from pai_cli.printable import reason_of
from pai_cli.spelling import option
from pai_cli.telling import note

if TYPE_CHECKING:
    from pai_cli.files.tables import Record

VERSION = 6
DIGEST = "digest"
"""What the last row of a finished run has, last: the digest of all that stands before it in the file."""

SUFFIX = ".safetensors"
STATE = ".state.safetensors"
ROWS = ".jsonl"

SHOWN = 6
"""How many of the settings that differ are told."""

MOST_BYTES = 2**26  # of a header or a first line that are looked into: more has no run of ours


@dataclass(frozen=True)
class Resumable:
    """A command whose runs can be continued, what it calls one and its rows, and the key of its files' version."""

    command: str
    noun: str
    rows: str
    key: str


PRUNE = Resumable("pai prune", "training", "journal", "pruning")
SAMPLE = Resumable("pai sample", "search", "trajectory", "trajectory")
TRAIN = Resumable("pai train", "training", "journal", "training")


@dataclass(frozen=True)
class Kept:
    """What a run goes on from: facts as JSON has them, and `data`, a safetensors file; they come after so many rows."""

    data: bytes
    facts: dict[str, Any]
    rows: int
    digest: str


@dataclass
class Journal:
    """The files of one run of a command: its rows in `path`, None where it writes none, and its state.

    `settings`: what must be the same for the run to be continued, as JSON can have it. `finished`: the last row of a run
    that has come to its end.
    """

    run: Resumable
    settings: dict[str, Any]
    state_path: Path
    path: Path | None = None
    finished: Record | None = None
    _chain: Chain = field(init=False)
    _begun: bool = False

    def __post_init__(self) -> None:
        self.settings = json.loads(json.dumps(self.settings))  # as they come back from a file, tuples as lists
        self._chain = Chain([self._first_line()])

    def begin(self, *, force: bool = True) -> None:
        """Start anew, with `force` in the place of a run before it. Raises `OutputError`, also where another process has
        begun one here since the outputs were looked at, as two jobs of one minute do.
        """
        if not force and self.path is not None and not _is_empty(self.path):
            try:
                write_bytes(self.path, self._first_line() + b"\n", force=False)
            except OutputError as e:
                if not self.path.exists():
                    raise
                told = f"another process has begun a {self.run.noun} here; give another name with {option('output')}"
                raise OutputError(f"{self.path}: {told}") from e
        self.state_path.unlink(missing_ok=True)
        self._rewrite([self._first_line()])
        self._begun = True

    def opened(self, check: Callable[[], None], *, resume: bool, force: bool = True) -> Kept | None:
        """Begin, with `force` as `begin` has it, or `resume`, which gives what the run goes on from.

        `check` refuses what else the run would write. It comes after what differs from the run that is continued was told,
        for that is why the outputs there are not its own, and before anything is begun. Raises what `resume` and `check`
        raise.
        """
        kept = self.resume() if resume else None
        check()
        if not resume:
            self.begin(force=force)
        return kept

    def resume(self) -> Kept | None:
        """What the run goes on from, its rows cut back to that; None when nothing was kept, or it is `finished`.

        Raises `ResumeError` when there is no run here, one of other settings, or files that are damaged; `OutputError`.
        """
        first = self.path or self.state_path
        if not first.exists():
            raise ResumeError(
                f"{first}: no {self.run.noun} to continue here; leave {option('resume')} out to begin one"
            )
        lines, kept = self._lines(), self._kept()
        if kept is not None:
            seen = lines[: 1 + kept.rows]
            if len(seen) <= kept.rows or Chain(seen).after(1 + kept.rows) != kept.digest:
                raise ResumeError(f"{first}: is not as it was when {self.state_path.name} was written; {self._again}")
        else:
            self.finished = self._last_row(lines)
            seen = lines[:1] if self.finished is None else lines
        self._rewrite(seen)
        return kept

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self._chain) - 1

    def read(self) -> Iterator[Record]:
        """The rows, in order. Raises `ResumeError` where another process has changed the file."""
        for line in self._lines()[1 : 1 + self.rows]:
            row = _parsed(line)
            if row is None:
                raise ResumeError(f"{self.path}: damaged; {self._again}")
            yield row

    def append(self, record: Record) -> Record:
        """Add one row, at once; gives it as it stands there, None for what is no finite number. Raises `OutputError`."""
        assert self.path is not None
        plain: Record = {key: _plain(value) for key, value in record.items()}
        line = json.dumps(plain, allow_nan=False)
        try:
            with self.path.open("ab") as stream:
                stream.write(line.encode() + b"\n")
        except OSError as e:
            raise OutputError(f"{self.path}: cannot be written: {reason_of(e)}") from e
        self._chain.add(line)
        return plain

    def keep(self, tensors: bytes, facts: Mapping[str, Any], rows: int | None = None) -> None:
        """Replace the state. `tensors`: a safetensors file; `rows`: how many it comes after, by default all there are.

        Raises `OutputError`.
        """
        after = self.rows if rows is None else rows
        told = {
            self.run.key: str(VERSION),
            "settings": json.dumps(self.settings, sort_keys=True),
            "facts": json.dumps(facts),
            "rows": str(after),
            "rows_digest": self._chain.after(1 + after),
        }
        data = sealed(tensors, told)
        self._flush()  # no state is on the disk without its rows, though the power fail
        write_bytes(self.state_path, data, force=True)

    def finish(self, record: Record) -> Record:
        """Add the last row of a run, as `append` does, and remove the state: nothing is to come after it."""
        last = {key: _plain(value) for key, value in record.items()}
        self.finished = self.append({**last, DIGEST: self._chain.with_one_more(json.dumps(last))})
        self.close()
        return self.finished

    def close(self) -> None:
        """Remove the state: all that was to be written is."""
        self._flush()
        self.state_path.unlink(missing_ok=True)

    @contextmanager
    def going(self, done: Callable[[], str] | None = None) -> Iterator[None]:
        """Where what runs inside is interrupted, say what is kept and how to go on.

        `done`: what to say of it. Where nothing is kept yet, as at a refusal, a journal that was begun goes too.
        """
        try:
            yield
        except BaseException as error:
            if self.state_path.exists():
                if isinstance(error, KeyboardInterrupt):
                    told = "what is done is kept" if done is None else done()
                    note(f"{self.state_path}: {told}; the same command with {option('resume')} goes on")
            elif self._begun and not self.rows and self.path is not None:
                self.path.unlink(missing_ok=True)
            raise

    def parsed(self, data: bytes) -> Kept:
        """What the bytes of a state file have. Raises `ResumeError` where they are damaged, or of other settings."""
        if told_version(data, self.run.key) not in (None, str(VERSION)):
            raise self._of_another_version(self.state_path)
        with self.intact():
            told = unsealed(data)
            if self.run.key not in told:
                raise ValueError("it is of another command")
            settings, facts = json.loads(told["settings"]), json.loads(told["facts"])
            kept = Kept(data, facts, int(told["rows"]), told["rows_digest"])
            if not isinstance(settings, dict) or not isinstance(facts, dict) or kept.rows < 0:
                raise ValueError("what it tells is no state")
        self._check_settings(self.state_path, settings)
        return kept

    @contextmanager
    def intact(self) -> Iterator[None]:
        """Inside, what is stumbled over in the state is raised as `ResumeError`: it is damaged."""
        from safetensors import SafetensorError

        try:
            yield
        except PaiError:
            raise
        except KeyError as e:
            raise self._damaged(f"lacks {reason_of(e)}") from e
        except (SafetensorError, ValueError, TypeError, AttributeError, RuntimeError) as e:
            raise self._damaged(reason_of(e)) from e

    @property
    def _again(self) -> str:
        return f"{option('force')} starts the {self.run.noun} again"

    def _damaged(self, why: str) -> ResumeError:
        return ResumeError(f"{self.state_path}: damaged, or no state of a {self.run.noun} ({why}); {self._again}")

    def _of_another_version(self, path: Path) -> ResumeError:
        return ResumeError(f"{path}: was written by another version of pai; {self._again}")

    def _flush(self) -> None:
        if self.path is not None:
            flush_file(self.path)

    def _first_line(self) -> bytes:
        return json.dumps({self.run.key: VERSION, **self.settings}).encode()

    def _rewrite(self, lines: list[bytes]) -> None:
        if self.path is not None:
            write_bytes(self.path, b"".join(line + b"\n" for line in lines), force=True)
        self._chain = Chain(lines)

    def _lines(self) -> list[bytes]:
        """The lines that are whole, the first of which has the settings. Raises `ResumeError`."""
        if self.path is None:
            return [self._first_line()]
        lines = _content(self.path).split(b"\n")[:-1]  # one that a crash cut short is not among them
        first = _parsed(lines[0]) if lines else None
        if first is None or self.run.key not in first:
            told = f"is not the {self.run.rows} of a {self.run.noun}; give another name, or remove it"
            raise ResumeError(f"{self.path}: {told}")
        if first[self.run.key] != VERSION:
            raise self._of_another_version(self.path)
        self._check_settings(self.path, first)
        return [self._first_line(), *lines[1:]]

    def _kept(self) -> Kept | None:
        return self.parsed(_content(self.state_path)) if self.state_path.exists() else None

    def _last_row(self, lines: list[bytes]) -> Record | None:
        """The last row of a finished run; None of another. Raises `ResumeError` where that was not written so."""
        last = _parsed(lines[-1])
        if len(lines) == 1 or last is None or DIGEST not in last:
            return None
        told = {key: value for key, value in last.items() if key != DIGEST}
        if Chain(lines[:-1]).with_one_more(json.dumps(told)) != last[DIGEST]:
            raise ResumeError(f"{self.path}: damaged; {self._again}")
        return last

    def refuse_finished(self, path: Path, told: Mapping[str, str]) -> NoReturn:
        """Raise `ResumeError` for a run that has written `path`, which tells of it, with the settings that were others."""
        given = {key: value for key, value in self.settings.items() if type(value) in (int, float, str) and key in told}
        self._check_settings(path, self.settings | {key: told[key] for key in given if told[key] != str(given[key])})
        raise ResumeError(
            f"{path}: the {self.run.noun} that made it is finished; leave {option('resume')} out, and give "
            f"{option('force')} to make it again"
        )

    def _check_settings(self, path: Path, told: Mapping[str, Any]) -> None:
        """Raise `ResumeError` with every setting that differs: one may follow from another, as a pattern's density does.

        A digest says nothing to a person, so it is told only where nothing else differs.
        """
        keys = [key for key in dict.fromkeys((*self.settings, *told)) if key != self.run.key]
        differ = [key for key in keys if told.get(key) != self.settings.get(key)]
        if not differ:
            return
        differ = [key for key in differ if not key.endswith("sha256")] or differ
        had, has = (
            [f"{key} {'not given' if settings.get(key) is None else settings[key]}" for key in differ]
            for settings in (told, self.settings)
        )
        if len(differ) == 1 and self.settings.get(differ[0]) is not None:
            has = [str(self.settings[differ[0]])]
        raise ResumeError(
            f"{path}: that {self.run.noun} had {some_names(had, SHOWN)}{';' if differ[1:] else ','} this one has "
            f"{some_names(has, SHOWN)}; give the same, or begin again with {option('force')} instead of {option('resume')}"
        )


def _is_empty(path: Path) -> bool:
    """Whether a file is there that has nothing in it."""
    return path.exists() and not path.stat().st_size


def beside(run: Resumable, out: Path, settings: dict[str, Any]) -> Journal:
    """The journal of the run that writes `out`: X.jsonl and X.state.safetensors of X.safetensors."""
    return Journal(run, settings, state_beside(out), None if run is PRUNE else rows_beside(out))


def state_beside(path: Path, suffix: str = SUFFIX) -> Path:
    """The state of the run that writes `path`: X.state.safetensors of X.safetensors, or of X with another `suffix`."""
    return path.with_name(path.name.removesuffix(suffix) + STATE)


def rows_beside(out: Path) -> Path:
    """The rows of the run that writes `out`: X.jsonl of X.safetensors."""
    return out.with_name(out.name.removesuffix(SUFFIX) + ROWS)


def run_of(path: Path) -> Resumable | None:
    """Whose run a file is of, by how it begins; None for any other file."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as stream:
            start = stream.read(8)
            if start.startswith(b"{") and b"\0" not in start:  # else it is a length, of a state's header
                told = _parsed(start + stream.readline(MOST_BYTES)) or {}
            else:
                told = _metadata(start, stream)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return next((run for run in (PRUNE, SAMPLE, TRAIN) if str(told.get(run.key)).isdecimal()), None)


def tells(path: Path, facts: Mapping[str, str], *keys: str) -> bool:
    """Whether a safetensors file tells these facts of how it was made, and anything of `keys`: so that a run knows what it
    wrote itself.
    """
    told = told_by(path)
    return facts.items() <= told.items() and told.keys() >= set(keys)


def told_by(path: Path) -> dict[str, Any]:
    """What a safetensors file tells of how it was made; {} for any other, or none."""
    try:
        with path.open("rb") as stream:
            return _metadata(stream.read(8), stream)
    except (OSError, ValueError, RecursionError):
        return {}


def _metadata(length: bytes, stream: BinaryIO) -> dict[str, Any]:
    """What a safetensors file tells of itself, whose header is so long and comes next; {} where it is none."""
    size = int.from_bytes(length, "little")
    header = json.loads(stream.read(size)) if size <= MOST_BYTES else None
    told = header.get("__metadata__") if isinstance(header, dict) else None
    return told if isinstance(told, dict) else {}


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise ResumeError(f"{path}: cannot be read: {reason_of(e)}") from e


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _plain(value: Any) -> Any:
    """None for a number that JSON has no word for."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
