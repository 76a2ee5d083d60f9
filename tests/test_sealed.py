"""What is kept to go on from is what was written, or is refused; what stands in the store is of the bytes it is told of."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SAMPLES, Pai, random_mask, run_pai, save_mask
from PIL import Image
from safetensors.numpy import load, save, save_file
from trainings import SIDE, masks_of, recipe, residual, through_a_file, toy, trainer

from pai_cli.analysis import cache, many
from pai_cli.analysis.cache import ReportCache
from pai_cli.analysis.many import analyze_masks
from pai_cli.analysis.masks import AnalysisRequest
from pai_cli.data.arrays import ArrayDataset
from pai_cli.data.fingerprint import digest_of
from pai_cli.data.normalise import CIFAR
from pai_cli.data.registry import open_dataset
from pai_cli.errors import ClusterError, OutputError, ResumeError
from pai_cli.files.atomic import write_atomically
from pai_cli.files.checkpoints import open_checkpoint
from pai_cli.files.journal import SAMPLE, TRAIN, Journal, beside
from pai_cli.files.sealed import Chain, sealed, told_version, unsealed
from pai_cli.files.store import Store, open_store
from pai_cli.methods.registry import get
from pai_cli.models.network import init_network
from pai_cli.pruning.run import PruneRequest, prune
from pai_cli.pruning.trained import TrainingOptions, TrainingRun
from pai_cli.sampling.candidates import Workshop
from pai_cli.sampling.search import SearchRequest, search
from pai_cli.sampling.state import FACTS as FACTS_KEPT
from pai_cli.sampling.state import SearchState, keep_search, open_search
from pai_cli.training.recipe import Optimizer
from pai_cli.training.state import TrainingState


def flipped(data: bytes, step: int = 1) -> Iterator[bytes]:
    """The data with one bit changed, every `step`-th bit in turn."""
    for bit in range(0, 8 * len(data), step):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


# ---- sealed files


ARRAYS = {"a": np.arange(5, dtype=np.float32), "b": np.zeros((0, 3), np.uint8), "c": np.ones((2, 2), np.bool_)}
SEALED = sealed(save(ARRAYS), {"facts": '{"step": 3}', "training": "2"})


def test_what_is_sealed_is_a_safetensors_file() -> None:
    assert {name: array.tolist() for name, array in load(SEALED).items()} == {n: a.tolist() for n, a in ARRAYS.items()}
    assert unsealed(SEALED)["facts"] == '{"step": 3}'
    assert sealed(save(ARRAYS), {"training": "2", "facts": '{"step": 3}'}) == SEALED
    assert told_version(SEALED, "training") == "2"
    assert [told_version(data, "training") for data in (b"", SEALED[:50], b"\x02" + bytes(7) + b"[]")] == [None] * 3


def test_every_bit_and_every_length_of_a_sealed_file() -> None:
    others = [SEALED[:length] for length in range(len(SEALED))] + [SEALED + b"\0", SEALED + SEALED, b"\0" + SEALED]
    for data in (*flipped(SEALED), *others):
        with pytest.raises(ValueError, match="digest"):
            unsealed(data)


def test_a_file_without_a_digest() -> None:
    with pytest.raises(ValueError, match="it has no digest"):
        unsealed(save(ARRAYS, {"facts": "{}"}))


def test_a_chain_tells_lines_apart() -> None:
    lines = ["a", "b", "c", ""]
    whole = Chain(lines).after(4)
    others = [
        lines[:3],
        ["b", "a", "c", ""],
        ["a", "b", "c", "", ""],
        ["a", "b", "c", "d"],
        ["ab", "", "c", ""],
        ["a\nb", "c", ""],
    ]
    assert all(Chain(other).after(len(other)) != whole for other in others)
    assert Chain(line.encode() for line in lines).after(4) == whole
    longer = Chain(lines)
    longer.add("more")
    assert longer.after(4) == whole


# ---- searches


@pytest.fixture
def searched(tmp_path: Path) -> Journal:
    """A search of three candidates that is done."""
    network = init_network("mlp-6-5-4", 4, 0)
    wish = SearchRequest.of(PruneRequest(get("magnitude"), 0.5), 3, None, "layer")
    journal = beside(SAMPLE, tmp_path / "t", wish.settings("x", network))
    journal.begin()
    search(network, wish, journal, SearchState())
    return journal


def resumed(journal: Journal) -> SearchState:
    """The state that a search goes on from."""
    return open_search(Path("best"), journal.path, journal.settings, resume=True, force=True)[1]


def test_no_bit_of_a_searchs_state_is_believed(searched: Journal) -> None:
    whole = searched.state_path.read_bytes()
    before = searched.path.read_bytes()
    assert resumed(searched).done == 3
    for data in (*flipped(whole, 41), *(whole[:length] for length in range(0, len(whole), 53))):
        searched.state_path.write_bytes(data)
        with pytest.raises(
            ResumeError, match=r"^[^\n]*t\.state\.safetensors: [^\n]*; force=True starts the search again$"
        ):
            resumed(searched)
    assert searched.path.read_bytes() == before


def told_of(state: SearchState) -> str:
    kinds = {kind: {n: one.tolist() for n, one in masks.items()} for kind, masks in state.kinds.items()}
    return json.dumps([{name: getattr(state, name) for name in FACTS_KEPT}, kinds])


def refusal(of: Callable[[], object]) -> str:
    """What a resume is refused with; "" when it is not."""
    try:
        of()
    except ResumeError as error:
        return str(error)
    return ""


def test_no_bit_of_a_trajectory_is_believed(searched: Journal) -> None:
    whole = searched.path.read_bytes()
    state = told_of(resumed(searched))
    for data in flipped(whole, 67):
        searched.path.write_bytes(data)
        found: list[SearchState] = []
        said = refusal(lambda found=found: found.append(resumed(searched)))
        assert "\n" not in said
        assert searched.path.read_bytes() == (data if said else whole)
        assert said or told_of(found[0]) == state


LINES: dict[str, Callable[[list[str]], list[str]]] = {
    "swapped": lambda lines: [lines[0], lines[2], lines[1], lines[3]],
    "repeated": lambda lines: [lines[0], lines[1], lines[1], lines[2], lines[3]],
    "missing": lambda lines: [lines[0], lines[1], lines[3], lines[3]],
    "changed": lambda lines: [*lines[:3], lines[3].replace('"candidate": 2', '"candidate": 1')],
}


@pytest.mark.parametrize("change", LINES)
def test_lines_that_are_not_those_of_the_state(searched: Journal, change: str) -> None:
    lines = searched.path.read_text().splitlines(keepends=True)
    searched.path.write_text("".join(LINES[change](lines)))
    with pytest.raises(ResumeError) as caught:
        resumed(searched)
    assert str(caught.value) == (
        f"{searched.path}: is not as it was when t.state.safetensors was written; force=True starts the search again"
    )


def test_lines_after_the_state_are_cut_off(searched: Journal) -> None:
    whole = searched.path.read_text()
    for more in ('{"candidate": 3}\n', '{"candidate": 3}\n{"cand', '{"cand', "\n\n"):
        searched.path.write_text(whole + more)
        assert resumed(searched).done == 3
        assert searched.path.read_text() == whole


def test_files_of_another_version(searched: Journal) -> None:
    text = searched.path.read_text()
    searched.path.write_text(text.replace('"trajectory": 6', '"trajectory": 4'))
    with pytest.raises(
        ResumeError, match="jsonl: was written by another version of pai; force=True starts the search again"
    ):
        resumed(searched)
    searched.path.write_text(text)
    searched.state_path.write_bytes(sealed(save({}), {"trajectory": "4"}))
    with pytest.raises(
        ResumeError, match="safetensors: was written by another version of pai; force=True starts the search"
    ):
        resumed(searched)


def test_files_that_cannot_be_read(searched: Journal) -> None:
    for path in (searched.state_path, searched.path):
        assert path is not None
        path.unlink()
        path.mkdir()
        with pytest.raises(ResumeError, match=f"^{re.escape(str(path))}: cannot be read: Is a directory$"):
            resumed(searched)


FACTS: dict[str, Any] = {
    "done": 3.0,
    "best": 3,
    "best_rounds": 0,
    "best_measures": {"l2": "1", "dr_imdb": 1.0},
    "layers": {},
    "sources": {"fc1.weight": 7, "fc2.weight": 0},
    "best_sources": {"fc1.weight": True, "fc2.weight": 0},
}


@pytest.mark.parametrize("name", FACTS)
def test_facts_that_cannot_be(searched: Journal, name: str) -> None:
    """With a digest that is right: what a state says is looked at all the same."""
    data = searched.state_path.read_bytes()
    metadata = unsealed(data)
    del metadata["digest"]
    metadata["facts"] = json.dumps(json.loads(metadata["facts"]) | {name: FACTS[name]})
    searched.state_path.write_bytes(sealed(save(load(data)), metadata))
    with pytest.raises(ResumeError, match=r"t\.state\.safetensors: damaged, or no state of a search \("):
        resumed(searched)


def test_a_state_of_another_networks_layers(searched: Journal) -> None:
    state = resumed(searched)
    wish = SearchRequest.of(PruneRequest(get("magnitude"), 0.5), 5, None, "layer")
    with pytest.raises(ResumeError, match="is of other layers than this network's; force=True starts the search again"):
        search(init_network("mlp-6-5-5-4", 4, 0), wish, searched, state)


def test_a_search_does_not_go_on_with_other_data_of_the_same_path(here: Path) -> None:
    images, labels = np.random.default_rng(0).random((40, 24)).astype(np.float32), np.arange(40) % 10
    words = ("sample", "small.safetensors", "--method", "snip", "--density", 0.5, "--data", "d.npz", "--per-class", 1)
    words = (*words, "-o", "best.safetensors", "--jobs", 1)
    np.savez("d.npz", x=images, y=labels)
    assert run_pai(*words, "--population", 2).status == 0
    images[13, 5] += 1
    np.savez("d.npz", x=images, y=labels)
    done = run_pai(*words, "--population", 3, "--resume")
    assert done.status == 1
    assert done.said[-1].startswith("pai: error: best.jsonl: that search had data_sha256 ")


# ---- journals


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """A training's, of two rows, that was begun."""
    one = beside(TRAIN, tmp_path / "o", {"lr": 0.1, "mask": None, "pair": (1, 2)})
    one.begin()
    one.append({"epoch": 1, "loss": 0.25})
    one.append({"epoch": 2, "loss": float("nan")})
    return one


