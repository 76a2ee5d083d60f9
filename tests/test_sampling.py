"""`pai sample`: the best is the best, the density exact, and however often it is stopped it ends the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import chdir
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Done, Pai, run_pai
from networks import wrap
from safetensors import safe_open
from safetensors.numpy import load_file, save
from torch import nn

from pai_cli.errors import ResumeError
from pai_cli.files.journal import Journal
from pai_cli.files.masks import MaskFile
from pai_cli.files.sealed import sealed
from pai_cli.methods.registry import get
from pai_cli.models.network import Network, init_network
from pai_cli.pruning.run import PruneRequest
from pai_cli.random import numbered_generator
from pai_cli.sampling import candidates as making
from pai_cli.sampling import measuring
from pai_cli.sampling import search as searching
from pai_cli.sampling.candidates import Workshop
from pai_cli.sampling.request import NoiseUnit
from pai_cli.sampling.search import SearchRequest, search
from pai_cli.sampling.state import SearchState, open_search
from pai_cli.spectral.metrics import MetricOptions
from pai_cli.spectral.solvers import Solver, SolverOptions

Line = dict[str, Any]
STATE = "best.state.safetensors"


def sample(population: int, *flags: object, method: str = "erk", density: object = 0.5, seed: int = 0) -> Done:
    return run_pai(
        "sample", "small.safetensors", "--method", method, "--density", density, "--seed", seed,
        "--population", population, "-o", "best.safetensors", *flags,
    )  # fmt: skip


def lines(path: Path | str = "best.jsonl") -> list[Line]:
    """The candidates' lines."""
    return [json.loads(line) for line in Path(path).read_text().splitlines()[1:]]


def result(folder: Path | str = ".") -> tuple[dict[str, bytes], str]:
    """What a search ends with: the mask's tensors, and the trajectory."""
    tensors = load_file(Path(folder) / "best.safetensors")
    return {name: array.tobytes() for name, array in tensors.items()}, (Path(folder) / "best.jsonl").read_text()


Searched = Callable[..., tuple[Path, Done]]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, small: Path) -> Searched:
    """A search that nothing stopped: its folder, only to be read, and what the command left. Each is made once."""

    @cache
    def made(population: int, *flags: object, **options: Any) -> tuple[Path, Done]:
        folder = tmp_path_factory.mktemp("searched")
        shutil.copy(small, folder / "small.safetensors")
        with chdir(folder):
            done = sample(population, "--format", "json", *flags, **options)
        assert done.status == 0, done.err
        return folder, done

    return made


@pytest.fixture
def begun(here: Path, searched: Searched) -> Path:
    """The working folder with the files of a search of three candidates."""
    for path in searched(3)[0].glob("best.*"):
        shutil.copy(path, here)
    return here


class Stopped(KeyboardInterrupt):
    """Ctrl-C, at a place of the test's choosing."""


