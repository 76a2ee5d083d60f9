"""Pictures: what is drawn is what was measured, gaps are gaps, the same numbers give the same bytes."""

from __future__ import annotations

import io
import json
import math
import os
import pty
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import CHARACTERS, ROOT, SAMPLES, Pai, random_mask, save_mask
from hypothesis import given
from hypothesis import strategies as st

from pai_cli.analysis.many import analyze_masks
from pai_cli.analysis.masks import AnalysisRequest, MaskReport
from pai_cli.app import app
from pai_cli.display.bars import PLAIN, SIDE, bar
from pai_cli.display.figures import canvas, layers
from pai_cli.display.figures.canvas import Picture, drawn, named, short_labels, write_picture
from pai_cli.display.figures.layers import LayerProfile, profile_picture
from pai_cli.display.figures.plane import plane_picture
from pai_cli.display.figures.scatter import Shade, markers_of, shade_bar
from pai_cli.display.figures.study import study_picture
from pai_cli.display.figures.trajectory import trajectory_picture
from pai_cli.display.short_names import short_layers
from pai_cli.errors import PictureError
from pai_cli.files.checkpoints import open_checkpoint
from pai_cli.ranking.bootstrap import Resampling
from pai_cli.ranking.entrants import scores_to_correlate
from pai_cli.ranking.expression import Score
from pai_cli.ranking.plane import plane_points
from pai_cli.ranking.scored import ScoredMask
from pai_cli.ranking.study import correlate
from pai_cli.spectral.catalogue import METRICS
from pai_cli.spectral.metrics import NO_WEIGHTS
from pai_cli.spectral.result import Measure

pytestmark = pytest.mark.usefixtures("measured_once")

MASK = SAMPLES / "erk-0.05.safetensors"
SAME_DENSITY = sorted(SAMPLES.glob("*-0.05.safetensors"))


@contextmanager
def painted(picture: Picture) -> Iterator[Any]:
    """The figure of a picture, not laid out yet."""
    with canvas._matplotlib() as figure_of:
        figure = figure_of(figsize=(picture.width, picture.height), layout="constrained")
        picture.paint(figure)
        yield figure


@pytest.fixture(scope="module")
def reports() -> list[MaskReport]:
    weights = open_checkpoint(SAMPLES / "resnet20.safetensors")
    return list(analyze_masks(SAME_DENSITY, AnalysisRequest(weights=weights)))


