"""Names that files and people give, however hostile, are shown as printable lines: by every command, in every format."""

from __future__ import annotations

import ast
import io
import os
import pickle
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from conftest import CHARACTERS, ROOT, SAMPLES, Done, Pai, random_mask, run_pai, save_mask
from forked import Call, Ended, run_each
from hostile import (
    EVERYTHING,
    NAMES,
    SURROGATE,
    as_file,
    hostile_arrays,
    hostile_mask,
    page_is_safe,
    picture_is_safe,
    rows_of,
    shown_well,
)
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from pai_cli import errors
from pai_cli.app import app
from pai_cli.display import console, progress
from pai_cli.errors import PaiError
from pai_cli.files.foreign.write import write_npz
from pai_cli.files.masks import MaskFile
from pai_cli.files.messages import one_line
from pai_cli.files.tables import FORMULA, as_cell
from pai_cli.printable import LONGEST_LINE, LONGEST_WORD, as_line, printable
from pai_cli.ranking.accuracy import Run, matched

KINDS = pytest.mark.parametrize("kind", ["table", "csv", "tsv", "json", "jsonl"])
OURS = ("--no-store", "--jobs", 1)
ANY_TEXT = st.text(CHARACTERS) | st.sampled_from(NAMES) | st.lists(st.sampled_from(NAMES)).map("".join)


# --- the one function


@given(ANY_TEXT, ANY_TEXT)
def test_a_line_is_printable_bounded_and_stays_as_it_is(text: str, other: str) -> None:
    line = as_line(text)
    assert line.isprintable()
    assert len(line) <= LONGEST_LINE
    assert as_line(line) == line
    assert all(len(word) <= LONGEST_WORD for word in re.split("[ /]", as_line(f"{line}: {as_line(other)}")))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("plain, 漢字 and e\u0301", "plain, 漢字 and e\u0301"),
        ("a\x1b[31m\r\n\x9b", "a\\x1b[31m\\r\\n\\x9b"),
        ("\u202ea\u2066\u200b\u2028\ud800", "\\u202ea\\u2066\\u200b\\u2028\\ud800"),
        ("", ""),
        ("x" * 200, "x" * 200),
        (f"m: layer '{'x' * 201}': give y", f"m: layer '{'x' * 78}…{'x' * 78}': give y"),
        ("/very/long/path" * 50, "/very/long/path" * 50),
        ("b" + "a " * 600 + "c", "b" + "a " * 249 + "…" + " a" * 249 + " c"),
    ],
    ids=["plain", "control", "marks", "empty", "long", "longer", "path", "line"],
)
def test_what_a_line_looks_like(text: str, wanted: str) -> None:
    assert as_line(text) == wanted


def test_a_huge_name_takes_no_time_and_leaves_the_remedy() -> None:
    begin = time.process_time()
    line = as_line(f"m.pt: layer {'x' * 50_000_000 + chr(27)} is not there; leave --layers out")
    assert time.process_time() - begin < 1
    assert line.startswith("m.pt: layer xxx")
    assert line.endswith("\\x1b is not there; leave --layers out")


ERRORS = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, PaiError)]


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_is_one_line_and_crosses_processes(kind: type[PaiError]) -> None:
    error = kind(f"{EVERYTHING}\n{'x' * 9999}: give another")
    assert str(error).isprintable()
    assert str(error).endswith("x: give another")
    assert len(str(error)) <= LONGEST_LINE
    copied = pickle.loads(pickle.dumps(error))
    assert (type(copied), str(copied)) == (kind, str(error))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("\x1b[31mred\x1b[0m. ", "ValueError: red"),
        ("name 'a\x1b]0;x\x07' is\nmany lines", "ValueError: name 'a\\x1b]0;x\\x07' is"),
        ("\n \n", "ValueError"),
        ("x" * 999, f"ValueError: {'x' * 79}…{'x' * 80}"),
    ],
)
def test_what_other_libraries_say(text: str, wanted: str) -> None:
    assert one_line(ValueError(text)) == wanted