def stop_at(monkeypatch: pytest.MonkeyPatch, where: object, name: str, call: int) -> None:
    """Interrupt instead of the call number `call` (from 0) of a function."""
    original: Callable[..., Any] = getattr(where, name)
    calls: Iterator[int] = iter(range(10**9))

    def stopping(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == call:
            raise Stopped
        return original(*args, **kwargs)

    monkeypatch.setattr(where, name, stopping)


@pytest.mark.parametrize("method", ["erk", "random", "magnitude"])
def test_the_best_is_the_largest_and_the_density_exact(pai: Pai, searched: Searched, method: str) -> None:
    folder, done = searched(12, method=method, density=0.4)
    found = lines(folder / "best.jsonl")
    assert [line["candidate"] for line in found] == list(range(12))
    values = [line["l2"] for line in found]
    first, best = done.json()
    assert (best["candidate"], best["l2"]) == (values.index(max(values)), max(values))
    assert (first["candidate"], first["l2"], best["candidates"]) == (0, values[0], 12)
    file = MaskFile(folder / "best.safetensors")
    kept = sum(int(file.array(name).sum()) for name in file.names)
    assert {line["kept"] for line in found} == {kept}
    assert abs(kept - 0.4 * 696) <= (0.5 if method != "erk" else 3)
    files = folder / "best.safetensors", "--weights", folder / "small.safetensors"
    measured = pai("analyze", *files, "--summary", "--format", "json")
    assert measured.json()[0]["l2"] == pytest.approx(max(values), rel=1e-12)


@pytest.mark.parametrize("method", ["erk", "magnitude"])
def test_the_trajectory_tells_how_it_went(searched: Searched, method: str) -> None:
    found, best = lines(searched(12, method=method, density=0.4)[0] / "best.jsonl"), -1.0
    for line in found:
        assert line["taken"] == (line["l2"] > best)
        best = max(best, line["l2"])
        assert line["best_l2"] == best == found[line["best"]]["l2"]
        assert all(line[f"best_{name}"] == found[line["best"]][name] for name in ("dr_imdb", "lambda_imsg"))
    shares = [line["explored"] for line in found]
    assert shares == sorted(shares)
    assert shares[0] == pytest.approx(found[0]["kept"] / 696)
    assert shares[0] < shares[-1] <= 1
    assert len({line["l2"] for line in found}) == 12  # candidates vary: by seed, or by noise


@pytest.mark.parametrize("method", ["erk", "magnitude", "synflow"])
def test_candidate_0_is_the_method_s_own(pai: Pai, here: Path, method: str) -> None:
    sample(1, method=method, seed=5)
    command = ["prune", "small.safetensors", "--method", method, "--density", 0.5, "--seed", 5, "-o", "own"]
    assert pai(*command).status == 0
    own = {name: array.tobytes() for name, array in load_file("own").items()}
    assert result()[0] == own


@pytest.mark.parametrize("method", ["erk", "magnitude"])
def test_the_seed_decides(here: Path, searched: Searched, method: str) -> None:
    results = [result(searched(7, "--select", "mask", method=method)[0])]
    for seed in (0, 2):
        sample(7, "--force", method=method, seed=seed)
        results.append(result())
    assert results[0] == results[1]
    texts = [text.split("\n", 1)[1] for _, text in results]
    assert texts[0] != texts[2]


def test_without_noise_every_candidate_of_a_method_that_draws_nothing_is_its_own(here: Path) -> None:
    sample(4, "--noise", 0, method="magnitude")
    assert len({line["l2"] for line in lines()}) == 1
    assert [line["taken"] for line in lines()] == [True, False, False, False]


def test_more_noise_goes_further(here: Path) -> None:
    shares = []
    for noise in (0.01, 0.1, 1.0):
        sample(4, "--noise", noise, "--force", method="magnitude")
        shares.append(lines()[-1]["explored"])
    assert shares == sorted(set(shares))


def test_the_checkpoint_is_left_alone_by_noise() -> None:
    network = init_network("mlp-24-16-12-10", 10, 0)
    before = {name: value.clone() for name, value in network.model.state_dict().items()}
    workshop = Workshop(network, SearchRequest(PruneRequest(get("magnitude"), 0.5), 3, 0.5))
    noisy = workshop.noisy(np.random.default_rng(0)).model.state_dict()
    assert all((before[name] == value).all() for name, value in network.model.state_dict().items())
    assert {n for n, value in noisy.items() if not (before[n] == value).all()} == {one.name for one in network.layers}
    drawn = {name: value.clone() for name, value in noisy.items()}
    workshop.noisy(np.random.default_rng(1))
    again = workshop.noisy(np.random.default_rng(0)).model.state_dict()
    assert all((drawn[name] == value).all() for name, value in again.items())  # noise does not add up


def one_layer() -> Network:
    """Of weights whose standard deviation is not 1."""
    return wrap(nn.Sequential(nn.Linear(24, 10)), (24,))


def search_by(network: Network, noise: float, unit: NoiseUnit, method: str = "magnitude") -> Workshop:
    asked = SearchRequest.of(PruneRequest(get(method), 0.5, seed=3), 5, noise, noise_unit=unit)
    return Workshop(network, asked)


def test_noise_of_a_weight_is_that_of_a_layer_times_its_spread() -> None:
    """With one layer the two units are one number apart: the same weights, and so the same masks, for the same seed."""
    network = one_layer()
    own = network.parameter("0.weight").detach().double().numpy()
    spread = float(np.sqrt(((own - own.mean()) ** 2).mean()))
    by_layer, by_weight = search_by(network, 0.7, "layer"), search_by(network, 0.7 * spread, "weight")
    for number in range(1, 4):
        found = [
            one.noisy(numbered_generator(3, number)).parameter("0.weight").detach() for one in (by_layer, by_weight)
        ]
        torch.testing.assert_close(*found, rtol=1e-6, atol=0)
        masks = [making.chosen(one, number)[0]["0.weight"] for one in (by_layer, by_weight)]
        assert np.array_equal(*masks)
        assert not np.array_equal(masks[0], making.chosen(by_layer, 0)[0]["0.weight"])


def test_noise_of_a_weight_is_as_large_in_every_layer() -> None:
    network = init_network("mlp-24-16-12-10", 10, 0)
    with torch.no_grad():
        network.parameter(network.layers[0].name).mul_(100)
    workshop = search_by(network, 0.02, "weight")
    twin, drawn = workshop.noisy(np.random.default_rng(4)), np.random.default_rng(4)
    for layer in network.layers:
        added = (twin.parameter(layer.name) - network.parameter(layer.name)).detach().numpy()
        np.testing.assert_allclose(added, 0.02 * drawn.standard_normal(layer.shape), atol=2e-6)


@pytest.mark.parametrize(
    ("flags", "noise", "unit"), [([], "0.1", "layer"), (["--noise", 0.3, "--noise-unit", "weight"], "0.3", "weight")]
)
def test_the_noise_stands_in_lines_and_mask(here: Path, flags: list[object], noise: str, unit: str) -> None:
    assert sample(3, *flags, method="magnitude").status == 0
    settings = json.loads(Path("best.jsonl").read_text().splitlines()[0])
    assert (settings["noise"], settings["noise_unit"]) == (float(noise), unit)
    told = MaskFile(Path("best.safetensors")).metadata
    assert (told["noise"], told["noise_unit"]) == (noise, unit)


def test_where_there_is_no_noise_none_is_told(here: Path, searched: Searched) -> None:
    folder = searched(3)[0]
    assert not {"noise", "noise_unit"} & MaskFile(folder / "best.safetensors").metadata.keys()
    assert "noise_unit" not in json.loads((folder / "best.jsonl").read_text().splitlines()[0])


# --- stopped and continued

PLACES = {
    "between candidates": (searching._Taker, "take", 4),
    "at the first": (making, "chosen", 0),
    "while a candidate is made": (making, "chosen", 4),
    "while one is measured": (making, "measure", 4),
    "before its line is written": (Journal, "append", 4),
    "while what all kept is updated": (searching, "_share", 4),
}


@pytest.mark.parametrize(("method", "select"), [("erk", "mask"), ("magnitude", "mask"), ("magnitude", "layer")])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.usefixtures("here")
def test_stopped_anywhere_it_ends_the_same(searched: Searched, method: str, select: str, place: str) -> None:
    wanted = result(searched(7, "--select", select, method=method)[0])
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, *PLACES[place])
        done = sample(7, "--select", select, method=method)
    assert done.status == 130
    first = place == "at the first"
    kept = f"pai: {STATE}: 4 of 7 candidates are done and kept; the same command with --resume goes on"
    assert done.said[-2:][first:] == [kept, "pai: interrupted"][first:]
    assert Path("best.jsonl").exists() != first
    done = sample(7, "--select", select, *["--resume"][first:], method=method)
    assert (done.status, result()) == (0, wanted), done.err


