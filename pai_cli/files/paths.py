"""Which mask files a command line means: files, folders, and `-` for a list on standard input."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TextIO

from pai_cli.errors import MaskError, PaiError
from pai_cli.files.masks import MaskFile
from pai_cli.files.naming import file_order


def mask_paths(given: Iterable[str], stdin: TextIO, note: Callable[[str], None]) -> list[Path]:
    """The mask files that `given` names, each once, in order.

    A folder stands for the `.safetensors` files in it that are masks; the others are passed over with a `note`. `-` reads
    one path a line from `stdin`. A path that is named outright is taken as it is, so that its fault is told later, by name.
    Raises `MaskError` when nothing is left.
    """
    found: dict[Path, None] = {}
    for text in given:
        if text == "-":
            listed = [line.strip() for line in stdin if line.strip()]
            if not listed:
                raise MaskError("-: standard input lists no mask; give one path a line")
            found.update(dict.fromkeys(Path(line) for line in listed))
        elif Path(text).is_dir():
            found.update(dict.fromkeys(_masks_in(Path(text), note)))
        else:
            found[Path(text)] = None
    return list(found)


def _masks_in(folder: Path, note: Callable[[str], None]) -> list[Path]:
    files = sorted(folder.glob("*.safetensors"), key=lambda path: file_order(path.name))
    masks = [path for path in files if _is_mask(path, note)]
    if not masks:
        raise MaskError(f"{folder}: no mask (*.safetensors) in this folder")
    return masks


def _is_mask(path: Path, note: Callable[[str], None]) -> bool:
    try:
        other = MaskFile(path).looks_like_checkpoint
    except PaiError:
        return True  # read again, and reported, where masks are read
    if other:
        note(f"{path}: holds weights, not a mask; left out")
    return not other