# --- cells of CSV and TSV


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("+a", "'+a"),
        ("-a", "'-a"),
        ("@a", "'@a"),
        ("＝a", "'＝a"),
        ("\ta", "\\ta"),
        ("\r=a", "\\r=a"),
        ("a\x1b\nb", "a\\x1b\\nb"),
        ("-0.5", "-0.5"),
        ("+1e3", "+1e3"),
        ("-", "-"),
        ("", ""),
        ("a=b", "a=b"),
        ("'=a", "'=a"),
    ],
)
def test_what_a_cell_looks_like(text: str, wanted: str) -> None:
    assert as_cell(text) == wanted


@given(ANY_TEXT)
def test_a_cell_stays_as_it_is_and_runs_nothing(text: str) -> None:
    cell = as_cell(text)
    assert as_cell(cell) == cell
    assert cell.isprintable()
    assert cell[:1] not in FORMULA or len(cell) < 2 or re.fullmatch(r"[+-][\w.+-]+", cell)


def test_names_are_matched_as_a_table_has_them() -> None:
    names = ["m/=a\x1b.npz", "m/-b.npz"]
    runs = [Run(2, as_cell(names[0]), "", "", 0.5), Run(3, as_cell("-b.npz"), "", "", 0.6), Run(4, "-b", "", "", 0.7)]
    found = matched(names, runs, "t.csv", lambda _: None)
    assert {name: len(own[""]) for name, own in found.items()} == {names[0]: 1, names[1]: 2}


def test_names_that_a_table_has_alike_are_told() -> None:
    with pytest.raises(errors.TableError, match=r"could be a\\x1b, a\\x1b"):
        matched(["a\x1b", "a\\x1b"], [Run(2, "a\\x1b", "", "", 0.5)], "t.csv", lambda _: None)


# --- names in masks