def again(journal: Journal) -> Journal:
    """The same as the next process has it."""
    return beside(journal.run, journal.state_path.with_name("o"), journal.settings)


@pytest.mark.parametrize("finished", [True, False])
def test_no_bit_of_a_journal_is_believed(journal: Journal, finished: bool) -> None:
    if finished:
        journal.finish({"test_accuracy": 0.75, "seconds": 1.5})
    else:
        journal.keep(save(ARRAYS), {"step": 1})
    assert journal.path is not None
    whole, rows, refused = journal.path.read_bytes(), list(journal.read()), 0
    assert rows[1]["loss"] is None
    for data in flipped(whole, 13):
        journal.path.write_bytes(data)
        after = again(journal)
        if said := refusal(after.resume):
            refused += 1
            assert "\n" not in said
            continue
        # Of a finished one whose last row cannot be read nothing is left, and it is run again.
        assert list(after.read()) in (rows, []) if finished else list(after.read()) == rows
    assert refused > len(whole) / 3


def test_no_bit_of_a_state_is_believed(journal: Journal) -> None:
    journal.keep(save(ARRAYS), {"step": 1})
    whole = journal.state_path.read_bytes()
    kept = again(journal).resume()
    assert kept is not None
    assert (kept.facts, kept.rows, sorted(load(kept.data))) == ({"step": 1}, 2, sorted(ARRAYS))
    for data in (*flipped(whole), *(whole[:length] for length in range(len(whole)))):
        with pytest.raises(
            ResumeError, match=r"^[^\n]*o\.state\.safetensors: [^\n]*force=True starts the training again$"
        ):
            journal.parsed(data)