@pytest.mark.parametrize("select", ["mask", "layer"])
@pytest.mark.usefixtures("here")
def test_stopped_while_the_best_is_exchanged_no_older_mask_takes_its_place(searched: Searched, select: str) -> None:
    folder, _ = searched(12, "--select", select)
    wanted = result(folder)
    better = next(line["candidate"] for line in lines(folder / "best.jsonl")[1:] if line["taken"])
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, SearchState, "become", better)
        assert sample(12, "--select", select).status == 130
    assert sample(12, "--select", select, "--resume").status == 0
    assert result() == wanted


@pytest.mark.parametrize("back", [0, 1, 6])
def test_lines_that_the_state_has_not_seen_are_measured_again(here: Path, searched: Searched, back: int) -> None:
    """A crash between a line and the state: the state is that of an earlier moment, the last line may be half."""
    wanted = result(searched(7, "--select", "mask", method="magnitude")[0])
    if back:
        sample(back, method="magnitude")
        (here / "best.safetensors").unlink()
    (here / "best.jsonl").write_text(wanted[1][:-20])
    assert sample(7, "--resume", method="magnitude").status == 0
    assert result() == wanted


@pytest.mark.parametrize("select", ["mask", "layer"])
@pytest.mark.parametrize("method", ["erk", "magnitude"])
@pytest.mark.usefixtures("here")
def test_extended_it_equals_a_larger_search(searched: Searched, method: str, select: str) -> None:
    sample(3, "--select", select, method=method)
    assert sample(7, "--select", select, "--resume", method=method).status == 0
    assert result() == result(searched(7, "--select", select, method=method)[0])


