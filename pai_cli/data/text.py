"""Calibration text: read from a file or a saved data set, made tokens by a model's own tokenizer, drawn by the seed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pai_cli.data.extras import need
from pai_cli.data.huggingface import loaded_from
from pai_cli.data.layouts import HF_DICT, HF_ONE
from pai_cli.errors import DataError, MethodOptionError
from pai_cli.files.first_bytes import check_readable, no_text, open_text
from pai_cli.files.messages import one_line
from pai_cli.printable import reason_of
from pai_cli.random import generator_for
from pai_cli.spelling import option

TOKENIZER = "tokenizer.json"
SEQUENCES, LENGTH = 128, 2048
"""Of the published runs of Wanda and SparseGPT."""

MOST_CHARACTERS = 2**25
"""Of a text, its first so many are read: over thirty times what the published runs take."""

AT_ONCE = 2**16  # characters that are made tokens together, up to the end of a line
FIELD = "text"


@dataclass(frozen=True)
class Calibration:
    """Sequences of tokens, `tokens` (sequences, length), int64, from the text called `name`.

    `drawn`: whether the seed chose them among more. `remarks`: what a person should know of how they came about.
    """

    name: str
    tokens: NDArray[np.int64]
    drawn: bool
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        """What is used, in words."""
        count, length = self.tokens.shape
        return f"{self.name}: {count:,} {'sequence' if count == 1 else 'sequences'} of {length:,} tokens"


@dataclass(frozen=True)
class Wanted:
    """How many sequences, of how many tokens each, are asked for; None leaves it to what is published and to the model.

    `vocabulary`, `positions`: how many tokens and positions the model knows, None where it does not say. Raises
    `MethodOptionError` for a number below 1, and for more positions than there are.
    """

    sequences: int | None = None
    length: int | None = None
    vocabulary: int | None = None
    positions: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("sequences", self.sequences), ("sequence_length", self.length)):
            if value is not None and (type(value) is not int or value < 1):
                raise MethodOptionError(f"{option(name, value)}: must be a whole number, 1 or more")
        if self.length is not None and self.positions is not None and self.length > self.positions:
            raise MethodOptionError(
                f"{option('sequence_length', self.length)}: the model has {self.positions:,} positions; give at most that"
            )

    @property
    def tokens(self) -> int:
        """The length of a sequence."""
        return self.length or min(LENGTH, self.positions or LENGTH)


def calibration(text: Path | Sequence[str], folder: Path, wanted: Wanted, seed: int) -> Calibration:
    """Sequences of a text by the tokenizer of a model's folder.

    All of the text is made tokens, document after document, without special ones, and cut into sequences that do not
    overlap; the seed draws as many as are wanted, in the order of the text. `text`: see `documents`. Raises `DataError`.
    """
    name = "the text" if isinstance(text, Sequence) else str(text)
    read = _Read(text)
    tokens = np.concatenate([np.zeros(0, np.int64), *_made_tokens(read, _tokenizer(folder), name)])
    if wanted.vocabulary is not None and tokens.size and tokens.max() >= wanted.vocabulary:
        raise DataError(
            f"{folder / TOKENIZER}: has a token {int(tokens.max()):,}, and the model {wanted.vocabulary:,} of them; copy "
            "the tokenizer that belongs to it"
        )
    length, count = wanted.tokens, wanted.sequences or SEQUENCES
    there = tokens.size // length
    if not there:
        raise DataError(
            f"{name}: has {tokens.size:,} tokens, and one sequence takes {length:,}; give a longer text, or a smaller "
            f"{option('sequence_length')}"
        )
    pieces = tokens[: there * length].reshape(there, length)
    chosen = np.arange(there)
    if there > count:
        chosen = np.sort(generator_for(seed, "calibration text").choice(there, count, replace=False))
    return Calibration(name, pieces[chosen], there > count, _remarks(read, wanted, there, count))


def _remarks(read: _Read, wanted: Wanted, there: int, count: int) -> tuple[str, ...]:
    remarks = []
    if read.cut:
        remarks.append(f"of the text the first {MOST_CHARACTERS:,} characters are read")
    if wanted.length is None and wanted.tokens < LENGTH:
        remarks.append(f"sequences are {wanted.tokens:,} tokens long, the positions that the model has, not {LENGTH:,}")
    if there < count:
        remarks.append(f"the text is short: {there:,} of the {count:,} sequences that were wanted")
    return tuple(remarks)


class _Read:
    """The documents of a text, up to the most that is read; `cut`: whether there was more."""

    def __init__(self, text: Path | Sequence[str]):
        self._text = text
        self.cut = False

    def __iter__(self) -> Iterator[str]:
        left = MOST_CHARACTERS
        for document in documents(self._text):
            if len(document) > left:
                self.cut = True
                yield document[:left]
                return
            left -= len(document)
            yield document


def documents(text: Path | Sequence[str]) -> Iterator[str]:
    """The documents of a text: strings; of a `.jsonl` file the field `text` of each line; of a folder that `save_to_disk` of
    the package `datasets` wrote its column `text`; of any other file, all of it as UTF-8.

    Raises `DataError`.
    """
    if not isinstance(text, Path):
        yield from text
        return
    if text.is_dir():
        yield from _saved(text)
        return
    check_readable(text, DataError)
    try:
        with open_text(text, DataError) as stream:
            if text.suffix in (".jsonl", ".ndjson"):
                yield from _of_lines(text, stream)
            else:
                yield stream.read(MOST_CHARACTERS + 1)
    except UnicodeDecodeError as e:
        raise DataError(f"{text}: is {no_text(text)}; save it as UTF-8") from e
    except OSError as e:
        raise DataError(f"{text}: cannot be read: {reason_of(e)}") from e


def _of_lines(path: Path, lines: Iterable[str]) -> Iterator[str]:
    remedy = f'give a line a document, such as {{"{FIELD}": "..."}}'
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            held: Any = json.loads(line)
        except (ValueError, RecursionError) as e:
            raise DataError(f"{path}: line {number} is no JSON ({reason_of(e)}); {remedy}") from e
        document = held.get(FIELD) if isinstance(held, dict) else None
        if not isinstance(document, str):
            raise DataError(f"{path}: line {number} has no {FIELD!r} that is a string; {remedy}")
        yield document


def _saved(folder: Path) -> Iterator[str]:
    """The column `text` of a saved `Dataset`, or of the split `train` of a saved `DatasetDict`."""
    if not any((folder / name).is_file() for name in (HF_ONE, HF_DICT)):
        raise DataError(f"{folder}: is no data set that save_to_disk wrote; give that, or a file of text")
    rows, _ = loaded_from(folder)
    if (folder / HF_DICT).is_file():
        if "train" not in rows:
            raise DataError(f"{folder}: no split called train; there are {', '.join(rows) or 'none'}")
        rows = rows["train"]
    if FIELD not in rows.features:
        raise DataError(f"{folder}: no column called {FIELD}; its columns are {', '.join(rows.features) or 'none'}")
    for number, row in enumerate(rows.with_format(None).select_columns([FIELD])):
        if not isinstance(row[FIELD], str):
            raise DataError(f"{folder}: example {number} has a {FIELD} that is no string; save it again")
        yield row[FIELD]


def _tokenizer(folder: Path) -> Any:
    """The folder's own tokenizer, which is data: nothing of the folder is run."""
    path = folder / TOKENIZER
    if not path.is_file():
        raise DataError(
            f"{folder}: has no {TOKENIZER}, which makes tokens of the text; copy it from where the model is from, or save "
            "the tokenizer there with save_pretrained"
        )
    tokenizers = need("tokenizers", "tokenizers", "hf", str(path))
    try:
        found = tokenizers.Tokenizer.from_file(str(path))
    except Exception as e:  # the package raises nothing narrower
        raise DataError(f"{path}: is no tokenizer ({one_line(e)}); copy it again") from e
    found.no_padding()
    found.no_truncation()
    return found


def _made_tokens(texts: Iterable[str], tokenizer: Any, name: str) -> Iterator[NDArray[np.int64]]:
    for number, text in enumerate(texts, start=1):
        for piece in _pieces(text):
            try:
                found = tokenizer.encode(piece, add_special_tokens=False)
            except TypeError as e:  # JSON can spell half of a surrogate pair, which no UTF-8 has
                raise DataError(
                    f"{name}: document {number} has half of a surrogate pair, which is no character; take it out"
                ) from e
            yield np.array(found.ids, np.int64)


def _pieces(text: str) -> Iterator[str]:
    """A text in pieces that end with a line, where its lines are not too long."""
    start = 0
    while start < len(text):
        stop = min(start + AT_ONCE, len(text))
        if stop < len(text) and (line := text.rfind("\n", start, stop)) > start:
            stop = line + 1
        yield text[start:stop]
        start = stop
