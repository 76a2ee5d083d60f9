"""Calibration text: the same tokens from strings, files and saved data sets; drawn by the seed; and every fault told."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import languages
import numpy as np
import pytest

from pai_cli.data import text as reading
from pai_cli.data.text import Wanted, calibration, documents
from pai_cli.errors import DataError, MethodOptionError

pytest.importorskip("tokenizers")

DOCUMENTS = [part for part in languages.text()[:5_000].split("\n\n") if part.strip()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    languages.tokenizer().save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def all_tokens() -> list[int]:
    encode = languages.tokenizer().encode
    return [token for document in DOCUMENTS for token in encode(document).ids]


def test_all_of_the_text_in_order(folder: Path) -> None:
    ids = all_tokens()
    found = calibration(DOCUMENTS, folder, Wanted(10_000, 32), 0)
    assert found.tokens.tolist() == [ids[i : i + 32] for i in range(0, len(ids) // 32 * 32, 32)]
    assert not found.drawn
    assert found.remarks == (f"the text is short: {len(ids) // 32} of the 10,000 sequences that were wanted",)
    assert str(found) == f"the text: {len(ids) // 32} sequences of 32 tokens"
    assert str(calibration(DOCUMENTS, folder, Wanted(1, 32), 0)) == "the text: 1 sequence of 32 tokens"


def test_the_seed_draws_sequences_that_do_not_overlap(folder: Path) -> None:
    whole = calibration(DOCUMENTS, folder, Wanted(10_000, 32), 0).tokens.tolist()
    drawn = [calibration(DOCUMENTS, folder, Wanted(9, 32), seed) for seed in (0, 0, 1)]
    assert np.array_equal(drawn[0].tokens, drawn[1].tokens)
    assert not np.array_equal(drawn[0].tokens, drawn[2].tokens)
    for one in drawn:
        places = [whole.index(row) for row in one.tokens.tolist()]
        assert len(places) == len(set(places)) == 9
        assert places == sorted(places)
        assert one.drawn
        assert one.remarks == ()


def test_every_kind_of_text_gives_the_same_tokens(folder: Path) -> None:
    datasets = pytest.importorskip("datasets")
    (folder / "t.jsonl").write_text("\n".join(json.dumps({"text": one, "n": 1}) for one in DOCUMENTS) + "\n\n")
    saved = datasets.Dataset.from_dict({"text": DOCUMENTS, "label": [0] * len(DOCUMENTS)})
    saved.save_to_disk(folder / "one")
    datasets.DatasetDict({"train": saved, "test": saved.select([0])}).save_to_disk(folder / "both")
    wanted = calibration(DOCUMENTS, folder, Wanted(5, 16), 3).tokens
    for name in ("t.jsonl", "one", "both"):
        assert np.array_equal(calibration(folder / name, folder, Wanted(5, 16), 3).tokens, wanted), name
    (folder / "t.txt").write_text("".join(DOCUMENTS), encoding="utf-8-sig")
    assert [*documents(folder / "t.txt")] == ["".join(DOCUMENTS)]


def test_long_texts_are_cut_at_lines_and_at_the_most_that_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "AT_ONCE", 50)
    pieces = [*reading._pieces("a line\n" * 20 + "x" * 120)]
    assert "".join(pieces) == "a line\n" * 20 + "x" * 120
    assert [len(piece) for piece in pieces] == [49, 49, 42, 50, 50, 20]
    monkeypatch.setattr(reading, "MOST_CHARACTERS", 600)
    found = calibration(DOCUMENTS, folder, Wanted(10_000, 8), 0)
    assert found.remarks[0] == "of the text the first 600 characters are read"


def test_as_published_or_as_the_model_allows() -> None:
    assert Wanted().tokens == 2048
    assert Wanted(positions=4096).tokens == 2048
    assert Wanted(positions=512).tokens == 512
    assert Wanted(length=100, positions=512).tokens == 100
    with pytest.raises(
        MethodOptionError, match=r"^sequence_length=513: the model has 512 positions; give at most that$"
    ):
        Wanted(length=513, positions=512)
    every: tuple[Any, ...] = (0, -1, 2.5, True)
    for wrong in every:
        with pytest.raises(MethodOptionError, match=rf"^sequences={wrong}: must be a whole number, 1 or more$"):
            Wanted(sequences=wrong)
        with pytest.raises(MethodOptionError, match=rf"^sequence_length={wrong}: must be a whole number, 1 or more$"):
            Wanted(length=wrong)


def test_sequences_shorter_than_published_are_told(folder: Path) -> None:
    found = calibration(DOCUMENTS, folder, Wanted(2, positions=16), 0)
    assert found.remarks == ("sequences are 16 tokens long, the positions that the model has, not 2,048",)


FAULTS = {
    "no text": ("t.txt", b"", "the file is empty; copy it again"),
    "no line": ("t.jsonl", b'{"text": "a"}\n{"text": \n', "line 2 is no JSON ("),
    "no field": (
        "t.jsonl",
        b'{"text": "a"}\n["text"]\n',
        "line 2 has no 'text' that is a string; give a line a document",
    ),
    "no string": ("t.jsonl", b'{"text": 3}\n', "line 1 has no 'text' that is a string"),
    "half a pair": ("t.jsonl", b'{"text": "a"}\n{"text": "b\\ud800"}\n', "document 2 has half of a surrogate pair"),
    "no UTF-8": ("t.txt", b"caf\xe9 \xff", "is no UTF-8 text"),
    "short": (
        "t.txt",
        b"a few",
        "tokens, and one sequence takes 32; give a longer text, or a smaller sequence_length=",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_texts(folder: Path, fault: str) -> None:
    name, data, line = FAULTS[fault]
    (folder / name).write_bytes(data)
    with pytest.raises(DataError) as caught:
        calibration(folder / name, folder, Wanted(2, 32), 0)
    assert str(caught.value).startswith(f"{folder / name}: ")
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_faults_of_folders_of_texts(folder: Path) -> None:
    datasets = pytest.importorskip("datasets")
    (folder / "empty").mkdir()
    datasets.Dataset.from_dict({"words": ["a"]}).save_to_disk(folder / "words")
    datasets.Dataset.from_dict({"text": ["a", None]}).save_to_disk(folder / "holes")
    datasets.DatasetDict({"test": datasets.Dataset.from_dict({"text": ["a"]})}).save_to_disk(folder / "test")
    for name, line in (
        ("empty", "is no data set that save_to_disk wrote; give that, or a file of text"),
        ("words", "no column called text; its columns are words"),
        ("holes", "example 1 has a text that is no string; save it again"),
        ("test", "no split called train; there are test"),
    ):
        with pytest.raises(DataError) as caught:
            calibration(folder / name, folder, Wanted(2, 32), 0)
        assert str(caught.value) == f"{folder / name}: {line}"
    with pytest.raises(DataError, match=r"none\.txt: no such file$"):
        calibration(folder / "none.txt", folder, Wanted(2, 32), 0)
    os.mkfifo(folder / "pipe")
    with pytest.raises(DataError, match="is a device or a pipe; give a regular file"):
        calibration(folder / "pipe", folder, Wanted(2, 32), 0)


def test_faults_of_tokenizers(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no tokenizer\.json, which makes tokens of the text; copy it from where"):
        calibration(DOCUMENTS, tmp_path, Wanted(2, 32), 0)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match=r"tokenizer\.json: is no tokenizer \(.*\); copy it again$"):
        calibration(DOCUMENTS, tmp_path, Wanted(2, 32), 0)
    languages.tokenizer().save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(
        DataError, match=r"has a token \d\d, and the model 10 of them; copy the tokenizer that belongs to it"
    ):
        calibration(DOCUMENTS, tmp_path, Wanted(2, 32, vocabulary=10), 0)


def test_a_tokenizer_that_cuts_and_pads_does_neither(folder: Path) -> None:
    made = languages.tokenizer()
    made.enable_truncation(8)
    made.enable_padding(length=64)
    made.save(str(folder / "tokenizer.json"))
    assert (
        calibration(DOCUMENTS, folder, Wanted(10_000, 32), 0).tokens.reshape(-1).tolist()
        == all_tokens()[: -(len(all_tokens()) % 32) or None]
    )