@pytest.mark.parametrize("select", ["mask", "layer"])
def test_candidates_are_measured_by_the_convention(pai: Pai, here: Path, select: str) -> None:
    done = sample(3, "--select", select, "--convention", "f23", "--format", "json")
    records = done.json()
    assert {record["convention"] for record in records} == {"f23"}
    told = pai("analyze", "best.safetensors", "--weights", "small.safetensors", "--convention", "f23", "--summary",
               "--format", "json", "--no-store").json()  # fmt: skip
    assert records[-1]["l2"] == pytest.approx(told[0]["l2"], rel=1e-9)
    with safe_open("best.safetensors", "np") as file:
        assert file.metadata()["convention"] == "f23"
    plain = pai("analyze", "best.safetensors", "--weights", "small.safetensors", "--summary", "--format", "json").json()
    assert plain[0]["l2"] != pytest.approx(told[0]["l2"], rel=1e-6)


@pytest.mark.usefixtures("begun")
def test_resumed_when_finished_nothing_changes() -> None:
    wanted = result()
    assert sample(3, "--resume").status == 0
    assert result() == wanted


def test_layers_without_an_answer_are_told_of_once_and_in_every_line(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = MetricOptions(SolverOptions(solver=Solver.POWER, most_products=1), dense=False)
    monkeypatch.setattr(measuring, "MetricOptions", lambda **_: short)
    done = sample(3, "--jobs", "1")
    assert done.status == 0, done.err
    told = "no singular values were found of fc1.weight, fc2.weight, fc3.weight: not converged"
    assert [line for line in done.said if "singular" in line] == [
        f"pai: warning: candidate 0: {told}; its means are without them, and the reasons in best.jsonl tell of other "
        "candidates"
    ]
    assert [line["reason"].endswith(told) for line in lines()] == [True] * 3


def test_the_state_is_saved_when_a_candidate_fails(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = init_network("mlp-24-16-12-10", 10, 0)
    wish = SearchRequest(PruneRequest(get("erk"), 0.5), 6, 0.1)
    journal, state = open_search(here / "m.safetensors", None, wish.settings("x"), resume=False, force=False)
    stop_at(monkeypatch, making, "measure", 3)
    with pytest.raises(Stopped):
        search(network, wish, journal, state)
    kept = journal.resume()
    assert kept is not None
    assert (kept.rows, kept.facts["done"]) == (3, 3)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--density", 0.4), "density 0.5, this one has 0.4"),
        (("--seed", 3), "seed 0, this one has 3"),
        (("--method", "random"), "method erk, scope layer; this one has method random, scope global"),
        (("--ignore", "fc2"), "ignore [], this one has ['fc2']"),
        (("--pattern", "2:4"), "pattern not given, this one has 2:4"),
        (("--pattern", "1:4"), "density 0.5, pattern not given; this one has density 0.25, pattern 1:4"),
        (
            ("--densities", "layers.json"),
            "density 0.5, densities not given; this one has density not given, densities [['*', 0.5]]",
        ),
        (("--select", "layer"), "select mask, this one has layer"),
        (("--convention", "f23"), "convention h23, this one has f23"),
        (("--by", "dr_imdb"), "by l2, this one has dr_imdb"),
    ],
)
@pytest.mark.usefixtures("begun")
def test_other_settings_are_not_continued(pai: Pai, flags: tuple[object, ...], told: str) -> None:
    before = result()
    Path("layers.json").write_text('{"*": 0.5}')
    amount = () if flags[0] in ("--pattern", "--densities", "--density") else ("--density", 0.5)
    method = () if flags[0] == "--method" else ("--method", "erk")
    words = ("sample", "small.safetensors", *method, *amount, "--population", 6, "-o", "best.safetensors", "--resume")
    done = pai(*words, *flags)
    assert done.status == 1
    assert done.said[-1] == (
        f"pai: error: best.jsonl: that search had {told}; give the same, or begin again with --force instead of --resume"
    )
    assert result() == before


