"""No file is lost: an input never, another command's run never, and without --force nothing that was there."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import Pai, save_mask
from forked import Call, run_each
from safetensors.numpy import save

from pai_cli.errors import OutputError
from pai_cli.files.checkpoints import files_of
from pai_cli.files.journal import PRUNE, SAMPLE, TRAIN, beside, run_of, state_beside, tells
from pai_cli.files.plan import FilePlan

# Of a command: its words, {name} where an input stands; the inputs; the options that name outputs, each with the ending that
# its files must have, and what it needs besides.
COMMANDS: dict[str, tuple[str, tuple[str, ...], dict[str, tuple[str, str]]]] = {
    "prune": (
        "{net} --method snip --data {data} --model {code}:make --densities {table}",
        ("net", "data", "code", "table"),
        {"-o": ("", ""), "-w": ("", "--reinit -o new")},
    ),
    "prune a state": ("{net} --method imp --data {data} --density 0.5", ("net", "data"), {"-o": (".state", "")}),
    "sample": (
        "{net} --method snip --data {data} --model {code}:make --densities {table} --population 2",
        ("net", "data", "code", "table"),
        {"-o": ("", ""), "--plot": (".svg", "-o new"), "--trajectory": ("", "-o new")},
    ),
    "sample a state": ("{net} --method erk --density 0.5 --population 2", ("net",), {"-o": (".state", "")}),
    "sample lines": ("{net} --method erk --density 0.5 --population 2", ("net",), {"-o": (".jsonl", "")}),
    "sample built": ("{net} --construct biregular --density 0.5", ("net",), {"-o": ("", "")}),
    "train": (
        "{net} --mask {mask} --data {data} --model {code}:make --dynamic set",
        ("net", "mask", "data", "code"),
        {
            "-o": ("", ""),
            "--mask-out": ("", "-o new"),
            "--plot": (".svg", "-o new"),
            "--results": ("", "-o new"),
            "--log-dir": ("", "-o new"),
        },
    ),
    "train a state": ("{net} --mask {mask} --data {data}", ("net", "mask"), {"-o": (".state", "")}),
    "train lines": ("{net} --mask {mask} --data {data}", ("net", "mask"), {"-o": (".jsonl", "")}),
    "train a lock": ("{net} --mask {mask} --data {data} -o new", ("mask",), {"--results": (".lock", "")}),
    "analyze": (
        "{mask} --weights {net}",
        ("mask", "net"),
        {"--plot": (".svg", ""), "--report": (".html", ""), "--store": ("", "")},
    ),
    "analyze a journal": ("{mask}", ("mask",), {"--store": ("-journal", "")}),
    "rank": (
        "{mask} --weights {net} --accuracy {table}",
        ("mask", "net", "table"),
        {"--plot": (".svg", ""), "--report": (".html", ""), "--store": ("", "")},
    ),
    "rank a table": ("--table {table}", ("table",), {"--plot": (".svg", ""), "--report": (".html", "")}),
    "mine": (
        "{mask} --weights {net} --model {code}:make",
        ("mask", "net", "code"),
        {"-o": ("", ""), "--plot": (".svg", "")},
    ),
    "mine graphs": ("{table} --graphs", ("table",), {"--plot": (".svg", "")}),
    "compact": (
        "{mask} --weights {net} --model {code}:make",
        ("mask", "net", "code"),
        {"-o": (".safetensors", "")},
    ),
    "convert": (
        "{mask} --to dense --weights {net} --names-from {other}",
        ("mask", "net", "other"),
        {"-o": ("", "")},
    ),
}
CASES = [
    pytest.param(name, flag, source, id=f"{name} {flag} {source}")
    for name, (_, sources, outputs) in COMMANDS.items()
    for flag in outputs
    for source in sources
]
# A file that goes beside an output, by what the matrix calls it: the output that it goes beside, and its own name.
BESIDE = {
    ".state": ("{0}.safetensors", "{0}.state.safetensors"),
    ".jsonl": ("{0}.safetensors", "{0}.jsonl"),
    ".lock": ("{0}.csv", ".{0}.csv.lock"),
    "-journal": ("{0}.db", "{0}.db-journal"),
}


@dataclass(frozen=True)
class Place:
    """A folder of inputs, and `there`, a link to it."""

    folder: Path

    def state(self) -> dict[str, str]:
        """All that is in the folder, links among it, by name."""
        return {
            str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }


@pytest.fixture
def place(here: Path) -> Place:
    for name in ("net", "other"):
        (here / name).write_bytes((here / "small.safetensors").read_bytes())
    save_mask(here / "mask", {"fc1.weight": np.eye(4, dtype=bool)})
    (here / "data").write_bytes(b"data")
    (here / "code.py").write_text("raise SystemExit('no code is run before the files are known')\n")
    (here / "table").write_text('{"*": 0.5}')
    (here / "sub").mkdir()
    (here / "there").symlink_to(here, target_is_directory=True)
    return Place(here)


def spellings(name: str, place: Place) -> Iterator[str]:
    """Ways to write the path of a file, links to it among them, with the same beginning and ending of the last name."""
    yield from (name, f"sub/../{name}", f"there/{name}")
    for folder, linked in (("soft", os.symlink), ("hard", os.link)):
        (place.folder / folder).mkdir()
        linked(place.folder / name, place.folder / folder / name)
        yield f"{folder}/{name}"


@pytest.mark.parametrize(("name", "flag", "source"), CASES)
def test_an_input_stays_as_it_is(pai: Pai, place: Place, name: str, flag: str, source: str) -> None:
    words, sources, outputs = COMMANDS[name]
    ending, more = outputs[flag]
    paths = {one: "code.py" if one == "code" else one for one in (*sources, "net", "mask", "data")}
    if ending:
        taken = BESIDE.get(ending, ("", "{0}" + ending))[1].format("x")
        if source == "code":  # code is a .py
            pytest.skip("its name does not end so")
        (place.folder / paths[source]).rename(place.folder / taken)
        paths[source] = taken
    given = [word.format(**paths) for word in words.split()]
    plain, *others = spellings(paths[source], place)
    other = others[
        sum(map(len, (name, flag, source))) % len(others)
    ]  # one of them a case: the check is the same for all
    for spelled in (plain, other):
        out = spelled
        if ending in BESIDE:
            beside, own = BESIDE[ending]
            out = spelled.removesuffix(own.format("x")) + beside.format("x")
        before = place.state()
        for force in ([], ["--force"]) if spelled == plain else (["--force"],):
            if force and flag == "--store":
                continue
            done = pai(name.partition(" ")[0], *given, *more.split(), flag, out, *force)
            assert (done.status, done.out) == (1, ""), done
            assert [line for line in done.said if "error: " in line] == done.said[-1:], done.said
            assert ": is " in done.said[-1], done.said
            assert place.state() == before


FOLDERS = {
    "shard": ("net/index.json", "net/two.safetensors"),
    "index": ("net/index.json", "net/index.json"),
    "configuration": ("net", "net/config.json"),
    "weights": ("net", "net/model.safetensors.index.json"),
    "shard of a folder": ("net", "net/one.safetensors"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_all_files_of_a_checkpoint(pai: Pai, here: Path, case: str) -> None:
    (here / "net").mkdir()
    index = json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors", "c": "../up.safetensors"}})
    for name in ("index.json", "model.safetensors.index.json"):
        (here / "net" / name).write_text(index)
    for name in ("config.json", "one.safetensors", "two.safetensors"):
        (here / "net" / name).write_text("{}")
    given, out = FOLDERS[case]
    before = (here / out).read_bytes()
    said = f"pai: error: {out}: is a file of the checkpoint, which stays as it is; choose another name (-o)"
    save_mask(here / "m", {"a": np.ones((1, 1), dtype=bool)})
    for words in (
        ("prune", given, "--method", "random", "--density", 0.5),
        ("sample", given, "--method", "random", "--density", 0.5, "--population", 2),
        ("train", given, "--data", "digits"),
        ("convert", "m", "--to", "dense", "--weights", given),
        ("convert", "m", "--names-from", given),
        ("mine", "m", "--weights", given),
    ):
        done = pai(*words, "-o", out, "--force")
        if out.endswith(".json") or words[0] != "convert":
            assert done.said[-1] == said
        assert done.status == 1
        assert (here / out).read_bytes() == before


def test_files_of_what_is_damaged(tmp_path: Path) -> None:
    for content in (b"", b"{", b'{"weight_map": 3}', b"x" * 100):
        (tmp_path / "x").write_bytes(content)
        assert files_of(tmp_path / "x") == [tmp_path / "x"]
    assert files_of(tmp_path / "missing") == [tmp_path / "missing"]
    assert files_of(tmp_path) == [tmp_path]


# --- two outputs


TWO = {
    "mask, weights": ("prune {net} --method random --density 0.5 --reinit -o x -w sub/../x",
                      "x: the mask and the weights need different names; change -o or -w"),
    "by a link": ("prune {net} --method random --density 0.5 --reinit -o x -w there/x",
                  "x: the mask and the weights need different names; change -o or -w"),
    "by case": ("prune {net} --method random --density 0.5 --reinit -o x -w X",
                "x: the mask and the weights need different names; change -o or -w"),
    "state": ("prune {net} --method imp --data digits --density 0.5 -o x -w x.state.safetensors",
              "x.state.safetensors: the weights and the training's state need different names; change -o or -w"),
    "trajectory": ("sample {net} --method erk --density 0.5 --population 2 -o x --trajectory ./x",
                   "x: the mask and the search's trajectory need different names; change --trajectory or -o"),
    "search's state": ("sample {net} --method erk --density 0.5 --population 2 -o x.state.safetensors --trajectory x",
                       "x.state.safetensors: the mask and the search's state need different names; "
                       "change --trajectory or -o"),
    "events": ("train {net} --data digits -o x --log-dir x",
               "x: the weights and the folder of events need different names; change --log-dir or -o"),
    "table": ("train {net} --data digits -o x --results x.jsonl",
              "x.jsonl: the table and the training's journal need different names; change --results or -o"),
    "lock": ("train {net} --data digits -o .x.lock --results x",
             ".x.lock: the weights and the table's lock need different names; change --results or -o"),
    "store": ("analyze {net} --store x.html --report x.html",
              "x.html: the page and the store need different names; change --report or --store"),
}  # fmt: skip


@pytest.mark.parametrize("case", TWO)
def test_two_outputs_have_two_names(pai: Pai, place: Place, case: str) -> None:
    words, said = TWO[case]
    before = place.state()
    for force in ([], ["--force"]):
        done = pai(*words.format(net="net").split(), *force)
        assert (done.status, done.said[-1]) == (1, f"pai: error: {said}")
        assert place.state() == before


# --- files of runs


def keep_runs(folder: Path) -> None:
    """What interrupted runs of all three kinds leave, of outputs called after their commands."""
    for run in (PRUNE, TRAIN, SAMPLE):
        journal = beside(run, folder / run.command.removeprefix("pai "), {"density": 0.5})
        journal.begin()
        journal.keep(save({}), {"rounds_done": 1})


RUNS = {
    "prune": "prune net --method imp --data digits --density 0.5",
    "sample": "sample net --method erk --density 0.5 --population 2",
    "train": "train net --data digits",
}


def test_whose_run_a_file_is_of(here: Path) -> None:
    keep_runs(here)
    names = {path.name: run_of(path) for path in here.iterdir()}
    assert names == {
        "small.safetensors": None,
        "prune.state.safetensors": PRUNE,
        "train.jsonl": TRAIN,
        "train.state.safetensors": TRAIN,
        "sample.jsonl": SAMPLE,
        "sample.state.safetensors": SAMPLE,
    }
    for content in (
        b"",
        b"{",
        b"{}",
        b"[]",
        b'{"training": "x"}',
        b"\x02" + bytes(7) + b"{}",
        b"\xff" * 8 + b"{",
        b"{" * 9**5,
    ):
        (here / "x").write_bytes(content)
        assert run_of(here / "x") is None
        assert not tells(here / "x", {"seed": "0"})
    assert run_of(here) is None
    assert run_of(here / "missing") is None


@pytest.mark.parametrize("command", RUNS)
@pytest.mark.parametrize("of", RUNS)
def test_a_run_is_continued_or_begun_again_by_its_own_command_alone(
    pai: Pai, place: Place, command: str, of: str
) -> None:
    keep_runs(place.folder)
    before = place.state()
    for more in ([], ["--force"], ["--resume"]):
        if command == of and more:
            continue
        done = pai(*RUNS[command].split(), "-o", of, *more)
        assert done.status == 1
        assert place.state() == before
        if command == of:
            assert done.said[-1].endswith("was begun here; --resume continues it, --force starts it again")
        elif (command, of) == ("prune", "sample") or of != "prune":
            assert f"belongs to a pai {of}, and the " in done.said[-1]
        else:
            assert "prune.state.safetensors: belongs to a pai prune, and the " in done.said[-1]
    for file in ("prune.state.safetensors", "train.jsonl", "sample.state.safetensors"):
        done = pai(*RUNS[command].split(), "-o", file, "--force")
        owner = file.partition(".")[0]
        assert (
            done.said[-1]
            == f"pai: error: {file}: belongs to a pai {owner} and is not replaced; change -o, or remove it"
        )
        assert place.state() == before


@pytest.mark.parametrize("command", RUNS)
@pytest.mark.parametrize("name", ["x.state.safetensors", "x.jsonl"])
def test_a_file_that_nobody_named_is_not_replaced(pai: Pai, place: Place, command: str, name: str) -> None:
    if (command, name) == ("prune", "x.jsonl"):
        pytest.skip("it writes none")
    (place.folder / name).write_bytes((place.folder / "mask").read_bytes())
    before = place.state()
    for more in ([], ["--force"], ["--resume"]):
        done = pai(*RUNS[command].split(), "-o", "x", *more)
        assert done.status == 1
        assert place.state() == before
        if more == ["--resume"]:  # which reads it, and says what is wrong
            continue
        assert done.said[-1].startswith(f"pai: error: {name}: damaged, or no file of a pai {command}, and the ")
        assert done.said[-1].endswith(" goes there; change -o, or remove it")


def test_a_state_without_its_journal(pai: Pai, place: Place) -> None:
    keep_runs(place.folder)
    for command in ("sample", "train"):
        (place.folder / f"{command}.jsonl").unlink()
        before = place.state()
        done = pai(*RUNS[command].split(), "-o", command)
        assert done.said[-1].endswith(
            f"was begun here; {command}.jsonl is gone, without which it cannot go on; --force starts it again"
        )
        assert place.state() == before
    assert pai(*RUNS["sample"].split(), "-o", "sample", "--force").status == 0


def test_an_interrupted_pruning_survives_a_search_of_the_same_name(pai: Pai, place: Place) -> None:
    keep_runs(place.folder)
    done = pai(*RUNS["sample"].split(), "-o", "prune.safetensors")
    assert done.said == [
        "pai: error: prune.state.safetensors: belongs to a pai prune, and the search's state goes there; change -o, or "
        "remove it"
    ]


def test_resume_is_no_leave_to_replace_a_mask_of_another_making(
    pai: Pai, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr("pai_cli.api.prune.beside", lambda *words: made.append(beside(*words)) or made[-1])
    beside(PRUNE, place.folder / "x", {"method": "imp"}).keep(save({}), {"rounds_done": 1})
    (place.folder / "x").write_bytes((place.folder / "mask").read_bytes())
    np.savez(place.folder / "d.npz", x=np.zeros((20, 24), np.float32), y=np.arange(20) % 10)
    words = [
        "prune",
        "small.safetensors",
        "--method",
        "imp",
        "--density",
        0.5,
        "--data",
        "d.npz",
        "-o",
        "x",
        "--resume",
    ]
    for told in (
        "x.state.safetensors: that training had density not given, ",
        "x: exists already; --force replaces it",
    ):
        before = place.state()
        assert pai(*words).said[-1].startswith(f"pai: error: {told}")
        assert place.state() == before
        made[0].keep(save({}), {"rounds_done": 1})  # now of the very settings


# --- locks, journals, data, links


@pytest.mark.parametrize("ending", ["-journal", "-wal"])
def test_what_sqlite_would_remove(pai: Pai, here: Path, samples: Path, ending: str) -> None:
    mask = samples / "erk-0.05.safetensors"
    (here / f"s.db{ending}").write_text("my notes")
    done = pai("analyze", mask, "--store", "s.db")
    said = f"pai: error: s.db{ending}: is in the way of SQLite's journal; move it, or change --store"
    assert (done.status, done.said) == (1, [said])
    assert (here / f"s.db{ending}").read_text() == "my notes"
    assert not (here / "s.db").exists()
    assert pai("analyze", mask, "--no-store").status == 0
    (here / f"s.db{ending}").write_bytes(b"")
    assert pai("analyze", mask, "--store", "s.db").status == 0


def test_what_the_lock_of_a_table_would_remove(pai: Pai, place: Place) -> None:
    lock = place.folder / ".r.csv.lock"
    words = (*RUNS["train"].split(), "-o", "x", "--results", "r.csv")
    for make in (lambda: lock.write_text("mine"), lambda: lock.symlink_to("table"), lock.mkdir):
        make()
        before = place.state()
        done = pai(*words, "--force")
        assert (
            done.said[-1] == "pai: error: .r.csv.lock: is in the way of the table's lock; move it, or change --results"
        )
        assert place.state() == before
        lock.rmdir() if lock.is_dir() else lock.unlink()


DATA = {
    "class": ("imgs/cat/p.png", ["imgs/cat/1.png", "imgs/dog/1.png"], True),
    "new class": ("imgs/rat/p.png", ["imgs/cat/1.png", "imgs/rat/1.png"], True),
    "train": ("imgs/train/cat/p.png", ["imgs/train/cat/1.png"], True),
    "val": ("imgs/val/p.png", ["imgs/train/cat/1.png", "imgs/val/cat/1.png"], True),
    "beside classes": ("imgs/p.png", ["imgs/cat/1.png"], False),
    "beside parts": ("imgs/more/p.png", ["imgs/train/cat/1.png", "imgs/more/x"], False),
    "arrow": ("imgs/x.arrow", ["imgs/state.json", "imgs/data.arrow"], True),
    "batch": ("imgs/test_batch", ["imgs/data_batch_1"], True),
    "batch below": ("imgs/cifar-10-batches-py/data_batch_2", ["imgs/cifar-10-batches-py/data_batch_1"], True),
    "beside batches": ("imgs/mask", ["imgs/data_batch_1"], False),
}


@pytest.mark.parametrize("case", DATA)
def test_nothing_is_written_among_the_data(pai: Pai, place: Place, case: str) -> None:
    out, files, refused = DATA[case]
    for file in files:
        (place.folder / file).parent.mkdir(parents=True, exist_ok=True)
        (place.folder / file).write_bytes(b"x")
    done = pai("prune", "net", "--method", "snip", "--density", 0.5, "--data", "imgs", "-o", f"there/{out}", "--force")
    assert done.status == 1
    assert ("; choose another " in done.said[-1]) is refused, done.said
    assert not (place.folder / out).exists()


def test_a_link_that_leads_nowhere_is_there(pai: Pai, place: Place) -> None:
    (place.folder / "x").symlink_to("nowhere")
    words = ("prune", "net", "--method", "random", "--density", 0.5, "-o", "x")
    assert pai(*words).said == ["pai: error: x: exists already; --force replaces it"]
    assert (place.folder / "x").is_symlink()
    assert pai(*words, "--force").status == 0
    assert not (place.folder / "x").is_symlink()


def test_links_in_a_circle(pai: Pai, place: Place) -> None:
    (place.folder / "a").symlink_to("b")
    (place.folder / "b").symlink_to("a")
    done = pai("prune", "net", "--method", "random", "--density", 0.5, "-o", "a")
    assert done.said == ["pai: error: a: exists already; --force replaces it"]


def test_the_mask_that_a_folder_holds_already(pai: Pai, place: Place) -> None:
    masks = place.folder / "masks"
    masks.mkdir()
    for name in ("a", "b"):
        save_mask(masks / f"{name}.safetensors", {"fc1.weight": np.eye(4, dtype=bool)})
    words = ("mine", "masks", "-o", "masks/both.safetensors", "--level", "weight", "--support", "1.0", "--force")
    assert pai(*words).status == 0
    before = place.state()
    done = pai(*words)
    assert done.said[-1] == (
        "pai: error: masks/both.safetensors: is a file that is read, which stays as it is; choose another name (-o)"
    )
    listed = pai("mine", "-", *words[2:], stdin="masks/a.safetensors\nmasks/both.safetensors\n")
    assert listed.said[-1] == done.said[-1]
    assert place.state() == before


# --- standard output


def test_standard_output_is_an_output_too(here: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    mask = save_mask(here / "m", {"fc1.weight": np.eye(4, dtype=bool)})
    before = mask.read_bytes()
    (here / "log").write_bytes(b"kept\n")
    refused, done = run_each(
        tmp_path_factory.mktemp("told"),
        Call(("analyze", "m", "--no-store"), stdout="m"),
        Call(("convert", "m", "-o", "/dev/stdout", "--to", "npz"), stdout="log"),
    )
    assert refused.status == 1
    assert refused.err == b"pai: error: m: is a file that is read, and standard output goes there; change > or >>\n"
    assert mask.read_bytes() == before
    assert done.status == 0
    assert done.out.startswith(b"kept\nPK")
    (here / "n.npz").write_bytes(done.out[5:])
    assert np.load(here / "n.npz")["fc1.weight"].tolist() == np.eye(4, dtype=bool).tolist()


def test_only_the_first_process_looks(pai: Pai, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others come when the first has begun its journal."""
    from pai_cli.api.plans import Reads, plan_training
    from pai_cli.training.outputs import Outputs

    out = place.folder / "net"
    with pytest.raises(OutputError):
        plan_training(Reads(out), None, Outputs(out), resume=False)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    plan_training(Reads(out), None, Outputs(out), resume=False)