def test_a_journal_is_continued_with_the_same_settings_alone(journal: Journal) -> None:
    journal.keep(save({}), {})
    assert journal.path is not None
    text = journal.path.read_bytes()
    for settings, told in (
        ({"lr": 0.2}, "lr 0.1, this one has 0.2"),
        ({"mask": "m"}, "mask not given, this one has m"),
        ({"lr": None}, "lr 0.1, this one has lr not given"),
        ({"lr": 0.2, "mask": "m"}, "lr 0.1, mask not given; this one has lr 0.2, mask m"),
        (
            {str(n): n for n in range(8)},
            f"{', '.join(f'{n} not given' for n in range(6))} and 2 more; this one has "
            f"{', '.join(f'{n} {n}' for n in range(6))} and 2 more",
        ),
    ):
        other = Journal(TRAIN, {**journal.settings, **settings}, journal.state_path, journal.path)
        with pytest.raises(ResumeError) as caught:
            other.resume()
        assert str(caught.value) == (
            f"{journal.path}: that training had {told}; give the same, or "
            "begin again with force=True instead of resume=True"
        )
    assert journal.path.read_bytes() == text
    other = Journal(TRAIN, {**journal.settings, "lr": 0.2}, journal.state_path)  # a run without rows
    with pytest.raises(ResumeError, match=r"o\.state\.safetensors: that training had lr 0\.1, this one has 0\.2; give"):
        other.resume()