@pytest.fixture(scope="module")
def small_mask(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mask of one layer, which is drawn soonest; only to be read."""
    return save_mask(tmp_path_factory.mktemp("small") / "m.safetensors", {"w": random_mask((16, 16), 0.5, 0)})


@pytest.fixture(scope="module")
def profiles(reports: list[MaskReport]) -> list[LayerProfile]:
    return [LayerProfile.of(one.path.stem, one.report) for one in reports if one.report is not None]


def deep(profile: LayerProfile, times: int) -> LayerProfile:
    """The same layers again and again under other names."""
    names = tuple(f"stage{at // 20}.block{at % 20}.branch2.conv.weight" for at in range(20 * times))
    values = {name: column * times for name, column in profile.values.items()}
    reasons = {name: Counter({why: n * times for why, n in some.items()}) for name, some in profile.reasons.items()}
    return LayerProfile(profile.label, names, values, reasons)


def lines_of(axes: Any) -> dict[str, list[float]]:
    return {line.get_label(): list(line.get_ydata()) for line in axes.lines}


def texts_of(svg: bytes) -> list[str]:
    root = ElementTree.fromstring(svg)
    return ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]


# --- the files


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["analyze", MASK], "--plot"),
        (["rank", *SAME_DENSITY], "--plot"),
        (
            ["sample", SAMPLES / "resnet20.safetensors", "--method", "erk", "--density", 0.05, "--population", 2],
            "--plot",
        ),
    ],
)
def test_other_suffixes_are_refused_before_any_work(
    pai: Pai, tmp_path: Path, command: list[object], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where `pai sample` would write its mask
    out = tmp_path / "out.jpg"
    done = pai(*command, name, out)
    assert done.status == 2
    assert done.out == ""
    assert done.said[-1] == f"pai: error: {out}: --plot writes .svg, .png or .pdf; end the file's name in one of those"
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_one_line_says_what_to_install(
    pai: Pai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canvas, "find_spec", lambda name: None)
    for flag, name in (("--plot", "out.svg"), ("--report", "out.html")):
        done = pai("analyze", MASK, flag, tmp_path / name)
        assert (done.status, done.out) == (1, "")
        assert done.said == [f"pai: error: {flag}: needs matplotlib; pip install 'pai-cli[plot]'"]
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # found, but it cannot be imported
    with pytest.raises(PictureError, match=r"^plot: needs matplotlib; pip install 'pai-cli\[plot\]'"):
        drawn(Picture("", 1, 1, lambda figure: None), ".svg")


def test_an_existing_picture_stays_without_force(pai: Pai, tmp_path: Path, small_mask: Path) -> None:
    out = tmp_path / "out.svg"
    out.write_text("mine")
    done = pai("analyze", small_mask, "--plot", out)
    assert (done.status, done.out) == (1, "")
    assert done.said == [f"pai: error: {out}: exists already; --force replaces it"]
    assert out.read_text() == "mine"
    done = pai("analyze", small_mask, "--plot", out, "--force")
    assert done.status == 0
    assert done.said[-1] == f"pai: wrote {out}: dr and dr_imdb from layer to layer"
    assert "<svg" in out.read_text()
    assert list(tmp_path.iterdir()) == [out]


def test_a_missing_folder_is_named(pai: Pai, tmp_path: Path) -> None:
    done = pai("analyze", MASK, "--plot", tmp_path / "no" / "out.svg")
    assert done.status == 1
    assert done.said == [
        f"pai: error: {tmp_path}/no/out.svg: the folder {tmp_path}/no does not exist; make it first (mkdir -p {tmp_path}/no)"
    ]


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".SVG"])
def test_the_same_numbers_give_the_same_bytes_whatever_was_set(tmp_path: Path, suffix: str) -> None:
    import matplotlib as mpl

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        axes.plot([1, 3, 2], label="a line")  # in an .svg, clipped by a part with a name of its own
        axes.set_title("of its own width")
        axes.legend()

    one, two = tmp_path / f"one{suffix}", tmp_path / f"two{suffix}"
    picture = Picture("a line", 3, 2, paint)
    write_picture(picture, one, force=False)
    with mpl.rc_context({"lines.linewidth": 9.0, "font.size": 20.0, "svg.hashsalt": "other"}):
        write_picture(picture, two, force=False)
        assert mpl.rcParams["lines.linewidth"] == 9.0  # and is left as it was
    assert one.read_bytes() == two.read_bytes()
    begin = {".svg": b"<?xml", ".png": b"\x89PNG", ".pdf": b"%PDF"}[suffix.lower()]
    assert one.read_bytes().startswith(begin)
    assert b"Date" not in one.read_bytes()


@dataclass(frozen=True)
class Seen:
    """What a process showed on its terminal, 160 wide, and what it said: whether matplotlib was loaded before it drew, and
    what was after."""

    shown: str
    said: str
    picture: int


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory, small_mask: Path) -> Seen:
    """`pai analyze` in a process of its own, at first without pictures, then, of another mask, with a picture and a page."""
    import fcntl
    import struct
    import termios

    code = (
        "import sys\nfrom pai_cli.app import app\n"
        "app(['analyze', sys.argv.pop()], standalone_mode=False)\nsay = ['matplotlib' in sys.modules]\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        "say += [name for name in ('torch', 'matplotlib.pyplot', 'tkinter') if name in sys.modules]\n"
        "print(say, file=sys.stderr)"
    )
    folder = tmp_path_factory.mktemp("process")
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "TERM": "xterm"}
    environment.pop("COLUMNS", None)
    out = ["--plot", str(folder / "out.svg"), "--report", str(folder / "out.html")]
    command = [sys.executable, "-W", "error", "-c", code, "analyze", str(small_mask), *out, str(MASK)]
    with (
        (folder / "said").open("w") as said,
        subprocess.Popen(command, env=environment, stdout=follower, stderr=said) as on,
    ):
        os.close(follower)
        text = b""
        while piece := _read(leader):
            text += piece
    os.close(leader)
    assert on.returncode == 0
    return Seen(text.decode(), (folder / "said").read_text(), (folder / "out.svg").stat().st_size)


def _read(descriptor: int) -> bytes:
    """What comes next from a terminal; nothing when its other end is closed."""
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""


def test_no_window_system_and_no_torch(process: Seen) -> None:
    assert process.said.splitlines()[-1] == "[False]"
    assert all(line.startswith("pai: wrote ") for line in process.said.splitlines()[:-1])
    assert process.picture > 10_000


def test_ctrl_c_leaves_no_picture(pai: Pai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def one_and_out(*a: Any, **k: Any) -> Iterator[MaskReport]:
        yield next(iter(analyze_masks([MASK], AnalysisRequest())))
        raise KeyboardInterrupt

    monkeypatch.setattr("pai_cli.analysis.many.analyze_masks", one_and_out)
    done = pai("analyze", *SAME_DENSITY, "--plot", tmp_path / "out.svg", "--report", tmp_path / "out.html")
    assert done.status == 130
    assert "conv1.weight" in done.out  # what was finished
    assert list(tmp_path.iterdir()) == []


def test_nothing_measured_nothing_drawn(pai: Pai, tmp_path: Path, small_mask: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(MASK.read_bytes()[:1000])
    for flag, out in (("--plot", tmp_path / "out.svg"), ("--report", tmp_path / "out.html")):
        done = pai("analyze", tmp_path / "broken.safetensors", flag, out)
        assert done.status == 1
        assert done.said[-1] == f"pai: error: {out}: nothing to draw, as no mask could be measured"
        assert not out.exists()
    done = pai("analyze", tmp_path / "broken.safetensors", small_mask, "--plot", tmp_path / "out.svg")
    assert done.status == 1  # one failed, the other is drawn
    assert (tmp_path / "out.svg").exists()


# --- layers


def test_a_profile_is_the_report(reports: list[MaskReport], profiles: list[LayerProfile]) -> None:
    with painted(profile_picture(profiles[:1])) as figure:
        gaps, shares = figure.axes
        for axes, name, label in (
            (gaps, "dr", "dr"),
            (gaps, "dr_imdb", "dr_imdb"),
            (gaps, "dr_bound", "dr_bound"),
            (shares, "dr_norm", "dr_norm"),
            (shares, "dr_imdb_norm", "dr_imdb_norm"),
        ):
            measures = [layer.measures[name] for layer in reports[0].report.layers]  # type: ignore[union-attr]
            wanted = [math.nan if one.value is None else one.value for one in measures]
            np.testing.assert_array_equal(lines_of(axes)[label], wanted)
        assert sum(math.isnan(value) for value in lines_of(gaps)["dr"]) == 16
        assert "no dr in 16 of 20 layers: mean degree below 3" in figure._supxlabel.get_text()


def test_several_masks_are_lines_and_many_a_map(profiles: list[LayerProfile]) -> None:
    with painted(profile_picture(profiles)) as figure:
        assert len(figure.axes) == 3
        assert [text.get_text() for text in figure.legends[0].texts] == [one.label for one in profiles]
        np.testing.assert_array_equal(
            lines_of(figure.axes[1])[profiles[3].label], profiles[3].over("dr_imdb", profiles[3].layers)
        )
    many = [one.called(f"mask {at}") for at, one in enumerate(profiles * 2)]
    assert len(many) > layers.MOST_LINES
    with painted(profile_picture(many)) as figure:
        mesh = figure.axes[1].collections[0].get_array()
        assert mesh.shape == (10, 20)
        wanted = np.array([one.over("dr_imdb_norm", one.layers) for one in many])
        np.testing.assert_array_equal(np.ma.getmaskarray(mesh), np.isnan(wanted))
        np.testing.assert_allclose(mesh.compressed(), wanted[~np.isnan(wanted)].clip(-1, 1))


def test_the_map_has_so_many_rows(profiles: list[LayerProfile], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "MOST_ROWS", 8)
    with painted(profile_picture(profiles * 2, 50)) as figure:
        assert figure.axes[0].collections[0].get_array().shape == (8, 20)
        assert "the first 8 of 50 masks; the others are not drawn" in figure._supxlabel.get_text()


def test_other_networks_share_the_axis(profiles: list[LayerProfile]) -> None:
    other = LayerProfile("other", ("conv1.weight", "fc"), dict.fromkeys(layers.DRAWN, (0.5, None)), profiles[0].reasons)
    with painted(profile_picture([profiles[0], other])) as figure:
        line = lines_of(figure.axes[1])["other"]
    assert (len(line), line[0]) == (21, 0.5)
    assert all(math.isnan(value) for value in line[1:])


@pytest.mark.parametrize(("count", "depth"), [(1, 1), (5, 6), (16, 6)])
def test_names_of_layers_do_not_overlap(profiles: list[LayerProfile], count: int, depth: int) -> None:
    some = [deep(one, depth).called(f"mask {at}") for at, one in enumerate((profiles * 4)[:count])]
    with painted(profile_picture(some)) as figure:
        figure.draw_without_rendering()  # which lays it out
        axes = figure.axes[2 if 1 < count <= layers.MOST_LINES else 1]
        boxes = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
        assert len(boxes) >= 20  # and there are enough of them
        assert all(left.x1 <= right.x0 for left, right in pairwise(boxes))
        for part in axes.get_xticklabels():
            assert part.get_window_extent().y0 >= 0


def test_one_layer_and_none_with_a_value(pai: Pai, tmp_path: Path) -> None:
    save_mask(tmp_path / "m.safetensors", {"w": np.zeros((4, 4), dtype=bool) | np.eye(4, dtype=bool)})
    done = pai("analyze", tmp_path / "m.safetensors", "--report", tmp_path / "out.html")
    assert done.status == 0
    text = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert re.search("<text[^>]*>no dr in 1 of 1 layers: mean degree below 3</text>", text)


def test_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    wild = ["<script>&", "a$\\frac{1}{0}$", "évil\x1b[2J", "x" * 500, "\udcff", 'id="a" url(#b)']
    masks = {name: random_mask((12, 12), 0.5, at) for at, name in enumerate(wild) if name.isprintable()}
    path = save_mask(tmp_path / "$m$.safetensors", masks)
    report = next(iter(analyze_masks([path], AnalysisRequest()))).report
    assert report is not None
    profile = LayerProfile.of("$m$\x07", report)
    labelled = LayerProfile(profile.label, (*wild,), dict.fromkeys(layers.DRAWN, (0.1,) * 6), profile.reasons)
    svg = drawn(profile_picture([labelled]), ".svg")
    shown = texts_of(svg)
    for name in wild:
        assert named(name, 30) in shown
    assert "$m$\\x07" in shown
    assert "évil\\x1b[2J" in shown


def test_labels_leave_out_what_all_share() -> None:
    assert short_labels([Path("a/b/x-0.1.pt"), Path("a/c/y-0.2.pt")]) == ["b/x-0.1", "c/y-0.2"]
    assert short_labels([Path("a/x-0.05"), Path("a/y-0.05")]) == ["x-0.05", "y-0.05"]
    assert short_labels([Path("a/x.pt"), Path("a/x.npz")]) == ["x.pt", "x.npz"]
    assert short_labels([Path("/a/x.pt"), Path("a/x.pt")]) == ["/a/x", "a/x"]
    assert short_labels([Path("a/x.pt")]) == ["a/x.pt"]


@given(st.text(CHARACTERS), st.integers(3, 60))
def test_a_name_fits_and_is_printable(text: str, longest: int) -> None:
    short = named(text, longest)
    assert len(short) <= longest
    assert short.isprintable()


# --- the plane


def test_the_plane_is_the_two_halves_of_l2(reports: list[MaskReport]) -> None:
    for report, point in zip(reports, plane_points(reports), strict=True):
        assert report.report is not None
        topology, parameters = [], []
        for layer in report.report.layers:
            value = {name: layer.measures[name].value or 0.0 for name in ("dr", "dr_imdb", "lambda", "lambda_imsg")}
            topology.append(math.hypot(value["dr"], value["dr_imdb"]))
            parameters.append(math.hypot(value["lambda"], value["lambda_imsg"]))
            assert math.hypot(topology[-1], parameters[-1]) == pytest.approx(layer.measures["l2"].value)
        assert point.topology.value == pytest.approx(np.mean(topology))
        assert point.parameters.value == pytest.approx(np.mean(parameters))
        assert 0 < (point.topology.error or 0.0) < 1e-9


def test_without_weights_there_is_no_plane() -> None:
    bare = list(analyze_masks([MASK], AnalysisRequest()))
    (point,) = plane_points(bare)
    assert (point.topology.value, point.topology.reason) == (None, NO_WEIGHTS)


def test_the_plane_coloured_by_accuracy(reports: list[MaskReport]) -> None:
    points = plane_points(reports)
    accuracies = {point.name: 0.1 * at for at, point in enumerate(points[:4])}
    with painted(plane_picture(points, accuracies)) as figure:
        drawn_at = figure.axes[0].collections
        shades = sorted(float(one) for some in drawn_at if some.get_array() is not None for one in some.get_array())
        assert shades == pytest.approx([0.0, 0.1, 0.2, 0.3])
        assert sum(len(some.get_offsets()) for some in drawn_at) == 5
        assert "hollow: 1 of 5 masks have no accuracy" in figure._supxlabel.get_text()
        assert figure.axes[1].get_ylabel() == "accuracy"
    with painted(plane_picture(points)) as figure:
        assert len(figure.axes) == 1
        assert "density 0.05 in all" in figure._supxlabel.get_text()
    several = [replace(point, density=0.01 * (1 + at)) for at, point in enumerate(points)]
    with painted(plane_picture(several)) as figure:
        assert figure.axes[1].get_ylabel() == "density"


def test_a_method_has_one_marker_in_every_picture() -> None:
    kinds = ["synflow", "erk", "snip", "erk", "random-10", "random-2"]
    markers = markers_of(kinds)
    assert markers == markers_of(kinds[::-1])
    assert list(markers) == ["erk", "random-2", "random-10", "snip", "synflow"]
    assert len(set(markers.values())) == 5
    many = markers_of([f"m{at}" for at in range(20)])
    assert many["m0"] != many["m1"]
    assert many["m18"] == many["m19"]  # the last marker is shared


def test_a_scale_has_marks_at_the_values_that_there_are() -> None:
    from matplotlib.figure import Figure

    shade = Shade.of("density", [0.2, 0.05, 0.049999, None, 0.02], powers=True)
    assert [f"{value:.3g}" for value in shade.values] == ["0.02", "0.05", "0.2"]
    figure = Figure(layout="constrained")
    shade_bar(figure, [figure.subplots()], shade)
    assert [f"{tick:.3g}" for tick in figure.axes[1].get_yticks()] == ["0.02", "0.05", "0.2"]
    assert Shade.of("density", [k / 10 for k in range(1, 10)]).values == ()
    alone = Shade.of("density", [0.05, 0.050001], powers=True)
    assert alone.note == ["density 0.05 in all"]
    figure = Figure(layout="constrained")
    shade_bar(figure, [figure.subplots()], alone)
    assert len(figure.axes) == 1  # no scale


def test_layers_without_what_all_share() -> None:
    names = ["model.layers.2.a.weight", "model.layers.10.a.weight", "model.layers.10.b.weight"]
    assert short_layers(names) == (["2.a", "10.a", "10.b"], "model.layers")
    assert short_layers(["fc1.weight", "fc2.weight"]) == (["fc1", "fc2"], "")
    assert short_layers(["a.b.weight"]) == (["a.b"], "")
    assert short_layers(["n.a", "n.a.weight", "n.b.weight"]) == (["a", "a.weight", "b.weight"], "n")


@pytest.mark.parametrize("count", [8, 40])
def test_of_many_densities_a_scale_has_marks_at_some_that_there_are(count: int) -> None:
    densities = [0.01 * 1.07**at for at in range(count)]
    shade = Shade.of("density", densities, powers=True)
    assert set(shade.values) <= set(densities)
    assert (shade.values[0], shade.values[-1], len(shade.values)) == (densities[0], densities[-1], 5)
    assert Shade.of("accuracy", densities).values == ()  # of any numbers: a scale's own marks


def test_a_scale_of_one_value() -> None:
    assert (Shade.of("x", [0.3, None]).low, Shade.of("x", [0.3, None]).high) == (-0.2, 0.8)
    assert Shade.of("x", [0.01], powers=True) == Shade("x", 0.005, 0.02, powers=True, values=(0.01,))
    assert Shade.of("x", [0.0, 1.0], powers=True).powers is False
    assert Shade.of("x", []) == Shade("x", 0.0, 1.0)


# --- metrics against accuracy


def scored(count: int) -> list[ScoredMask]:
    """Masks whose accuracy dr follows closely, l2 less so and downwards, and ds not at all."""
    rng = np.random.default_rng(0)
    masks = []
    for at in range(count):
        accuracy = 0.5 + at / count / 4
        dr, l2, ds = np.array([accuracy, -accuracy, 0.0]) + np.array([0.01, 0.03, 1.0]) * rng.standard_normal(3)
        values = {"dr": Measure(dr, 0.0), "l2": Measure(l2, 0.0), "ds": Measure(ds, 0.0)}
        masks.append(ScoredMask(f"m{at}", 0.05 if at % 2 else 0.1, values, accuracy=accuracy, runs=2, spread=0.01))
    return masks


def study_of(masks: list[ScoredMask]) -> Any:
    scores: list[Score] = scores_to_correlate({name: METRICS[name] for name in ("dr", "l2", "ds")}, None, None)
    return correlate(masks, scores, Resampling(50, 0))


def test_a_plot_a_metric_the_strongest_first() -> None:
    masks = scored(20)
    study = study_of(masks)
    picture = study_picture(study)
    assert picture is not None
    found = study.within(study.main_scope)
    with painted(picture) as figure:
        panels = [axes for axes in figure.axes if axes.get_title(loc="left")]
        assert [axes.get_title(loc="left").split("\n")[0] for axes in panels] == [one.metric for one in found]
        assert {one.metric for one in found[:2]} == {"dr", "l2"}
        for axes, one in zip(panels, found, strict=True):
            told = axes.get_title(loc="left").split("\n")[1]
            assert told == f"tau {one.tau.value:.2f} ({one.tau.low:.2f} to {one.tau.high:.2f}), n = 20"
            (dots,) = [some for some in axes.collections if some.get_array() is not None]
            places = {(float(x), float(y)) for x, y in dots.get_offsets()}
            assert places == {(point.value.value, point.accuracy) for point in study.points[one.metric]}
            assert sorted(set(dots.get_array())) == [0.05, 0.1]
        assert "tau over pairs of masks of equal density, in 2 groups" in figure._supxlabel.get_text()


def test_a_metric_without_values_is_named_not_drawn() -> None:
    study = study_of(scored(12))
    none = tuple(replace(point, value=Measure.missing("mean degree below 3")) for point in study.points["ds"])
    picture = study_picture(replace(study, points=study.points | {"ds": none}))
    assert picture is not None
    assert picture.title.startswith("2 metrics against accuracy")
    assert "not drawn, as no mask has a value: ds" in texts_of(drawn(picture, ".svg"))


def accuracies_csv(path: Path, masks: list[Path]) -> Path:
    lines = [f"{mask},{0.5 + 0.05 * at}" for at, mask in enumerate(masks)]
    path.write_text("\n".join(["mask,accuracy", *lines]) + "\n")
    return path


def test_rank_draws_correlations_and_the_plane(pai: Pai, tmp_path: Path) -> None:
    csv = accuracies_csv(tmp_path / "a.csv", SAME_DENSITY)
    few = ["--resamples", 100, "--metrics", "dr_imdb,l2"]
    command = ["rank", *SAME_DENSITY, "--weights", SAMPLES / "resnet20.safetensors", "--accuracy", csv, *few]
    done = pai(*command, "--plot", tmp_path / "out.svg")
    assert done.status == 0
    assert done.said[-1] == (
        f"pai: wrote {tmp_path}/out.svg: 2 metrics against accuracy, with Kendall's tau and its 95% "
        "interval; 5 masks in the full-spectrum plane, coloured by accuracy"
    )
    texts = texts_of((tmp_path / "out.svg").read_bytes())
    assert any(text.startswith("tau ") and text.endswith("n = 5") for text in texts)
    assert "parameters: sqrt(lambda² + lambda_imsg²)" in texts


def test_rank_draws_an_order(pai: Pai, tmp_path: Path) -> None:
    done = pai("rank", *SAME_DENSITY, "--plot", tmp_path / "out.svg")
    assert done.status == 0
    assert done.said[-1] == f"pai: wrote {tmp_path}/out.svg: dr_imdb of 5 masks against density"
    assert {"density", "dr_imdb", "0.05", "synflow"} <= set(texts_of((tmp_path / "out.svg").read_bytes()))


def test_a_table_without_densities_has_no_order_to_draw(pai: Pai, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("mask,dr_imdb\na,1.0\nb,2.0\n")
    done = pai("rank", "--table", tmp_path / "t.csv", "--plot", tmp_path / "out.svg")
    assert done.status == 1
    assert done.said[-1] == (
        f"pai: error: {tmp_path}/out.svg: nothing to draw: an order is drawn against density, and no mask has both a value "
        "and a density; leave out --plot"
    )
    assert not (tmp_path / "out.svg").exists()
    # The page has tables to show all the same.
    done = pai("rank", "--table", tmp_path / "t.csv", "--plot", tmp_path / "out.svg", "--report", tmp_path / "out.html")
    assert (done.status, (tmp_path / "out.html").exists()) == (1, True)


# --- searches


def test_a_search_is_drawn_and_drawn_again_from_what_it_wrote(pai: Pai, here: Path) -> None:
    command = ["sample", "small.safetensors", "--method", "random", "--density", 0.5, "--population", 4, "-o", "best"]
    done = pai(*command, "--plot", "one.svg")
    assert done.status == 0
    assert done.said[-1] == "pai: wrote one.svg: the best so far of 4 candidates"
    assert pai(*command, "--resume", "--plot", "two.svg").status == 0
    assert (here / "one.svg").read_bytes() == (here / "two.svg").read_bytes()
    lines = [json.loads(line) for line in (here / "best.jsonl").read_text().splitlines()[1:]]
    with painted(trajectory_picture(lines, "random")) as figure:
        for axes, name in zip(figure.axes, ("l2", "dr_imdb", "lambda_imsg"), strict=False):
            best = lines_of(axes)["best so far"]
            wanted = [math.nan if line[f"best_{name}"] is None else line[f"best_{name}"] for line in lines]
            np.testing.assert_array_equal(best, wanted)
        assert list(lines_of(figure.axes[3]).values()) == [[line["explored"] for line in lines]]
        taken = lines_of(figure.axes[0])["a candidate that was taken"]
        wanted = [math.nan if line["l2"] is None else line["l2"] for line in lines if line["taken"]]
        np.testing.assert_array_equal(taken, wanted)


def test_missing_values_of_candidates_are_gaps_with_their_reason() -> None:
    own = {"l2": 1.0, "dr_imdb": None, "lambda_imsg": None, "reason": "dr_imdb: collapsed", "taken": False}
    lines = [{"candidate": at, **own, "best_l2": 1.0, "best_dr_imdb": None, "explored": 0.1} for at in range(3)]
    with painted(trajectory_picture(lines, "x")) as figure:
        assert all(math.isnan(value) for value in lines_of(figure.axes[1])["best so far"])
        assert figure._supxlabel.get_text() == "values missing in 3 of 3 candidates: dr_imdb: collapsed"


@pytest.mark.parametrize("by", ["dr + l2", " + ".join(["l2 * 0.5"] * 60), "l2\n+ dr"])
def test_what_masks_were_taken_by_is_drawn_by_a_name_that_fits(by: str) -> None:
    own = {"l2": 1.0, "dr_imdb": 1.0, "lambda_imsg": 1.0, "reason": "", by: 2.0, "taken": True, "explored": 0.1}
    best = {f"best_{name}": 1.0 for name in ("l2", "dr_imdb", "lambda_imsg", by)}
    with painted(trajectory_picture([{"candidate": 0, **own, **best}], "x")) as figure:
        assert figure.axes[2].get_ylabel() == named(by)
        low, high = figure.axes[2].yaxis.label.get_window_extent().intervaly
        assert 0 <= low < high <= figure.bbox.height


# --- bars


@given(st.none() | st.floats(-1e6, 1e6, allow_nan=False))
def test_every_bar_is_as_wide(share: float | None) -> None:
    for drawn_bar in (bar(share), bar(share, PLAIN)):
        assert len(drawn_bar) == 2 * SIDE + 1
    assert bar(share, PLAIN).isascii()


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_longer_bar_for_a_larger_share(one: float, two: float) -> None:
    small, large = sorted((one, two))
    assert bar(small, PLAIN).count("#") <= bar(large, PLAIN).count("#")
    assert abs(bar(large, PLAIN).count("#") - SIDE * large) <= 0.5


@pytest.mark.parametrize(
    ("share", "wanted"),
    [
        (0.0, "      │      "),
        (0.5, "      │███   "),
        (0.355, "      │██▏   "),
        (1.0, "      │██████"),
        (2.0, "      │██████"),
        (-0.25, "    ▐█│      "),
        (-0.02, "     ▕│      "),
        (-1.0, "██████│      "),
        (-1.5, "<█████│      "),
        (None, "      -      "),
    ],
)
def test_bars(share: float | None, wanted: str) -> None:
    assert bar(share) == wanted


class Terminal(io.TextIOWrapper):
    """A terminal that keeps what is shown."""

    def isatty(self) -> bool:
        return True


def test_bars_stand_on_a_terminal_and_nowhere_else(pai: Pai, process: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "dr_imdb_norm" in process.shown
    assert "│██▏" in process.shown
    with monkeypatch.context() as patch, Terminal(io.BytesIO(), encoding="ascii") as narrow:
        for name, value in (("NO_COLOR", "1"), ("TERM", "xterm"), ("COLUMNS", "110")):
            patch.setenv(name, value)
        patch.setattr(sys, "stdout", narrow)
        app(["analyze", str(MASK)], standalone_mode=False)
        narrow.flush()
        plain = narrow.buffer.getvalue().decode("ascii")
    assert "|##" in plain
    piped = pai("analyze", MASK).out
    assert "dr_imdb_norm" not in piped
    assert "│" not in piped
    # Programs get the number.
    rows = pai("analyze", MASK, "--format", "json").json()
    assert isinstance(rows[0]["dr_imdb_norm"], float)
    assert json.dumps(rows).isascii()