def test_a_default_is_told_by_its_value_and_may_be_given(here: Path) -> None:
    sample(3, method="synflow")
    defaults = ("--by", "l2", "--rounds", 100, "--scope", "global", "--ties", "first", "--select", "mask")
    assert sample(3, "--resume", *defaults, method="synflow").status == 0
    for flags, had in (
        (("--scope", "layer"), "scope global, this one has layer"),
        (("--rounds", 3), "rounds 100, this one has 3"),
    ):
        done = sample(3, "--resume", *flags, method="synflow")
        assert (done.status, f"that search had {had}; give the same" in done.err) == (1, True)


def test_other_noise_is_not_continued(here: Path) -> None:
    sample(3, method="magnitude")
    done = sample(6, "--resume", "--noise", 0.2, method="magnitude")
    assert done.status == 1
    assert "that search had noise 0.1, this one has 0.2" in done.said[-1]
    done = sample(6, "--resume", "--noise", 0.1, "--noise-unit", "weight", method="magnitude")
    assert done.status == 1
    assert "that search had noise_unit layer, this one has weight" in done.said[-1]
    assert sample(6, "--resume", "--noise-unit", "layer", method="magnitude").status == 0


def test_noise_is_refused_where_it_would_do_nothing(here: Path) -> None:
    done = sample(3, "--noise", 0.2)
    assert done.status == 2
    assert done.said[-1] == (
        "pai: error: --noise 0.2: erk draws at random, so its candidates differ by their seeds; leave --noise out"
    )


NO_UNIT = {
    "draws": (
        ["--noise-unit", "weight"],
        "erk",
        "weight: erk draws at random, so its candidates differ by their seeds; leave --noise-unit out",
    ),
    "no noise": (
        ["--noise", 0, "--noise-unit", "weight"],
        "magnitude",
        "weight: --noise 0 adds nothing in any unit; leave --noise-unit out",
    ),
    "no size": (
        ["--noise-unit", "weight"],
        "magnitude",
        "weight: give --noise too, as its default, 0.1, is of each layer's own",
    ),
    "unknown": (
        ["--noise", 1, "--noise-unit", "std"],
        "magnitude",
        "std: give one of layer, weight; pai sample --help lists what it takes",
    ),
}


@pytest.mark.parametrize("name", NO_UNIT)
def test_a_unit_is_refused_where_it_says_nothing(here: Path, name: str) -> None:
    flags, method, said = NO_UNIT[name]
    before = sorted(here.iterdir())
    done = sample(3, *flags, method=method)
    assert (done.status, done.said[-1]) == (2, f"pai: error: --noise-unit {said}")
    assert sorted(here.iterdir()) == before


def test_resuming_replaces_its_own_mask_and_no_other(pai: Pai, begun: Path) -> None:
    assert sample(4, "--resume").status == 0
    assert pai(
        "prune", "small.safetensors", "--method", "random", "--density", 0.5, "-o", "best.safetensors", "--force"
    )
    before = (begun / "best.safetensors").read_bytes()
    done = sample(5, "--resume")
    assert done.status == 1
    assert done.said[-1] == "pai: error: best.safetensors: exists already; --force replaces it"
    assert (begun / "best.safetensors").read_bytes() == before


def test_a_search_cannot_be_written_to_a_device(here: Path) -> None:
    done = sample(3, "--trajectory", "/dev/null")
    assert done.status == 1
    assert done.said[-1] == (
        "pai: error: /dev/null: is a device or a pipe, and a search must be read again; name a file"
    )
    assert not Path("/dev/null.state.safetensors").exists()


@pytest.mark.usefixtures("begun")
def test_another_checkpoint_is_not_continued(pai: Pai) -> None:
    assert pai("init", "mlp-24-16-12-10", "--seed", 1, "-o", "small.safetensors", "--force").status == 0
    done = sample(6, "--resume")
    assert done.status == 1
    assert "best.jsonl: that search had source_sha256 " in done.said[-1]