@pytest.fixture(scope="module")
def mask(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mask of hostile names; only to be read."""
    return hostile_mask(tmp_path_factory.mktemp("hostile") / f"{as_file(EVERYTHING)}.safetensors")


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        *((kind, ()) for kind in ("table", "csv", "tsv", "json", "jsonl")),
        *((kind, ("--summary",)) for kind in ("table", "csv", "json")),
        *((kind, ("--layers", "*\x1b*")) for kind in ("table", "csv", "json")),
        ("table", ("--layers", "*x*")),
    ],
)
def test_analyze(mask: Path, kind: str, more: tuple[str, ...]) -> None:
    done = run_pai("analyze", mask, "--format", kind, *OURS, *more)
    assert done.status == 0
    shown_well(done, kind)
    found = rows_of(done, kind)
    if kind != "table" and not more:
        exact = kind.startswith("json")
        assert [row["layer"] for row in found[:-1]] == [name if exact else as_cell(name) for name in NAMES]


def test_analyze_pictures(mask: Path, tmp_path: Path) -> None:
    few = [hostile_mask(tmp_path / as_file(f"<script>alert({at})</script>$\\frac"), NAMES[:5], at) for at in range(2)]
    for suffix, masks in (("svg", (mask,)), ("pdf", few)):
        page = ("--report", tmp_path / "r.html") if suffix == "svg" else ()
        done = run_pai("analyze", *masks, "--plot", tmp_path / f"p.{suffix}", *page, *OURS)
        assert done.status == 0
        shown_well(done)
    picture_is_safe(tmp_path / "p.svg")
    page_is_safe(tmp_path / "r.html")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Masks of hostile names, and one file that is none; beside their folder is room for a store of what is found."""
    masks = tmp_path_factory.mktemp("masks") / "masks"
    masks.mkdir()
    for seed, name in enumerate(("=a\x1b.safetensors", "-b\n.safetensors", "[c]\u202e.safetensors")):
        hostile_mask(masks / name, NAMES[:15], seed)
    (masks / "\x1b.safetensors").write_bytes(b"{" * 20)
    return masks


@KINDS
def test_rank(mask: Path, folder: Path, kind: str) -> None:
    ours = ("--store", folder.parent / "s.db", "--jobs", 1)
    done = run_pai("rank", folder, mask, "--format", kind, *ours, "--by", "dr" + " " * 2000 + "+ dr_imdb")
    assert done.status == 1  # masks of different networks do not rank, and one is no mask
    shown_well(done, kind)
    if kind != "table":
        assert len(rows_of(done, kind)) == 5


@pytest.mark.parametrize(
    ("name", "target", "told"),
    [
        ("\x00a", "npz", ".npz cannot hold the name '\\x00a.weight'; give --to pai"),
        ("y" * 70_000, "npz", f".npz cannot hold the name '{'y' * 78}…{'y' * 71}.weight'; give --to pai"),
    ],
    ids=["NUL", "long"],
)
def test_names_that_a_file_cannot_hold(here: Path, name: str, target: str, told: str) -> None:
    torch.save({f"{name}.weight_orig": torch.ones(4, 4), f"{name}.weight_mask": torch.eye(4)}, "m.pt")
    done = run_pai("convert", "m.pt", "--to", target, "-o", "out")
    assert done.status == 1
    assert done.said[-1] == f"pai: error: out: {told}"
    assert not (here / "out").exists()


@pytest.mark.parametrize("command", ["convert", "prune"])
def test_tensor_names_that_are_no_text(here: Path, command: str) -> None:
    torch.save({f"{SURROGATE}.weight_orig": torch.ones(4, 4), f"{SURROGATE}.weight_mask": torch.eye(4)}, "m.pt")
    done = run_pai(
        command, "m.pt", "-o", "out", *(("--method", "magnitude", "--density", "1") if command == "prune" else ())
    )
    assert done.status == 1
    assert "tensor name '\\udcff\\ud800.weight" in done.said[-1]
    assert done.said[-1].endswith("' is no Unicode text; rename the tensor where the file is made")


def test_our_masks_have_names_that_are_text(tmp_path: Path) -> None:
    with pytest.raises(errors.OutputError, match="is no Unicode text"):
        save_mask(tmp_path / "m", {SURROGATE: random_mask((4, 4))})
    with pytest.raises(errors.OutputError, match="is no Unicode text"):
        write_npz(tmp_path / "m", {SURROGATE: random_mask((4, 4))}, force=False)
    path = save_mask(tmp_path / "m", {"a": random_mask((4, 4))}, mask=SURROGATE)
    assert MaskFile(path).metadata["mask"] == "\\udcff\\ud800"


def test_convert(mask: Path, tmp_path: Path) -> None:
    for target in ("npz", "pai", "torch-prune"):
        done = run_pai("convert", mask, "--to", target, "-o", tmp_path / as_file(f"\x1b{target}"))
        assert done.status in (0, 1, 2)
        shown_well(done)


@KINDS
@pytest.mark.parametrize("more", [("--max-results", 3), ("--overlap",), ("--level", "weight", "--max-results", 3)])
def test_mine(folder: Path, kind: str, more: tuple[str, ...]) -> None:
    paths = [path for path in sorted(folder.iterdir()) if path.name != "\x1b.safetensors"]
    done = run_pai("mine", *paths, "--format", kind, *more)
    assert done.status == 0, done
    shown_well(done, kind)
    rows_of(done, kind)


@KINDS
def test_mine_lists_of_edges(tmp_path: Path, kind: str) -> None:
    line_names = [name[:500] for name in NAMES if not set(name) & set('\t\n\r\x0b"\x00') and name.strip()]
    for at in range(3):
        edges = [f"{one}\t{other}" for one, other in zip(line_names[at:], line_names[at + 1 :], strict=False)]
        (tmp_path / f"=g{at}\x1b.tsv").write_text("\n".join(edges), encoding="utf-8")
    done = run_pai("mine", "--graphs", *sorted(tmp_path.iterdir()), "--support", "0.6", "--format", kind)
    assert done.status == 0, done
    shown_well(done, kind)
    rows_of(done, kind)


# --- names in other files


@pytest.mark.parametrize("command", ["analyze", "rank", "convert"])
def test_foreign_masks(tmp_path: Path, command: str) -> None:
    names = (*(name for name in NAMES if "/" not in name and len(name) < 200), SURROGATE)
    state = {f"{name}.weight_mask": torch.ones(4, 4) for name in names}
    torch.save(state | {"\x1b\n.weight_orig": torch.ones(4, 4)}, tmp_path / "half.pt")
    torch.save({name: [name] for name in names}, tmp_path / "none.pt")
    torch.save({name: torch.full((3, 3), 0.5) for name in names}, tmp_path / "real.pt")
    torch.save(state, tmp_path / "whole.pt")
    hostile_arrays(tmp_path / "a.npz", tuple(name for name in NAMES[11:25] if "/" not in name))
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:-300])
    damaged = pickle.dumps({"a\nb\x1b[31m": 1}, protocol=2).replace(b"\x1b[31m", b"\x1b[31\xff")
    (tmp_path / "damaged.pt").write_bytes(damaged)
    (tmp_path / "code.pt").write_bytes(b"\x80\x02cos\x1b]0;x\nsys\x07tem\nq\x00.")
    for path in [*sorted(tmp_path.glob("*.pt")), tmp_path / "a.npz"]:
        more = ("-o", tmp_path / f"out-{path.stem}.safetensors") if command == "convert" else OURS
        done = run_pai(command, path, *more)
        assert done.status in (0, 1), done
        shown_well(done)