def test_a_journal_of_another_version_of_another_command_or_that_is_a_folder(journal: Journal) -> None:
    assert journal.path is not None
    for text, said in (
        ('{"training": 2}\n', "was written by another version of pai; force=True starts the training again"),
        ('{"trajectory": 6}\n', "is not the journal of a training; give another name, or remove it"),
        ("", "is not the journal of a training; give another name, or remove it"),
    ):
        journal.path.write_text(text)
        assert refusal(journal.resume) == f"{journal.path}: {said}"
        assert journal.path.read_text() == text
    journal.path.unlink()
    journal.path.mkdir()
    assert refusal(journal.resume) == f"{journal.path}: cannot be read: Is a directory"


@pytest.mark.parametrize("told", [{"rows": "-1"}, {"rows": "x"}, {"facts": "[]"}, {"settings": "[]"}, {"training": ""}])
def test_a_state_that_tells_what_cannot_be(journal: Journal, told: dict[str, str]) -> None:
    journal.keep(save({}), {})
    metadata = unsealed(journal.state_path.read_bytes())
    del metadata["digest"]
    metadata = {key: value for key, value in {**metadata, **told}.items() if value}
    journal.state_path.write_bytes(sealed(save({}), metadata))
    assert refusal(journal.resume).startswith(f"{journal.state_path}: damaged, or no state of a training (")


def test_a_run_that_fails_before_anything_was_kept_leaves_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pai")
    one = beside(TRAIN, tmp_path / "o", {})
    one.begin()
    with pytest.raises(KeyboardInterrupt), one.going():
        raise KeyboardInterrupt
    assert (list(tmp_path.iterdir()), caplog.messages) == ([], [])
    one.begin()
    one.append({"epoch": 1})
    with pytest.raises(KeyboardInterrupt), one.going():
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["o.jsonl"]


def put(name: str, value: Any) -> Callable[[TrainingState], object]:
    return lambda state: state.facts.update({name: value})


def tensor(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[TrainingState], object]:
    return lambda state: state.tensors.update({name: change(state.tensors[name])})


WRONG: dict[str, Callable[[TrainingState], object]] = {
    "step of a wrong type": put("step", 2.0),
    "step past the end": put("step", 10**6),
    "step below 0": put("step", -1),
    "evaluated too far": put("evaluated", 3),
    "seconds that are no number": put("seconds", float("nan")),
    "best of other length": put("best", [1, 2]),
    "best epoch to come": put("best", [4, 1, 2, 0.5]),
    "best with more right than there are": put("best", [1, 3, 2, 0.5]),
    "best of a wrong type": put("best", [True, 1, 2, 0.5]),
    "a tensor less": lambda state: state.tensors.pop("model/conv1.weight"),
    "a tensor more": lambda state: state.tensors.update({"model/x": torch.ones(1)}),
    "a tensor of another type": tensor("model/conv1.weight", torch.Tensor.double),
    "masks of another type": tensor("masks/conv1.weight", torch.Tensor.float),
    "masks of another shape": tensor("masks/conv1.weight", lambda one: one[:1]),
    "totals of another shape": tensor("run/totals", lambda one: one[:1]),
    "the best epoch's, of another shape": tensor("best/conv1.weight", lambda one: one[:1]),
    "momentum of another shape": tensor("optimizer/0.momentum_buffer", lambda one: one[:1]),
    "momentum of no parameter": lambda state: state.tensors.update({"optimizer/999.momentum_buffer": torch.ones(1)}),
    "what no optimizer remembers": lambda state: state.tensors.update({"optimizer/0.other": torch.ones(1)}),
}