def test_nothing_to_continue(here: Path) -> None:
    done = sample(3, "--resume")
    assert done.status == 1
    assert done.said[-1] == "pai: error: best.jsonl: no search to continue here; leave --resume out to begin one"
    assert not (here / "best.jsonl").exists()


@pytest.mark.parametrize(
    "text",
    [b"", b"not json\n", b"[1]\n", b'"x"\n', b"\xff\xfe\x00\x01", b"[" * 100_000],
    ids=["empty", "text", "list", "string", "binary", "deep"],
)
def test_a_file_that_is_no_trajectory(here: Path, text: bytes) -> None:
    (here / "best.jsonl").write_bytes(text)
    done = sample(3, "--resume")
    assert done.status == 1
    assert done.said[-1] == "pai: error: best.jsonl: is not the trajectory of a search; give another name, or remove it"
    assert (here / "best.jsonl").read_bytes() == text


def spoilt(change: Callable[[dict[str, np.ndarray], dict[str, str]], None]) -> None:
    """Write the state again, changed."""
    data = Path(STATE).read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    arrays, metadata = load_file(STATE), header["__metadata__"]
    change(arrays, metadata)
    del metadata["digest"]  # a new one is written, so that what is refused is what the state says
    Path(STATE).write_bytes(sealed(save(arrays), metadata))


DAMAGE: dict[str, Callable[[dict[str, np.ndarray], dict[str, str]], object]] = {
    "no facts": lambda arrays, metadata: metadata.pop("facts"),
    "facts are no JSON": lambda arrays, metadata: metadata.update(facts="{"),
    "facts are a list": lambda arrays, metadata: metadata.update(facts="[1]"),
    "facts without a name": lambda arrays, metadata: metadata.update(facts='{"done": 3, "other": 1}'),
    "facts of a wrong type": lambda arrays, metadata: metadata.update(
        facts=json.dumps({**json.loads(metadata["facts"]), "done": "3"})
    ),
    "layers of other names": lambda arrays, metadata: metadata.update(
        facts=json.dumps({**json.loads(metadata["facts"]), "layers": {"fc9.weight": {}}})
    ),
    "shapes are a list": lambda arrays, metadata: metadata.update(
        facts=json.dumps({**json.loads(metadata["facts"]), "shapes": []})
    ),
    "shapes too large": lambda arrays, metadata: metadata.update(
        facts=json.dumps(
            {**(facts := json.loads(metadata["facts"])), "shapes": {name: [99, 99] for name in facts["shapes"]}}
        )
    ),
    "rows that are none": lambda arrays, metadata: metadata.update(rows="-1"),
    "a tensor is missing": lambda arrays, metadata: arrays.pop("best/fc1.weight"),
    "a tensor is short": lambda arrays, metadata: arrays.update({"best/fc1.weight": np.zeros(2, np.uint8)}),
    "a tensor of another dtype": lambda arrays, metadata: arrays.update({"best/fc1.weight": np.zeros(48, np.float32)}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_state(begun: Path, damage: str) -> None:
    spoilt(DAMAGE[damage])
    before = (begun / "best.jsonl").read_bytes()
    done = sample(6, "--resume")
    assert done.status == 1, done.err
    assert done.said[-1].startswith(f"pai: error: {STATE}: damaged, or no state of a search (")
    assert done.said[-1].endswith("; --force starts the search again")
    assert (begun / "best.jsonl").read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"text", None], ids=["empty", "text", "truncated"])
def test_a_state_that_is_no_safetensors_file(begun: Path, content: bytes | None) -> None:
    path = begun / STATE
    path.write_bytes(path.read_bytes()[:-5] if content is None else content)
    done = sample(6, "--resume")
    assert done.status == 1
    assert done.said[-1].startswith(f"pai: error: {STATE}: damaged, or no state of a search (")


@pytest.mark.usefixtures("begun")
def test_a_state_of_another_search() -> None:
    shutil.copy(STATE, "kept")
    sample(3, "--force", seed=1)
    shutil.copy("kept", STATE)
    done = sample(6, "--resume", seed=1)
    assert done.status == 1
    assert done.said[-1] == (
        f"pai: error: {STATE}: that search had seed 0, this one has 1; give the same, or begin again with --force instead "
        "of --resume"
    )