def test_a_plan_of_what_is_free(tmp_path: Path) -> None:
    plan = FilePlan()
    plan.reads("read", tmp_path / "missing", None)
    plan.writes(tmp_path / "x", "this", "output")
    plan.writes(None, "that", "weights_out")
    plan.adds_to(tmp_path / "logs", "the logs", "log_dir", seen_to=True)
    plan.keeps(state_beside(tmp_path / "x"), "its state", "output", PRUNE)
    plan.check()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ("prune", "small.safetensors", "--method", "erk", "-o", "m.npz"),
            "m.npz: the mask would be written as .safetensors; give -o",
        ),
        (
            ("prune", "small.safetensors", "--method", "erk", "-o", "m.safetensors", "--reinit", "-w", "w.pt"),
            "w.pt: the weights would be written as .safetensors; give -w",
        ),
        (
            ("sample", "small.safetensors", "--method", "erk", "--population", 2, "-o", "m.pth"),
            "m.pth: the mask would be written as .safetensors; give -o",
        ),
        (("init", "mlp-4-3-2", "-o", "n.pt"), "n.pt: the checkpoint would be written as .safetensors; give -o"),
        (
            ("train", "small.safetensors", "--data", "digits", "-o", "t.bin"),
            "t.bin: the weights would be written as .safetensors; give -o",
        ),
    ],
)
def test_a_name_of_another_format_is_refused(pai: Pai, here: Path, words: tuple[object, ...], told: str) -> None:
    done = pai(*words)
    assert (done.status, done.said[-1]) == (2, f"pai: error: {told} such a name")
    assert [path.name for path in here.iterdir()] == ["small.safetensors"]