@pytest.fixture(scope="module")
def halfway() -> TrainingState:
    torch.set_num_threads(1)
    one = trainer(residual(), masks_of(residual()), recipe())
    one.train(one.steps_in_epoch * 2 + 1)
    state = one.state()
    trainer(residual(), masks_of(residual()), recipe()).load(copy_of(state))  # as it is, it is gone on from
    return state


def copy_of(state: TrainingState) -> TrainingState:
    return TrainingState(dict(state.tensors), dict(state.facts))


@pytest.mark.parametrize("wrong", WRONG)
def test_a_training_goes_on_from_nothing_that_cannot_be(halfway: TrainingState, wrong: str) -> None:
    state = copy_of(halfway)
    WRONG[wrong](state)
    with pytest.raises((ValueError, KeyError)):
        trainer(residual(), masks_of(residual()), recipe()).load(state)


def test_what_adam_remembers(tmp_path: Path) -> None:
    wish = recipe(optimizer=Optimizer.ADAM)
    one = trainer(residual(), {}, wish)
    one.train(2)
    state = through_a_file(one.state(), tmp_path)
    trainer(residual(), {}, wish).load(state)
    state.tensors["optimizer/0.step"] = torch.ones(1)
    with pytest.raises(ValueError, match="of parameter 0 has another shape"):
        trainer(residual(), {}, wish).load(state)


@pytest.mark.parametrize("method", ["gem-miner", "imp"])
def test_rounds_that_cannot_be(method: str) -> None:
    options = {"epochs": 5, "freeze_every": 2} if method == "gem-miner" else {"epochs": 2, "rewind": 0.5}
    request = PruneRequest(
        get(method), 0.2, training=TrainingOptions(**options, batch_size=20), rounds=2 if method == "imp" else None
    )
    states: list[TrainingState] = []
    prune(residual(), request, dataset=toy(), run=TrainingRun(keep=states.append, keep_every=-1.0))
    first, last = states[0], states[-1]
    flags = {name: one.numpy() for name, one in last.part("flags").items()}
    done = last.facts["rounds_done"]
    few = dict(list(flags.items())[1:])
    runs = [
        TrainingRun(state=last, done=0, masks=flags),
        TrainingRun(state=last, done=done, masks=None),
        TrainingRun(state=last, done=99, masks=flags),
        TrainingRun(state=last, done=done, masks=few),
        TrainingRun(state=last, done=done, masks={name: one[:1] for name, one in flags.items()}),
        TrainingRun(state=last, done=done, masks={name: one.astype(np.uint8) for name, one in flags.items()}),
        TrainingRun(state=replace(first, facts={**first.facts, "step": 10**9})),
        TrainingRun(
            state=replace(first, tensors={**first.tensors, "buffers/x": torch.ones(1), "model/x": torch.ones(1)})
        ),
    ]
    if method == "imp":
        gone = {name: one for name, one in last.tensors.items() if not name.startswith("rewound/")}
        runs.append(TrainingRun(state=replace(last, tensors=gone), done=done, masks=flags))
    for run in runs:
        run.intact = beside(TRAIN, Path("m"), {}).intact
        with pytest.raises(ResumeError, match=r"^m\.state\.safetensors: damaged, or no state of a training \("):
            prune(residual(), request, dataset=toy(), run=run)


# ---- data