def test_a_pickle_whose_own_name_is_no_utf8(tmp_path: Path) -> None:
    path = tmp_path / "\udcff.pt"
    with path.open("wb") as stream:
        torch.save({"a.weight_orig": torch.ones(4, 4), "a.weight_mask": torch.eye(4)}, stream)
    done = run_pai("analyze", path, "--summary", "--format", "csv", *OURS)
    assert (done.status, done.err) == (0, "")
    assert "/\\udcff.pt," in done.out


def test_checkpoints(tmp_path: Path) -> None:
    names = [name for name in NAMES if "\x00" not in name]
    torch.save({name: torch.ones(4, 4) for name in (*names, SURROGATE)}, tmp_path / "\x1b.pt")
    (tmp_path / "x.safetensors").write_bytes(
        b"\x40\0\0\0\0\0\0\0" + b'{"\x1b[31m\n":{"dtype":"\x1b","shape":[1],"x"'.ljust(64)
    )
    (tmp_path / "i.index.json").write_text('{"weight_map": {"\\u001b\\n": "\\u001b.safetensors", "a": "../b\\u202e"}}')
    good = save_mask(tmp_path / "good.safetensors", {"\x1b[31m": random_mask((4, 4))})
    for file in ("\x1b.pt", "x.safetensors", "i.index.json"):
        for words in (
            ("prune", tmp_path / file, "--method", "magnitude", "--density", "0.5", "-o", tmp_path / "o"),
            ("analyze", good, "--weights", tmp_path / file, *OURS),
            ("train", tmp_path / file, "--data", "digits", "-o", tmp_path / "t", "--epochs", 1),
        ):
            done = run_pai(*words)
            assert done.status in (0, 1), done
            shown_well(done)


def test_class_folders(tmp_path: Path, small: Path) -> None:
    root = tmp_path / "\x1b[31m[/x]data"
    for name in ("\x1b[31mcow", "a\nb", "\u202e", "[/x]", "\udcff"):
        (root / "train" / name).mkdir(parents=True)
        Image.new("RGB", (4, 6), (9, 9, 9)).save(root / "train" / name / "\x1b]0;x\x07.png")
    prune = ("prune", small, "--method", "snip", "--density", "0.5", "-o", tmp_path / "m", "--force")
    shown_well(run_pai(*prune, "--data", root, "--per-class", 9))
    (root / "train" / "a\nb" / "\x1b]0;x\x07.png").write_bytes(b"\x89PNG\r\n\x1a\n\x1b[31m")
    done = run_pai(*prune, "--data", root, "--per-class", 1)
    assert done.status == 1
    shown_well(done)
    shown_well(run_pai("train", small, "--data", root, "-o", tmp_path / "t"))
    (root / "train" / "empty\x07").mkdir()
    done = run_pai(*prune, "--data", root)
    assert "empty\\x07" in done.err
    shown_well(done)


