"""`analyze` as a program calls it: reports, tables, pictures, and what it refuses."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, Pai, random_mask, save_mask
from torch import nn

from pai_cli.analysis.masks import MaskReport
from pai_cli.api.analyze import analyze, reports
from pai_cli.api.remarks import tell_unproved
from pai_cli.api.report import JunctionReport, Report, Value
from pai_cli.commands.analyze import analyze as command
from pai_cli.errors import (
    ArrayError,
    MaskError,
    MissingPackageError,
    OutputError,
    ParameterError,
    PictureError,
    UnknownNameError,
)
from pai_cli.spectral.metrics import MetricOptions
from pai_cli.spectral.network import LayerInput, measure_together, summarise
from pai_cli.spectral.solvers import SolverOptions
from pai_cli.telling import PaiWarning, Repeated

SHOWING = {"format", "columns", "sort", "no_header"}


@pytest.fixture(scope="module")
def names(small: Path) -> list[str]:
    from safetensors.numpy import load_file

    return [name for name, array in load_file(small).items() if array.ndim == 2]


@pytest.fixture(scope="module")
def masks(small: Path, names: list[str]) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    tensors = load_file(small)
    return {name: random_mask(tensors[name].shape, 0.6, seed=at) for at, name in enumerate(names)}


@pytest.fixture(scope="module")
def file(masks: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_mask(tmp_path_factory.mktemp("masks") / "one.safetensors", masks, method="random")


def test_the_parameters_are_the_commands() -> None:
    theirs = inspect.signature(command).parameters
    ours = inspect.signature(analyze).parameters
    assert [name for name in ours if name != "progress"] == [name for name in theirs if name not in SHOWING]
    defaults = {name: one.default for name, one in theirs.items() if name in ours}
    assert {name: one.default for name, one in ours.items() if name != "progress"} == defaults
    assert list(inspect.signature(reports).parameters) == list(ours)


# A report ------------------------------------------------------------------------------------------------------------


def test_a_report_is_what_the_command_gives(file: Path, small: Path, pai: Pai) -> None:
    report = analyze(file, small)
    shown = pai("analyze", file, "--weights", small, "--format", "json").json()
    told = report.to_dict()
    assert [*told["layers"], told["network"]] == shown
    json.dumps(told, allow_nan=False)
    assert report["dr_imdb"] == Value(shown[-1]["dr_imdb"], shown[-1]["dr_imdb_error"])
    for record in shown[:-1]:
        layer = report.layers[record["layer"]]
        assert report.layers[record["layer"], "lambda"].value == layer["lambda"].value == record["lambda"]
        for name in [
            "rows",
            "columns",
            "n_R",
            "n_L",
            "d_R",
            "d_L",
            "kept",
            "total",
            "density",
            "components",
            "n_regular",
        ]:
            assert getattr(layer, name) == record[name]
    assert list(report.layers) == [record["layer"] for record in shown[:-1]]
    assert (report.path, report.name, report.error) == (file, str(file), None)
    assert (report.kept, report.total, report.density) == tuple(
        shown[-1][name] for name in ("kept", "total", "density")
    )
    assert report.metadata["method"] == "random"
    assert report.counted["dr"] == shown[-1]["dr_layers"]


def test_a_missing_value_has_its_reason(file: Path) -> None:
    report = analyze(file)
    value = report["lambda"]
    assert (value.value, value.error) == (None, None)
    assert value.reason is not None
    assert "weights" in value.reason
    assert not any(
        "\ue000" <= letter <= "\ue002" for letter in value.reason + repr(report) + json.dumps(report.to_dict())
    )


def test_a_name_that_is_not_there(file: Path) -> None:
    report = analyze(file)
    for ask in (lambda: report["dr2"], lambda: report.layers["nope"], lambda: report.layers["nope", "dr"]):
        with pytest.raises(UnknownNameError):
            ask()
        with pytest.raises(KeyError, match=r"no (metric|layer) '(dr2|nope)'; there are"):
            ask()
    assert report.network.get("dr2") is None
    assert "dr" in report.network
    with pytest.raises(KeyError, match="summary=True leaves them out"):
        analyze(file, summary=True).layers["nope"]


def test_a_summary_has_no_layers(file: Path) -> None:
    report = analyze(file, summary=True)
    assert len(report.layers) == 0
    assert report["dr"] == analyze(file)["dr"]
    assert report.to_dict()["layers"] == []
    with pytest.raises(PictureError, match="summary=True"):
        report.plot()


def test_it_shows_itself_as_the_command_does(
    file: Path, small: Path, pai: Pai, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for weights in ([], [small]):
        report = analyze(file, *weights)
        shown = pai("analyze", file, *(["--weights", small] if weights else []))
        lines = [line.rstrip() for line in shown.out.splitlines() if line.strip()]
        assert [line for line in repr(report).splitlines() if line.strip()] == lines
    assert str(report) == repr(report)
    monkeypatch.setenv("COLUMNS", "60")
    assert "no room for" in repr(report)
    assert max(map(len, repr(report).splitlines()[1:-1])) <= 60  # below the path


def test_a_notebook_gets_escaped_html(tmp_path: Path) -> None:
    path = save_mask(tmp_path / "<b>&.safetensors", {"<script>x</script>": random_mask((8, 8), 0.8)})
    html = analyze(path)._repr_html_()
    assert "<script>" not in html
    assert "<b>" not in html
    assert "&lt;script&gt;" in html
    assert html.count("<table>") == html.count("</table>") == 1


def test_a_pandas_table_has_a_row_a_layer(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    report = analyze(file)
    table = report.to_pandas()
    assert list(table["layer"]) == list(report.layers)
    assert list(table["dr"]) == [layer["dr"].value for layer in report.layers.values()]
    assert not any(name.endswith("_layers") for name in table.columns)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingPackageError, match="pip install pandas"):
        report.to_pandas()
    with pytest.raises(ImportError):
        report.to_pandas()


def test_a_picture_is_axes(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = pytest.importorskip("matplotlib.figure")
    monkeypatch.setenv("MPLBACKEND", "agg")
    report = analyze(file)
    own = figures.Figure()
    axes = report.plot(own)
    assert axes == own.axes
    drawn = {line.get_label(): list(line.get_ydata()) for line in axes[0].lines}
    assert drawn["dr_bound"] == [layer["dr_bound"].value for layer in report.layers.values()]
    from matplotlib import pyplot

    made = report.plot()
    assert len(made) == len(axes)
    assert pyplot.fignum_exists(made[0].figure.number)
    pyplot.close("all")


# Masks as a program has them -----------------------------------------------------------------------------------------


def test_masks_in_memory(file: Path, small: Path, masks: dict[str, np.ndarray]) -> None:
    from pai_cli.api.masks import Mask

    expected = analyze(file, small)
    tensors = {name: torch.from_numpy(array).to(torch.float32) for name, array in masks.items()}
    for given in (masks, tensors, Mask(masks), Mask.load(file)):
        report = analyze(given, small)
        assert {name: one.value for name, one in report.network.items()} == {
            name: one.value for name, one in expected.network.items()
        }
    assert analyze(masks).path is None


def test_weights_in_memory_are_never_looked_up(file: Path, small: Path) -> None:
    """What was stored of other weights is not given for these."""
    from safetensors.torch import load_file

    state = load_file(small)
    first = analyze(file, state)
    assert first["lambda"] == analyze(file, small)["lambda"]
    doubled = analyze(file, {name: tensor * 2 for name, tensor in state.items()})
    assert doubled["lambda"].value == pytest.approx(2 * first["lambda"].value, rel=1e-9)


def test_a_network_in_memory_knows_its_groups() -> None:
    model = nn.Sequential(nn.Conv2d(8, 16, 3, groups=4), nn.ConvTranspose2d(16, 8, 3))
    mask = {name: torch.ones_like(one) for name, one in model.named_parameters() if one.dim() > 1}
    report = analyze(mask, model)
    assert (report.layers["0.weight"].rows, report.layers["0.weight"].columns) == (16, 8 * 9)
    assert (report.layers["1.weight"].rows, report.layers["1.weight"].columns) == (8, 16 * 9)
    assert report.layers["0.weight"].components == 4


def test_several_masks_are_a_list(file: Path, masks: dict[str, np.ndarray], tmp_path: Path) -> None:
    found = analyze([str(file), masks], no_store=True)
    assert [one.name for one in found] == [str(file), "masks[1]"]
    assert found[0]["dr"] == found[1]["dr"]
    for name in ("a", "b"):
        save_mask(tmp_path / f"{name}.safetensors", masks)
    assert [one.name for one in analyze(tmp_path)] == [str(tmp_path / f"{name}.safetensors") for name in "ab"]


def test_masks_in_memory_go_to_processes(small: Path, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import load_file

    from pai_cli.analysis import many

    monkeypatch.setattr(many, "QUICK", 0.0)
    state = load_file(small)
    given = [{name: random_mask(tuple(state[name].shape), 0.5, seed=at) for name in names} for at in range(4)]
    apart = analyze(given, state, jobs=2, no_store=True)
    here = analyze(given, state, jobs=1, no_store=True)
    assert [one.to_dict() for one in apart] == [one.to_dict() for one in here]


def test_a_program_without_a_main_guard_runs_once(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import numpy as np\nfrom pai_cli.analysis import many\nfrom pai_cli.api.analyze import analyze\nmany.QUICK = 0\n"
        "print('begins')\n"
        "masks = [{'a.weight': np.random.default_rng(at).random((20, 30)) < 0.5} for at in range(4)]\n"
        "print(len(analyze(masks, jobs=2, no_store=True)))\n"
    )
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, check=False, cwd=ROOT, env=_paths()
    )
    assert (done.returncode, done.stdout.split()) == (0, ["begins", "4"]), done.stderr


def _paths() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize(
    ("masks", "kind", "text"),
    [
        (np.ones((3, 3)), ParameterError, "an array is one matrix, and a mask has names"),
        (3, ParameterError, "masks=3: give a path, a mapping of names to arrays"),
        ([3], ParameterError, "masks=3: is neither a path nor a mapping"),
        (
            nn.Sequential(nn.Linear(2, 2)),
            ParameterError,
            r"a network is no mask, pai.Mask.of\(model\) is that of its zeros",
        ),
        (None, ParameterError, "masks=None: give a path"),
        ({}, MaskError, "a mask of no parameter"),
        ({"a": np.full((3, 3), 0.5)}, MaskError, "0.5"),
        ({1: np.ones((3, 3))}, MaskError, "not 1"),
        ({"a": np.ones((3, 3), complex)}, ArrayError, "complex128"),
        ({"a": torch.ones(3, 3, device="meta")}, ArrayError, "meta has no values"),
        ("nowhere.safetensors", MaskError, "nowhere.safetensors: no such file"),
    ],
)
def test_what_is_no_mask_is_refused(masks: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        analyze(masks)


def test_one_of_several_that_fails(file: Path, tmp_path: Path) -> None:
    with pytest.warns(PaiWarning, match=r"gone.safetensors: no such file"):
        found = analyze([file, tmp_path / "gone.safetensors"])
    good, bad = found
    assert good.error is None
    assert isinstance(bad.error, MaskError)
    assert bad["dr"].value is None
    assert "no such file" in str(bad["dr"].reason)
    assert "not measured" in repr(bad)
    assert bad.to_dict()["network"]["outcome"] == "failed"
    assert len(bad.layers) == 0


# What is asked for ---------------------------------------------------------------------------------------------------


def test_layers_and_options(file: Path, names: list[str], pai: Pai) -> None:
    one = analyze(file, layers=names[0])
    assert list(one.layers) == [names[0]]
    assert list(analyze(file, layers=names[:2]).layers) == names[:2]
    plain, weighted = analyze(file), analyze(file, expansion_weighted=True)
    assert weighted["dr_imdb"].value != plain["dr_imdb"].value
    f23 = analyze(file, convention="f23")
    assert (plain.convention, f23.convention, f23.to_dict()["network"]["convention"]) == ("h23", "f23", "f23")
    assert f23.layers[names[0]].convention == f23.layers[names[0]].to_dict()["convention"] == "f23"
    assert f23["dr_imdb"].value != weighted["dr_imdb"].value
    assert analyze(file, solver="direct").layers[names[0]].solver in ("direct", "closed form")


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"solver": "lanczos"}, "solver='lanczos': give one of"),
        ({"convention": "icml"}, "convention='icml': give one of h23, f23"),
        ({"convention": "f23", "expansion_weighted": True}, "expansion_weighted=True: convention=f23 has that factor"),
        ({"device": "tpu"}, "device='tpu': give one of"),
        ({"input_shape": (3, 8, 8)}, "input_shape: is of a network; give its weights=CKPT or model= too"),
        ({"force": True}, "force=True: no file is written"),
        ({"store": "s.db", "no_store": True}, "store= and no_store=True exclude each other"),
        ({"cluster": "slurm"}, "cluster=slurm: give jobs=N"),
        ({"jobs": 0}, "jobs=0: give a whole number"),
        ({"solver": "matrix-free", "certify": True}, "certify=True needs a Gram matrix"),
        ({"between": True}, "between=True follows an input through the network: give its weights=CKPT"),
        ({"between": True, "certify": True}, "certify=True: between=True computes no singular values"),
        ({"between": True, "weights": {}, "input_shape": "3,x"}, "input_shape=3,x: give whole numbers above 0"),
    ],
)
def test_what_does_not_go_together(file: Path, asked: dict[str, Any], text: str) -> None:
    with pytest.raises(ParameterError) as told:
        analyze(file, **asked)
    assert text in str(told.value)
    with pytest.raises(ParameterError):
        reports(file, **asked)  # at once, and not when the first is asked for


def test_usage_errors_exit_with_2(file: Path, pai: Pai) -> None:
    done = pai("analyze", file, "--input-shape", "3,8,8")
    assert (done.status, done.said) == (
        2,
        ["pai: error: --input-shape: is of a network; give its --weights CKPT or --model too"],
    )


def test_reports_come_one_by_one_and_pictures_at_the_end(file: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot, page = tmp_path / "p.svg", tmp_path / "p.html"
    with reports([file], plot=plot, report=page) as found:
        assert isinstance(next(found), Report)
        assert not plot.exists()
    assert plot.exists()
    assert page.exists()
    with pytest.raises(OutputError, match=r"p\.svg"):
        analyze(file, plot=plot)
    analyze(file, plot=plot, force=True)
    with pytest.raises(KeyError), reports([file], plot=tmp_path / "other.svg") as found:
        raise KeyError
    assert not (tmp_path / "other.svg").exists()


def test_progress_is_told(file: Path) -> None:
    told: list[tuple[int, int, str]] = []
    analyze(file, progress=lambda done, total, what="": told.append((done, total, what)), no_store=True)
    assert told[-1][0] == told[-1][1]
    assert {what for _, _, what in told} == {file.name}
    assert analyze(file, progress=True)["dr"] == analyze(file, progress=False)["dr"]


# Between layers ------------------------------------------------------------------------------------------------------


def test_between_layers(file: Path, small: Path, pai: Pai) -> None:
    report = analyze(file, small, between=True)
    assert isinstance(report, JunctionReport)
    shown = pai("analyze", file, "--between", "--weights", small, "--format", "json").json()
    told = report.to_dict()
    assert [*told["pairs"], told["network"]] == shown
    assert report["compatibility"].value == shown[-1]["compatibility"]
    for record in shown[:-1]:
        pair = report.pairs[record["writer"], record["reader"]]
        assert (pair["copeland"].value, pair.live) == (record["copeland"], record["live"])
    assert "network mean" in repr(report)
    assert report._repr_html_().startswith("<div")
    assert [one.name for one in analyze([file, file], small, between=True)] == [str(file)]
    assert analyze(file, small, between=True, summary=True).pairs == {}


def test_between_layers_of_a_network_in_memory() -> None:
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
    mask = {"0.weight": random_mask((6, 8), 0.6), "2.weight": random_mask((4, 6), 0.6)}
    report = analyze(mask, model, between=True, input_shape=(8,))
    assert list(report.pairs) == [("0.weight", "2.weight")]
    assert report.path is None
    assert 0 <= report["compatibility"].value <= 1


# What it costs -------------------------------------------------------------------------------------------------------


def test_a_fresh_process_imports_no_torch(file: Path) -> None:
    program = (
        "import sys\nfrom pai_cli.api.analyze import analyze\nfrom pai_cli.api.rank import rank\n"
        f"report = analyze({str(file)!r}, no_store=True)\nrepr(report), report.to_dict()\nrank([report])\n"
        "print(sorted({'torch', 'pandas', 'matplotlib', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT, env=_paths()
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_refusals_import_nothing_heavy() -> None:
    program = (
        "import sys\nfrom pai_cli.api.analyze import analyze\nfrom pai_cli.errors import UsageError\n"
        "try:\n    analyze('m.safetensors', input_shape='3,8,8')\nexcept UsageError:\n    pass\n"
        "print(sorted({'torch', 'numpy', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT, env=_paths()
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_everything_that_is_said_is_said_once(file: Path, masks: dict[str, np.ndarray], tmp_path: Path) -> None:
    dead = save_mask(tmp_path / "dead.safetensors", {**masks, next(iter(masks)): np.zeros((16, 24), bool)})
    with pytest.warns(PaiWarning, match="collapsed layers") as told:
        report = analyze(dead)
    assert len(told) == 1
    assert len(report.collapsed) == 1


def test_layers_without_an_answer_are_named() -> None:
    path = np.eye(400, dtype=bool) | np.eye(400, k=1, dtype=bool)  # 2 cos(k pi / 801): close together
    options = MetricOptions(SolverOptions(most_products=100))
    network = summarise(
        measure_together([LayerInput("path", path), LayerInput("other", np.ones((4, 6), dtype=bool))], options)
    )
    assert network.unanswered == ("path",)
    with pytest.warns(PaiWarning) as said:
        tell_unproved(MaskReport(Path("mask.pt"), {}, network), Repeated())
    assert [str(one.message) for one in said] == [
        "mask.pt: no singular values were found of path: not converged; pai analyze solver=gram or direct goes another "
        "way"
    ]