def test_every_value_of_data_in_memory_counts() -> None:
    stored, labels = np.random.default_rng(0).integers(0, 255, (3000, 3, 2, 2)).astype(np.uint8), np.arange(3000) % 10
    data = ArrayDataset("d", 10, labels, stored, next(iter(CIFAR.values())))
    before = digest_of([data])
    assert digest_of([replace(data, stored=stored.copy())]) == before
    changed = stored.copy()
    changed[1717, 1, 1, 0] ^= 1
    assert digest_of([replace(data, stored=changed)]) != before
    assert digest_of([replace(data, labels=labels[::-1])]) != before
    turned = stored.transpose(0, 1, 3, 2).copy().transpose(0, 1, 3, 2)  # equal values, another order in memory
    assert digest_of([replace(data, stored=turned)]) == before


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Forty images in two folders."""
    for number in range(40):
        path = tmp_path / "tree" / f"class{number % 2}" / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (SIDE, SIDE, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(path)
    return tmp_path / "tree"


def test_the_size_of_every_image_file_counts(tree: Path) -> None:
    before = digest_of([open_dataset(str(tree))])
    assert digest_of([open_dataset(str(tree))]) == before
    with (tree / "class0" / "18.png").open("ab") as stream:
        stream.write(b"\0")
    assert digest_of([open_dataset(str(tree))]) != before


def test_a_worker_that_finds_other_files_is_told(tree: Path, tmp_path: Path) -> None:
    code = tmp_path / "own.py"
    code.write_text(
        "from pai_cli.models.network import init_network\ndef make():\n    return init_network('mlp-6-5-4', 4, 0).model\n"
    )
    wish = SearchRequest.of(PruneRequest(get("magnitude"), 0.5), 3, None)
    of_data = Workshop(init_network("mlp-6-5-4", 4, 0), wish, open_dataset(str(tree)))
    of_code = Workshop(init_network("mlp-6-5-4", 4, 0), wish, factory=f"{code}:make")
    sent = [pickle.dumps(one) for one in (of_data, of_code)]
    for one in sent:
        pickle.loads(one)
    (tree / "class0" / "18.png").write_bytes((tree / "class0" / "20.png").read_bytes() + b"\0")
    code.write_text(code.read_text() + "\n")
    for one, name in zip(sent, ("tree", str(code)), strict=True):
        with pytest.raises(ClusterError) as caught:
            pickle.loads(one)
        assert (
            str(caught.value) == f"{name}: a worker finds other content there than this machine; copy it to all of them"
        )


# ---- the store


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, told: list[str]) -> Iterator[Store]:
    with closing(open_store(tmp_path / "s.db", told.append)) as opened:
        yield opened


def two_masks(folder: Path) -> list[Path]:
    """Two of one size, and of one time of change."""
    paths = [save_mask(folder / f"{n}.safetensors", {"w": random_mask((30, 40), 0.3, n)}) for n in range(2)]
    for path in paths:
        os.utime(path, (10**9, 10**9))
    assert paths[0].stat().st_size == paths[1].stat().st_size
    return paths


@pytest.mark.parametrize("large", [False, True])
def test_masks_of_one_name_size_and_time(tmp_path: Path, store: Store, large: bool) -> None:
    one, other = two_masks(tmp_path)
    if large:  # two files of 17 MiB, which differ in a weight
        flags = np.zeros((4096, 4352), dtype=bool)
        flags[:100, :100] = random_mask((100, 100), 0.5)
        for path in (one, other):
            save_mask(path, {"w": flags})
            os.utime(path, (10**9, 10**9))
            flags[np.unravel_index(np.argmax(flags), flags.shape)] = False
    request = AnalysisRequest(layers=("w",))
    (first,) = analyze_masks([one], request, store=store)
    (wanted,) = analyze_masks([other], request)
    inode = one.stat().st_ino
    shutil.copyfile(other, one)
    os.utime(one, (10**9, 10**9))  # what `cp -p` does
    assert one.stat().st_ino == inode
    (found,) = analyze_masks([one], request, store=store)
    assert found.report == wanted.report != first.report


@pytest.mark.parametrize("how", ["written over", "exchanged", "weights"])
def test_what_changes_while_it_is_measured_is_not_kept(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    one, other = two_masks(tmp_path)
    weights = tmp_path / "weights.safetensors"
    save_file({"w": np.ones((30, 40), np.float32)}, weights)
    original = many.measure_mask

    def slow(*given: Any) -> Any:
        report = original(*given)
        if how == "written over":
            one.write_bytes(other.read_bytes())
            os.utime(one, (10**9, 10**9))
        elif how == "exchanged":
            os.replace(other, one)  # noqa: PTH105
        else:
            os.utime(weights, (1, 1))
        return report

    monkeypatch.setattr(many, "measure_mask", slow)
    request = AnalysisRequest(weights=open_checkpoint(weights))
    (report,) = analyze_masks([one], request, store=store)
    assert report.error is None
    store.write()
    with closing(
        sqlite3.connect(store.path)
    ) as database:  # the unmasked layer's measures follow from the weights alone
        assert database.execute("SELECT count(*) FROM results").fetchone() == (0 if how == "weights" else 1,)


def test_a_mask_whose_bytes_change_unnoticed_is_not_kept(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a mapped file's may: no time tells it."""

    one, other = two_masks(tmp_path)
    monkeypatch.setattr(cache, "_stamps", lambda paths: ())
    entry = ReportCache(store, AnalysisRequest()).look(one)
    keeper = ReportCache(store, AnalysisRequest())
    (report,) = analyze_masks([one], AnalysisRequest())
    one.write_bytes(other.read_bytes())
    keeper.keep(entry, report)
    assert entry.seen is not None
    assert store.get(keeper.key(entry, "cpu"), layers=True) is None