TABLE_NAMES = [name.strip()[:300] for name in NAMES if name.strip() and not set(name) & set('\x00"\n\r\t')]


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        *((kind, ()) for kind in ("table", "csv", "tsv", "json", "jsonl")),
        *(("table", ("--order",)), ("tsv", ("--order",)), ("jsonl", ("--order",))),
        *((kind, ("--group-by", "\x1b[31mset,density")) for kind in ("table", "csv", "json")),
    ],
)
def test_tables(tmp_path: Path, kind: str, more: tuple[str, ...]) -> None:
    """Cells and headers of --table and of --accuracy; `--order` by a column of a hostile name."""
    columns = ["mask", "density", "\x1b[31mset", "accuracy", "=dr\x9b", "[/x]", "$\\frac", "<script>"]
    rng = np.random.default_rng(0)
    lines = ["\t".join(columns)]
    lines += ["\t".join([name, "0.5", f"\x1b]0;{at % 2}\x07", *(f"{x:.3f}" for x in rng.random(5))])
              for at, name in enumerate(TABLE_NAMES)]  # fmt: skip
    table = tmp_path / "\x1b[31m.tsv"
    table.write_text("\n".join(lines), encoding="utf-8")
    drawn = kind == "table" and not more  # which takes a while
    out = ("--plot", tmp_path / "p.svg", "--report", tmp_path / "r.html") if drawn else ()
    by = ("--by", "=dr\x9b") if more[:1] == ("--order",) else ()
    few = () if by else ("--resamples", 100)
    done = run_pai("rank", "--table", table, "--format", kind, *more, *out, *by, *few)
    assert done.status in (0, 1), done
    shown_well(done, kind)
    if done.status == 0:
        if kind != "json":
            rows_of(done, kind)
        if drawn:
            page_is_safe(tmp_path / "r.html")
            picture_is_safe(tmp_path / "p.svg")


@pytest.mark.parametrize(
    "row", ["\x1b]0;x\x07,0.5\n", "=a,\x1b[31m\n", "a\x9b,0.1\na\x9b,0.2,3\n", f"{'x' * 9999},7e9\n"]
)
def test_tables_that_are_wrong(tmp_path: Path, samples: Path, row: str) -> None:
    table = tmp_path / "a\x1b.csv"
    table.write_text(f"mask,accuracy\n{row}", encoding="utf-8")
    for words in (("--table", table), (samples / "erk-0.05.safetensors", "--accuracy", table)):
        done = run_pai("rank", *words)
        assert done.status == 1
        assert len(done.said) == 1
        shown_well(done)


# --- what is typed


def options_with_values() -> list[tuple[str, str]]:
    group = typer.main.get_command(app)
    found = []
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        for option in command.params:
            long = next((one for one in option.opts if one.startswith("--")), None)
            if long is not None and not getattr(option, "is_flag", False) and not getattr(option, "count", False):
                found.append((name, long))
    return found


