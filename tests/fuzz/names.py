"""Hostile names in every role, to random commands: what is shown is printable, in lines, and tables read back."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from conftest import SAMPLES, random_mask, run_pai, save_mask
from hostile import NAMES, as_file, hostile_arrays, page_is_safe, picture_is_safe, rows_of, shown_well

ALPHABET = (
    *(
        "\x1b[31m",
        "\x1b]0;",
        "\x07",
        "\r",
        "\n",
        "\t",
        "\x00",
        "\x7f",
        "\x85",
        "\x9b",
        "\u200b",
        "\u202e",
        "\u2066",
        "\u2028",
    ),
    *(
        "\udcff",
        "[/x]",
        "[red]",
        "[",
        "]",
        "$",
        "\\frac",
        "^{",
        "<",
        ">",
        "&",
        '"',
        "'",
        "=",
        "+",
        "-",
        "@",
        ",",
        ";",
        "|",
    ),
    *("a", "b", "0", " ", ".", "/", "*", "?", "漢", "e\u0301", "\u05d0", "{", "}", "%s", "\\", "\\x1b", "x" * 300, "…"),
)
FORMATS = ("table", "csv", "tsv", "json", "jsonl")


def case(seed: int, folder: Path) -> None:
    """Files and arguments of random names to one command, in one format."""
    rng = random.Random(seed)
    rng.choice(ROLES)(rng, folder)


def _name(rng: random.Random) -> str:
    if rng.random() < 0.2:
        return rng.choice(NAMES)
    return "".join(rng.choice(ALPHABET) for _ in range(rng.randrange(8)))


def _text(rng: random.Random) -> str:
    """A name that is Unicode text, as JSON and UTF-8 can have it."""
    return _name(rng).replace("\udcff", "y")


def _file(rng: random.Random, folder: Path, suffix: str) -> Path:
    return folder / f"{as_file(_name(rng))}{rng.randrange(99)}{suffix}"


def _mask(rng: random.Random, folder: Path, names: tuple[str, ...]) -> Path:
    story = {_text(rng): _text(rng) for _ in range(3)} | {"method": _text(rng)}
    story = {key: text for key, text in story.items() if key not in ("format", "layers", "shapes", "format_version")}
    masks = {name: random_mask((6, 6), seed=rng.randrange(99)) for name in names}
    return save_mask(_file(rng, folder, ".safetensors"), masks, **story)


def _masks(rng: random.Random, folder: Path) -> None:
    names = tuple(dict.fromkeys(_text(rng) for _ in range(rng.randint(1, 6))))
    paths = [_mask(rng, folder, names) for _ in range(rng.randint(1, 3))]
    kind = rng.choice(FORMATS)
    command = rng.choice(("analyze", "rank", "mine"))
    more: tuple[object, ...] = ("--no-store", "--jobs", 1)
    if command == "mine":
        more = rng.choice((("--max-results", 5), ("--overlap",), ("--level", "weight", "--max-results", 5)))
    elif rng.random() < 0.3:
        more = (*more, "--layers", _text(rng)) if command == "analyze" else (*more, "--by", _text(rng))
    elif rng.random() < 0.1:
        more = (*more, "--plot", folder / "p.svg", "--report", folder / "r.html")
    done = run_pai(command, *paths, "--format", kind, *more)
    assert done.status in (0, 1, 2), done
    shown_well(done, kind)
    if done.status != 2:
        rows_of(done, kind)
    if (folder / "r.html").exists():
        page_is_safe(folder / "r.html")
    if (folder / "p.svg").exists():
        picture_is_safe(folder / "p.svg")


def _foreign(rng: random.Random, folder: Path) -> None:
    import torch

    names = [_name(rng) for _ in range(rng.randint(1, 4))]
    path = _file(rng, folder, rng.choice((".pt", ".npz")))
    if path.suffix == ".npz":
        kept = [name[:999] for name in names if not set(name) & set("\udcff\0") and name != "file"]
        hostile_arrays(path, tuple(dict.fromkeys(kept)))
    else:
        values = rng.choice((torch.ones(3, 3), torch.rand(3, 3), "\x1b", [1], {_name(rng): 1}))
        ending = rng.choice(("", ".weight_mask", "_mask"))
        with path.open("wb") as stream:
            torch.save({f"{name}{ending}": values for name in names}, stream)
    command = rng.choice(("analyze", "rank", "convert", "train"))
    more: tuple[object, ...] = ("--no-store", "--jobs", 1)
    if command == "convert":
        more = ("-o", _file(rng, folder, ".safetensors"), "--force")
    elif command == "train":
        more = ("--data", _name(rng).replace("\x00", "") or "x", "-o", folder / "t")
    done = run_pai(command, path, *more)
    assert done.status in (0, 1, 2), done
    shown_well(done)


def _table(rng: random.Random, folder: Path) -> None:
    def cell() -> str:
        text = _text(rng).replace("\x00", "")
        return '"' + text.replace('"', '""') + '"' if rng.random() < 0.8 else text

    columns = ["mask", "accuracy", "dr", *(cell() for _ in range(rng.randrange(3))), *rng.choice(([], ["density"]))]
    rows = [
        [cell(), f"{rng.random():.3f}", *(str(rng.random()) for _ in columns[2:])] for _ in range(rng.randint(1, 5))
    ]
    if rng.random() < 0.3:
        rng.choice(rows)[rng.randrange(len(columns))] = cell()
    table = _file(rng, folder, ".csv")
    between = rng.choice(",\t")
    table.write_text("\n".join(between.join(row) for row in [columns, *rows]), encoding="utf-8")
    kind = rng.choice(FORMATS)
    given = rng.choice((("--table", table), ("--table", table, "--order"), (SAMPLES, "--accuracy", table)))
    more = ("--group-by", _text(rng).replace("\x00", "")) if given[0] == "--table" and rng.random() < 0.2 else ()
    done = run_pai("rank", *given, "--format", kind, *more)
    assert done.status in (0, 1, 2), done
    shown_well(done, kind)
    if done.status != 2 and (kind != "json" or "--order" in given):
        rows_of(done, kind)


def _typed(rng: random.Random, folder: Path) -> None:
    word = _name(rng).replace("\x00", "")
    command = rng.choice(("init", "prune", "analyze", "rank", "sample", "convert", "train", "mine", word))
    option = rng.choice(
        ("--method", "--density", "--sparsity", "--layers", "--by", "--data", "--rounds", f"--{word}", "-x")
    )
    words = [command, rng.choice((word, "small.safetensors")), option, _name(rng).replace("\x00", "")]
    done = run_pai(*rng.sample(words, rng.randint(1, 4)))
    assert done.status in (0, 1, 2), done
    shown_well(done)


ROLES: tuple[Callable[[random.Random, Path], None], ...] = (_masks, _masks, _foreign, _table, _typed)