def test_which_file_a_weight_is_in_counts(tmp_path: Path, store: Store) -> None:
    """Two shards that both have it: the index, which is neither, says whose it is."""
    (mask, _) = two_masks(tmp_path)
    for number in range(2):
        weights = np.random.default_rng(number).standard_normal((30, 40))
        save_file({"w": weights, f"only{number}": np.ones(2)}, tmp_path / f"s{number}")
    index = tmp_path / "w.safetensors.index.json"
    found = []
    for number in range(2):
        places = {"w": f"s{number}", "only0": "s0", "only1": "s1"}
        index.write_text(json.dumps({"weight_map": dict(sorted(places.items()))}))
        request = AnalysisRequest(weights=open_checkpoint(index))
        (report,) = analyze_masks([mask], request, store=store)
        (wanted,) = analyze_masks([mask], request)
        assert report.report == wanted.report
        found.append(report.report)
    assert found[0] != found[1]


def test_what_follows_from_code_is_not_kept(tmp_path: Path, store: Store) -> None:
    (mask, _) = two_masks(tmp_path)
    torch.save({"w": torch.from_numpy(random_mask((30, 40)))}, tmp_path / "m.pt")
    torch.save({"w": torch.ones(30, 40)}, tmp_path / "w.pt")
    plain = ReportCache(store, AnalysisRequest())
    trusting = ReportCache(store, AnalysisRequest(trust=True))
    assert plain.look(tmp_path / "m.pt").seen is not None
    assert trusting.look(tmp_path / "m.pt").seen is None
    assert trusting.look(mask).seen is not None
    weights = open_checkpoint(tmp_path / "w.pt")
    assert ReportCache(store, AnalysisRequest(weights=weights)).kept
    assert not ReportCache(store, AnalysisRequest(weights=weights, trust=True)).kept


def test_weights_that_are_gone_are_told_where_they_are_read(tmp_path: Path, store: Store) -> None:
    save_file({"w": np.ones((30, 40), np.float32)}, tmp_path / "w.safetensors")
    weights = open_checkpoint(tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").unlink()
    assert not ReportCache(store, AnalysisRequest(weights=weights)).kept


def test_no_bit_of_a_row_is_believed(store: Store, told: list[str]) -> None:
    store.put(b"k", b"network", b"layers")
    store.write()
    assert store._database is not None
    row = store._database.execute("SELECT network, layers FROM results").fetchone()
    store._database.execute("BEGIN")
    for place in range(2):
        for data in flipped(row[place]):
            damaged = (*row[:place], data, *row[place + 1 :])
            store._database.execute("UPDATE results SET network = ?, layers = ?", damaged)
            assert store.get(b"k", layers=True) is None
            assert (store.get(b"k", layers=False) is None) == (place == 0)
    store._database.execute("COMMIT")
    assert told == [f"{store.path}: has damaged rows; what they were of is measured again"]
    store.put(b"k", b"network", b"layers")
    store.write()
    assert store.get(b"k", layers=True) == (b"network", b"layers")


@pytest.mark.parametrize("value", ["text", 7, 1.5, None, b"", b"short"])
def test_a_row_of_another_type(store: Store, told: list[str], value: object) -> None:
    assert store._database is not None
    store._database.executescript("DROP TABLE results; CREATE TABLE results (key, network, layers)")
    store._database.execute("INSERT INTO results VALUES (?, ?, ?)", (b"k", value, value))
    assert store.get(b"k", layers=True) is None
    assert len(told) == 1


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM results WHERE key = x'62'; UPDATE results SET key = x'62'",
        "UPDATE results SET network = layers, layers = network",
        "UPDATE results SET network = (SELECT network FROM results WHERE key = x'61')",
    ],
)
def test_rows_are_not_exchanged(store: Store, change: str) -> None:
    store.put(b"a", b"one", b"other")
    store.put(b"b", b"two", b"more")
    store.write()
    assert store.get(b"b", layers=True) == (b"two", b"more")
    assert store._database is not None
    store._database.executescript(change)
    assert store.get(b"b", layers=True) is None