ENOUGH: dict[str, tuple[object, ...]] = {
    "init": ("mlp-4-4-4",),
    "prune": ("small.safetensors", "--method", "magnitude", "--density", "0.5"),
    "analyze": ("mask.safetensors", "--no-store", "--jobs", 1),
    "rank": ("mask.safetensors", "--no-store", "--jobs", 1),
    "sample": ("small.safetensors", "--method", "erk", "--density", "0.5", "--population", 1, "--jobs", 1),
    "convert": ("mask.safetensors",),
    "compact": ("mask.safetensors", "--weights", "small.safetensors"),
    "train": ("small.safetensors", "--data", "digits", "--epochs", 1, "--input-shape", "1,1,1"),
    "mine": ("mask.safetensors",),
    "info": ("mask.safetensors",),
    "methods": (),
    "metrics": (),
    "models": (),
}
TYPED = "\x1b[31m[/x]\n\r\x07\x9b\u202e\udcff$\\frac=" + "y" * 100


@pytest.mark.parametrize(("command", "option"), options_with_values())
def test_every_option(here: Path, command: str, option: str) -> None:
    save_mask(here / "mask.safetensors", {"a": random_mask((4, 4)), "b": random_mask((4, 4))})
    done = run_pai(command, *ENOUGH[command], option, TYPED)  # with --cluster --jobs makes no sense
    assert done.status in (0, 1, 2), done
    shown_well(done)
    assert len(done.err) < 4000


@pytest.mark.parametrize("command", ENOUGH)
@pytest.mark.parametrize("text", [TYPED, "[/x]", "[red]x", "", "=a", "x" * 100_000])
def test_every_argument(here: Path, command: str, text: str) -> None:
    more = ENOUGH[command][1:]
    for words in ((command, text, *more), (command, f"--{text}", *more), (text, *more), (f"--{text}", command)):
        done = run_pai(*words)
        assert done.status in (0, 1, 2), done
        shown_well(done)
        assert len(done.err) < 4000


def test_wrong_usage_keeps_its_remedy() -> None:
    done = run_pai("prune", "x", "--method", "snip", "--density", "0.5", "--rounds", f"\x1b[31m{'x' * 9999}")
    assert done.status == 2
    assert "give a whole number, or auto" in done.words
    assert "\\x1b[31mxxx" in done.words


# --- the screen