def test_a_trajectory_shorter_than_its_state(begun: Path) -> None:
    text = (begun / "best.jsonl").read_text().splitlines(keepends=True)
    (begun / "best.jsonl").write_text("".join(text[:-2]))
    done = sample(6, "--resume")
    assert done.status == 1
    assert done.said[-1] == (
        f"pai: error: best.jsonl: is not as it was when {STATE} was written; --force starts the search again"
    )


def test_a_begun_search_is_not_written_over(begun: Path) -> None:
    before = result()
    (begun / "best.safetensors").unlink()
    done = sample(3, seed=1)
    assert done.status == 1
    assert done.said[-1] == (
        "pai: error: best.jsonl: a search was begun here; --resume continues it, --force starts it again"
    )
    assert (begun / "best.jsonl").read_text() == before[1]
    assert sample(3, "--force", seed=1).status == 0
    assert result()[1] != before[1]


@pytest.mark.usefixtures("begun")
def test_force_starts_from_nothing() -> None:
    wanted = result()
    sample(5, "--force", seed=1)
    assert sample(3, "--force").status == 0
    assert result() == wanted


# --- where the files go


@pytest.mark.parametrize("flags", [["--density", 1.5], ["--rounds", 3], ["--ignore", "nothing*"]], ids=lambda f: f[0])
def test_a_search_that_cannot_begin_leaves_nothing(pai: Pai, here: Path, flags: list[object]) -> None:
    density = [] if flags[0] == "--density" else ["--density", 0.5]
    command = ["sample", "small.safetensors", "--method", "erk", *density, "--population", 3, "-o", "best.safetensors"]
    assert pai(*command, *flags).status == 2
    assert [path.name for path in here.iterdir()] == ["small.safetensors"]


def test_two_densities_in_the_names_are_two_searches(pai: Pai, here: Path) -> None:
    """Without a suffix the last part of `erk-0.2` looks like one."""
    for density in ("0.2", "0.3"):
        command = ["sample", "small.safetensors", "--method", "erk", "--density", density, "--population", 2]
        done = pai(*command, "-o", f"erk-{density}")
        assert done.status == 0, done.err
    assert len(list(here.glob("*.jsonl"))) == 2


def test_the_trajectory_elsewhere(here: Path) -> None:
    sample(2, "--trajectory", "how-it-went.jsonl")
    assert {path.name for path in here.iterdir()} == {
        "small.safetensors",
        "best.safetensors",
        "how-it-went.jsonl",
        "how-it-went.state.safetensors",
    }


@pytest.mark.parametrize(
    ("mask", "trajectory"), [("x.jsonl", None), ("x", "x"), ("x.state.safetensors", "x.jsonl")], ids=str
)
def test_one_file_cannot_be_two(pai: Pai, here: Path, mask: str, trajectory: str | None) -> None:
    flags = [] if trajectory is None else ["--trajectory", trajectory]
    search = "sample small.safetensors --method erk --density 0.5 --population 2 --force"
    done = pai(*search.split(), "-o", mask, *flags)
    if done.status == 0:  # other names were found, so that both are there
        assert MaskFile(here / mask).is_ours
        assert [len(lines(path)) for path in here.glob("x*.jsonl") if path.name != mask] == [2]
        assert [path.name for path in here.glob("x*.state.safetensors") if path.name != mask]
    else:
        assert [path.name for path in here.iterdir()] == ["small.safetensors"]


def test_a_trajectory_that_is_a_folder(here: Path) -> None:
    (here / "folder").mkdir()
    done = sample(2, "--trajectory", "folder")
    assert done.status == 1
    assert done.said[-1].startswith("pai: error: folder: is a directory")


def test_resume_errors_are_for_library_users_too(tmp_path: Path) -> None:
    with pytest.raises(ResumeError, match="no search to continue"):
        open_search(tmp_path / "m", None, {}, resume=True, force=False)
    settings = {"source_sha256": "x", "method": "erk", "seed": 0, "density": 0.5}
    for resume in (False, True):
        _, state = open_search(tmp_path / "m", None, settings, resume=resume, force=False)
        assert state == SearchState()