def test_a_store_of_the_form_before_is_emptied(tmp_path: Path, told: list[str]) -> None:
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(
            "CREATE TABLE results (key BLOB PRIMARY KEY, network BLOB NOT NULL, layers BLOB NOT NULL);"
            "CREATE TABLE digests (path TEXT PRIMARY KEY, stamp TEXT NOT NULL, digest TEXT NOT NULL);"
            "INSERT INTO results VALUES (x'61', x'00', x'00');"
            f"PRAGMA user_version = 1; PRAGMA application_id = {0x70616973};"
        )
    with closing(open_store(path, told.append)) as store:
        assert store.get(b"a", layers=True) is None
        store.put(b"a", b"n", b"l")
        store.write()
        assert store.get(b"a", layers=True) == (b"n", b"l")
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall() == [("results",)]
    assert told == []


def test_damaged_rows_are_one_note(pai: Pai, tmp_path: Path) -> None:
    masks = sorted(SAMPLES.glob("*-0.02.safetensors"))[:3]
    words = ("analyze", *masks, "--format", "csv", "--store", tmp_path / "s.db")
    before = pai(*words)
    with closing(sqlite3.connect(tmp_path / "s.db")) as database:
        database.execute("UPDATE results SET network = layers")
        database.commit()
    after = pai(*words)
    assert (after.status, after.out) == (0, before.out)
    assert [line for line in after.said if "damaged" in line] == [
        f"pai: {tmp_path / 's.db'}: has damaged rows; what they were of is measured again"
    ]
    assert pai(*words).err == before.err


def test_words_that_sqlite_cannot_decode(store: Store, told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of a damaged schema are in its messages, and need not be text."""

    class Damaged:
        def execute(self, *_: object) -> None:
            b"\xe5".decode()

        def close(self) -> None:
            pass

    monkeypatch.setattr(store, "_database", Damaged())
    assert store.get(b"k", layers=True) is None
    assert told == [f"{store.path}: is damaged; going on without the store"]
    assert not store.open


# ---- the disk


@pytest.mark.parametrize("force", [False, True])
def test_a_files_name_is_on_the_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, force: bool) -> None:
    synced: list[bool] = []
    there: list[bool] = []

    def fsync(descriptor: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        there.append((tmp_path / "a").exists())

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomically(tmp_path / "a", lambda stream: stream.write(b"x") and None, force=force)
    assert (synced, there) == ([False, True], [False, True])


def test_a_folder_that_cannot_be_flushed_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(22, "Invalid argument")
        inner(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomically(tmp_path / "a", lambda stream: stream.write(b"x") and None, force=True)
    assert (tmp_path / "a").read_bytes() == b"x"


def test_no_state_is_on_the_disk_before_its_lines(searched: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []

    def fsync(descriptor: int) -> None:
        unnamed = os.fstat(descriptor).st_nlink == 0
        synced.append("unnamed" if unnamed else Path(f"/proc/self/fd/{descriptor}").resolve().suffix)

    monkeypatch.setattr(os, "fsync", fsync)
    keep_search(searched, resumed(searched))
    assert synced[-3:] == [".jsonl", "unnamed", ""]


def test_of_two_jobs_that_begin_at_once_one_is_refused(tmp_path: Path) -> None:
    """Both looked at their outputs before either had begun."""
    first, second = (beside(TRAIN, tmp_path / "t.safetensors", {"seed": seed}) for seed in (0, 1))
    first.opened(lambda: None, resume=False, force=False)
    first.keep(save({}), {})
    before = (tmp_path / "t.jsonl").read_bytes(), first.state_path.read_bytes()
    with pytest.raises(
        OutputError, match=r"t\.jsonl: another process has begun a training here; give another name with"
    ):
        second.opened(lambda: None, resume=False, force=False)
    assert before == ((tmp_path / "t.jsonl").read_bytes(), first.state_path.read_bytes())
    second.opened(lambda: None, resume=False, force=True)
    assert b'"seed": 1' in (tmp_path / "t.jsonl").read_bytes()
    assert not first.state_path.exists()
    (tmp_path / "t.jsonl").write_bytes(b"")  # an empty file is in nobody's way
    first.opened(lambda: None, resume=False, force=False)
    assert b'"seed": 0' in (tmp_path / "t.jsonl").read_bytes()
