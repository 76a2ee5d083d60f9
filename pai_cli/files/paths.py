"""Which mask files a command line means: files, folders, and `-` for a list on standard input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TextIO

from pai_cli.errors import MaskError, PaiError, UntrustedPickleError, UsageError
from pai_cli.files.first_bytes import ENOUGH, check_start
from pai_cli.files.folders import file_of, is_model
from pai_cli.files.opening import why_unlisted
from pai_cli.files.ordering import file_order
from pai_cli.files.standard_input import STANDARD_INPUT, bytes_of, is_standard_input, kept, kept_as
from pai_cli.printable import reason_of
from pai_cli.spelling import option

SUFFIXES = (".safetensors", ".npz", ".pt", ".pth")
"""What a folder's masks may end with; a mask of any other name is given by name."""

SHOWN = 5  # names of other files that are told
RESULTS = (".jsonl", ".csv", ".tsv", ".json", ".html", ".svg", ".png", ".pdf")  # what is written beside masks: not told

Note = Callable[[str], None]


def mask_paths(given: Iterable[str], stdin: TextIO, note: Note, *, trust: bool = False) -> list[Path]:
    """The mask files that `given` names, each once, in order.

    A folder stands for the files in it, and in the folders below it, that are masks beyond doubt, of `pai`'s own and of
    other tools; the others are passed over with a `note`, and so are pruned networks without masks. The folder of a Hugging
    Face model is one such network. `-` reads one path a line from `stdin`, or paths with NUL between them, as `find -print0`
    writes them, or is the mask file that is there. A path that is named outright is taken as it is, so that its fault is
    told later. Raises `MaskError` when nothing is left, `UsageError` for standard input that is given twice.
    """
    found: Counter[Path] = Counter()
    for text in _with_one_input(given):
        if is_standard_input(text):
            found.update(_on_standard_input(stdin))
        elif is_model(Path(text)):
            found[file_of(Path(text))] += 1
        elif Path(text).is_dir():
            found.update(_masks_in(Path(text), note, trust=trust))
        else:
            found[Path(text)] += 1
    again = [path for path, times in found.items() if times > 1]
    if again:
        more = f" (and {len(again) - 1} more masks)" if len(again) > 1 else ""
        note(f"{again[0]}: is given {found[again[0]]} times{more}, and counts once")
    return list(found)


def _on_standard_input(stdin: TextIO) -> list[Path]:
    """The masks of a list, or the one mask that is there itself."""
    raw = bytes_of(stdin)
    mask = kept(raw)
    if mask is not None:
        return [mask]
    listed = _listed(raw, stdin)
    if not listed:
        raise MaskError("-: standard input lists no mask; give one path a line")
    check_start("-", "\n".join(listed[:8]).encode("utf-8", "surrogateescape")[:ENOUGH], MaskError)
    return [Path(line) for line in listed]


def graph_paths(given: Iterable[str], stdin: TextIO) -> list[Path]:
    """The lists of edges that `given` names, in order. `-` is one on standard input, or a list of the paths of several,
    whose first line is then a file. Raises `UsageError` where it is given twice.
    """
    found: list[Path] = []
    for text in _with_one_input(given):
        if not is_standard_input(text):
            found.append(Path(text))
            continue
        raw = bytes_of(stdin)
        listed = _listed(raw, stdin)
        found += map(Path, listed) if listed and _is_file(listed[0]) else [kept_as(".edges", raw)]
    return found


def _with_one_input(given: Iterable[str]) -> list[str]:
    texts = list(given)
    if sum(map(is_standard_input, texts)) > 1:
        raise UsageError(f"{STANDARD_INPUT} is standard input, which can be read once; give it once")
    return texts


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except (OSError, ValueError):  # too long for a name, or not what a name may be
        return False


def _listed(raw: bytes, stdin: TextIO) -> list[str]:
    """The paths of a list: between NULs as they are where there is one, else a line each without the spaces around it."""
    text = raw.decode(getattr(stdin, "encoding", None) or "utf-8", "surrogateescape")
    if "\0" in text:
        return [path for path in text.split("\0") if path]
    return [line.strip() for line in text.splitlines() if line.strip()]


def files_below(folder: Path, note: Note) -> Iterator[Path]:
    """Files of a folder, then those of the folders in it; links to folders and models' folders as they stand.

    A folder in it that cannot be read is passed over with a `note`.
    """
    every = [path for path in folder.iterdir() if not path.name.startswith(".")]
    every.sort(key=lambda path: (path.is_dir(), file_order(path.name)))
    for path in every:
        if path.is_dir() and not path.is_symlink() and not is_model(path):
            if why := _unreadable(path):
                note(f"{path}: {why}; the folder is left out")
            else:
                yield from files_below(path, note)
        else:
            yield path


def _unreadable(folder: Path) -> str:
    """Why a folder cannot be listed, or its files not be looked at; "" where both can."""
    try:
        for path in folder.iterdir():
            path.stat()
            break
    except FileNotFoundError:
        return ""  # a link to nothing, which is told by its own name
    except OSError as e:
        return reason_of(e)
    return ""


def _masks_in(folder: Path, note: Note, *, trust: bool) -> list[Path]:
    files = list(files_below(folder, note))
    masks = []
    times: Counter[str] = Counter()
    for path in (path for path in files if path.suffix in SUFFIXES and not path.is_dir()):
        reason = _left_out(path, trust=trust)
        if not reason:
            masks.append(path)
            continue
        times[reason] += 1
        if times[reason] <= SHOWN:
            note(f"{path}: {reason}; left out")
    for reason, count in times.items():
        if more := max(0, count - SHOWN):
            note(f"{folder}: the same of {more} more file{'s' * (more > 1)}: {reason}; left out")
    if not masks:
        raise MaskError(f"{folder}: no mask (*{', *'.join(SUFFIXES)}) in this folder, nor below it")
    _tell_passed_over(folder, files, note)
    return masks


def _tell_passed_over(folder: Path, files: Iterable[Path], note: Note) -> None:
    """One line on what is not looked into, however much of it there is."""
    others = [
        f"{path.relative_to(folder)}{'/' * path.is_dir()}"
        for path in files
        if path.is_dir() or path.suffix not in (*SUFFIXES, *RESULTS)
    ]
    if others:
        more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        note(f"{folder}: {', '.join(others[:SHOWN])}{more}: not *{', *'.join(SUFFIXES)} in this folder; left out")


def _left_out(path: Path, *, trust: bool) -> str:
    try:
        return why_unlisted(path, trust=trust)
    except UntrustedPickleError:
        return f"a pickle that needs {option('trust')}"
    except PaiError:
        return ""  # read again, and reported, where masks are read