class Screen(io.StringIO):
    """A terminal that keeps what is drawn."""

    def isatty(self) -> bool:
        return True


ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.mark.parametrize("name", NAMES[:25])
def test_progress_shows_names_as_they_are(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    screen = Screen()
    monkeypatch.setattr(progress, "errors", lambda: Console(file=screen, force_terminal=True, width=120, _environ={}))
    monkeypatch.setattr(progress, "errors_have_no_terminal", lambda: False)
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    with progress.progress_bar(f"pruning {name}") as show:
        show(1, 10, f"layer {name}")
    drawn = ESCAPE.sub("", screen.getvalue())
    assert f"layer {printable(name)}" in drawn
    assert not {c for c in drawn if not c.isprintable()} - {"\n", "\r"}


def test_tables_on_a_screen(mask: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", "70")
    monkeypatch.setenv("TERM", "xterm")
    app(["analyze", str(mask), "--no-store", "--jobs", "1"], standalone_mode=False)
    drawn = re.sub(r"\x1b\[[01]m", "", screen.getvalue())
    assert "[/x]0 " in drawn  # `.weight` is left out of a narrow table
    assert "\\x1b]0;x\\x07" in drawn
    assert not {c for c in drawn if not c.isprintable()} - {"\n"}
    assert drawn.count("漢") == 30


ENCODINGS = ("latin-1", "utf-8", "ascii:strict")


@pytest.fixture(scope="module")
def ended(mask: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """What processes left: one an encoding, one that is given names on standard input, one without standard error."""
    folder = tmp_path_factory.mktemp("ended")
    odd, more, listed = folder / f"é漢\udcff\x1b{SURROGATE[:1]}.safetensors", folder / "\udcff", folder / "listed"
    odd.write_bytes(mask.read_bytes())
    save_mask(folder / "a", {"a": random_mask((4, 4))}).rename(more)
    listed.write_bytes(os.fsencode(more))
    analyze = ("analyze", "--no-store")
    runs = {one: Call((*analyze, str(odd), str(folder / "\udcfe")), encoding=one) for one in ENCODINGS}
    runs["listed"] = Call((*analyze, "-", "--summary", "--format", "csv"), stdin=str(listed))
    both = (str(SAMPLES / "erk-0.05.safetensors"), "nothing.pt")
    runs["closed"] = Call((*analyze, *both, "--format", "json"), stderr_is_closed=True)
    return dict(zip(runs, run_each(folder, *runs.values()), strict=True))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_any_encoding(ended: dict[str, Ended], encoding: str) -> None:
    codec, done = encoding.removesuffix(":strict"), ended[encoding]
    told = Done(done.status, done.out.decode(codec), done.err.decode(codec))
    assert told.status == 1
    assert len(told.said) == 1
    assert re.fullmatch(r"pai: error: /.*/ended\d*/\\udcfe: no such file", told.said[0])
    shown_well(told)
    assert "\\udcff" in told.out


def test_names_on_standard_input_that_are_no_utf8(ended: dict[str, Ended]) -> None:
    done = ended["listed"]
    assert (done.status, done.err) == (0, b"")
    assert re.search(rb"/ended\d*/\\udcff", done.out)


def test_nothing_is_said_among_the_data_where_standard_error_is_closed(ended: dict[str, Ended]) -> None:
    done = ended["closed"]
    assert (done.status, done.err) == (1, b"")
    assert len(Done(1, done.out.decode(), "").json()) == 22


def test_warnings_of_libraries_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    console.warn_of(UserWarning("duplicate name: \x1b[31m\nx"), UserWarning, "zipfile.py", 7)
    assert capsys.readouterr().err == "pai: warning: UserWarning: duplicate name: \\x1b[31m\\nx\n"


def test_tracebacks_are_printable(pai: Pai, tmp_path: Path) -> None:
    done = pai("analyze", tmp_path / "\x1b[31m\n.pt", "--debug", "--weights", tmp_path / "\x07")
    assert "Traceback" in done.err
    assert not {c for c in done.err if not c.isprintable()} - {"\n"}


# --- nothing goes around it

PACKAGE = ROOT / "pai_cli"
MAY_PRINT = ("display/console.py", "display/tables.py")
STREAM_CALLS = ("isatty", "flush", "fileno")
WRITERS = ("TableWriter", "write_document", "write_table")
PRINTERS = ("print", "echo", "secho", "print_exc", "print_exception", "Console")


def prints_in(tree: ast.AST) -> list[int]:
    """Lines that write to a standard stream by themselves: only the writers of tables are given one."""
    allowed: set[int] = set()
    found = []
    nodes = list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Attribute) and node.attr in STREAM_CALLS:
            allowed.add(id(node.value))
        if isinstance(node, ast.Call):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in WRITERS:
                allowed.add(id(node.args[0]))
            if called in PRINTERS:
                found.append(node.lineno)
    for node in nodes:
        if isinstance(node, ast.Attribute) and node.attr in ("stdout", "stderr") and id(node) not in allowed:
            found.append(node.lineno)
    return found


def test_nothing_prints_by_itself() -> None:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = str(path.relative_to(PACKAGE))
        if name in MAY_PRINT or name == "__main__.py":  # where the streams themselves are seen to
            continue
        text = path.read_text(encoding="utf-8")
        lines = prints_in(ast.parse(text)) if any(word in text for word in (*PRINTERS, "stdout", "stderr")) else []
        if lines:
            found[name] = lines
    assert found == {}


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("print('x')", [1]),
        ("typer.echo(x)", [1]),
        ("sys.stderr.write(x)", [1]),
        ("Console(file=f)", [1]),
        ("console.print(x)", [1]),
        ("json.dump(x, sys.stdout)", [1]),
        ("traceback.print_exc()", [1]),
        ("sys.stdout.flush()\nTableWriter(sys.stdout, kind)\nsys.stdout.isatty()", []),
    ],
)
def test_the_rule_itself(code: str, lines: list[int]) -> None:
    assert prints_in(ast.parse(code)) == lines
