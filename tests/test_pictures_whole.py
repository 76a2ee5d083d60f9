"""Pictures are whole: no text reaches over the edge, no marks are drawn over each other, no point is cut."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from test_plots import painted, scored, study_of

from pai_cli.analysis.many import analyze_masks
from pai_cli.analysis.masks import AnalysisRequest
from pai_cli.display.figures.canvas import Picture
from pai_cli.display.figures.layers import DRAWN, LayerProfile, profile_picture
from pai_cli.display.figures.learning import training_picture
from pai_cli.display.figures.order import order_picture
from pai_cli.display.figures.overlap import overlap_picture
from pai_cli.display.figures.plane import plane_picture
from pai_cli.display.figures.scatter import LONGEST_BAR
from pai_cli.display.figures.study import study_picture
from pai_cli.mining.overlap import Chance, Overlap
from pai_cli.ranking.order import RankedMask
from pai_cli.ranking.plane import PlanePoint
from pai_cli.spectral.result import Measure

METHODS = ("erk", "magnitude", "random", "synflow", "uniform")


def cut(picture: Picture) -> list[str]:
    """Texts that reach over the edge of the picture, and axes whose marks' names overlap."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    with painted(picture) as figure:
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        renderer, edge, found = canvas.get_renderer(), figure.bbox, []
        axes = [one for one in figure.findobj(lambda one: hasattr(one, "xaxis")) if one.get_visible()]
        marks = [one for each in axes for axis in (each.xaxis, each.yaxis) for one in axis.get_ticklabels()]
        words = [one for one in figure.findobj(Text) if one.get_visible() and one.get_text().strip()]
        for one in set(words) - set(marks):
            box = one.get_window_extent(renderer)
            if box.x0 < -2 or box.y0 < -2 or box.x1 > edge.x1 + 2 or box.y1 > edge.y1 + 2:
                found.append(one.get_text())
        for each in axes:
            for axis in (each.xaxis, each.yaxis):
                drawn = [one for one in axis.get_ticklabels() if one.get_visible() and one.get_text()]
                boxes = [one.get_window_extent(renderer) for one in drawn]
                found += [drawn[at].get_text() for at, (a, b) in enumerate(pairwise(boxes)) if a.count_overlaps([b])]
    return found


def shown(picture: Picture) -> list[str]:
    """The metrics that have plots in it."""
    with painted(picture) as figure:
        told = [axes.get_title(loc="left").split("\n")[0] for axes in figure.axes]
    return [name for name in told if name]


def profiles(count: int) -> list[LayerProfile]:
    """Of networks with 56 layers, whose names share their beginning."""
    parts = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    layers = tuple(f"model.encoder.blocks.{block}.{part}.weight" for block in range(14) for part in parts)
    values = {name: tuple(0.1 + (at % 7) / 5 for at in range(56)) for name in DRAWN}
    none: dict[str, Counter[str]] = {name: Counter() for name in DRAWN}
    return [LayerProfile(f"a-folder/with-a-long-name/mask-{at}", layers, values, none) for at in range(count)]


def points(values: list[float], densities: list[float]) -> list[PlanePoint]:
    return [
        PlanePoint(f"{method}.safetensors", method, density, Measure(1.0, 0.0), Measure(value, 0.0))
        for method, value, density in zip(METHODS, values, densities, strict=False)
    ]


@pytest.mark.parametrize("count", [1, 3, 6, 7, 40])
def test_layers_of_a_deep_network(count: int) -> None:
    assert cut(profile_picture(profiles(count))) == []


def test_what_is_cut_is_seen() -> None:
    """A title as long as the one that was once cut, on a picture as narrow as it was."""
    whole = profile_picture(profiles(1))
    assert cut(replace(whole, paint=lambda figure: figure.suptitle("w" * 300))) == ["w" * 300]


@pytest.mark.parametrize("count", [2, 5, 20, 30])
def test_overlaps(count: int) -> None:
    chance = Chance(1.0, 0.1, 0.5, 0.0)
    names = [f"masks/{METHODS[at % 5]}-{at}.safetensors" for at in range(count)]
    pairs = [Overlap(b, a, (9, 9), 5, chance, (names[b], names[a])) for a in range(count) for b in range(a)]
    notes = [
        "Jaccard 0.0364 to 0.996, by chance at each layer's own density 0.0387 to 0.761: 51 of 105 pairs share more"
    ]
    assert cut(overlap_picture(pairs, names, notes)) == []


@pytest.mark.parametrize("values", [[5.0, 5.001, 5.002], [0.0, 0.01, 3.0]])
def test_points_are_in_the_plane_however_near_each_other(values: list[float]) -> None:
    picture = plane_picture(points(values, [0.05, 0.1, 0.2]))
    assert cut(picture) == []
    with painted(picture) as figure:
        axes = figure.axes[0]
        assert axes.get_xlim()[0] == axes.get_ylim()[0] == 0
        assert axes.get_xlim()[1] > 1.03 * max(values)
        assert axes.get_ylim()[1] > 1.03
        assert not any(one.get_clip_on() for one in axes.collections)  # on the axes themselves


def test_equal_densities_are_no_colours() -> None:
    picture = plane_picture(points([1.0, 2.0], [0.05, 0.05]))
    assert picture.title == "2 masks in the full-spectrum plane"
    with painted(picture) as figure:
        assert len(figure.axes) == 1  # and there is no scale
    assert plane_picture(points([1.0, 2.0], [0.05, 0.1])).title.endswith(", coloured by density")
    masks = [replace(mask, density=0.05) for mask in scored(6)]
    told = study_picture(study_of(masks))
    assert told is not None
    assert told.title == "3 metrics against accuracy, with Kendall's tau and its 95% interval"


def test_an_order() -> None:
    masks = scored(12)
    ranked = [RankedMask(mask, mask.values["dr"], 3, 0, at) for at, mask in enumerate(masks)]
    picture = order_picture(ranked, "dr")
    assert picture is not None
    assert cut(picture) == []


def test_a_study_and_its_scale() -> None:
    picture = study_picture(study_of(scored(12)))
    assert picture is not None
    assert cut(picture) == []
    tall = replace(picture, height=30.0)  # as of forty metrics
    with painted(tall) as figure:
        figure.draw_without_rendering()
        scale = figure.axes[-1].get_window_extent()
        assert scale.height <= 1.05 * LONGEST_BAR * figure.dpi
        assert scale.width < 0.3 * figure.dpi


@pytest.mark.parametrize("epochs", [1, 12, 160])
def test_learning_curves(epochs: int) -> None:
    lines = [
        {
            "epoch": at,
            "lr": 0.1 * 0.9**at,
            "train_loss": 2 / at,
            "validation_loss": 30 / at,
            "train_accuracy": 0.5,
            "validation_accuracy": 0.4,
        }
        for at in range(1, epochs + 1)
    ]
    assert cut(training_picture(lines, "a-folder/" * 12 + "mask.safetensors")) == []


def test_layers_are_in_the_order_of_the_network(tmp_path: Path) -> None:
    """A file of another tool has no order; numbers in names are numbers, as `layers.10` after `layers.2`."""
    names = [f"net.layers.{at}.weight" for at in (0, 2, 10, 11)]
    random = np.random.default_rng(0)
    save_file({name: random.random((8, 8)) < 0.6 for name in sorted(names)}, tmp_path / "m.safetensors")
    [report] = analyze_masks([tmp_path / "m.safetensors"], AnalysisRequest())
    assert report.report is not None
    with painted(profile_picture([LayerProfile.of("m", report.report)])) as figure:
        labels = [label.get_text() for label in figure.axes[1].get_xticklabels()]
        assert labels == ["0", "2", "10", "11"]
        assert figure.axes[1].get_xlabel() == "layers of net.layers"


def test_a_page_has_plots_of_many_metrics_in_pieces() -> None:
    """A sheet of paper holds each; together they are the whole picture."""
    study = study_of(scored(12))
    few = study_picture(study)
    assert few is not None
    assert few.parts == ()
    names = [f"m{at}" for at in range(19)]
    first = study.within(study.main_scope)[0]
    many = study_picture(
        replace(
            study,
            metrics=tuple(names),
            correlations=tuple(replace(first, metric=name) for name in names),
            points=dict.fromkeys(names, study.points[first.metric]),
        )
    )
    assert many is not None
    titles = [shown(part) for part in many.parts]
    assert [len(one) for one in titles] == [8, 8, 3]
    assert [name for one in titles for name in one] == shown(many) == names
    assert [part.title.split(" against")[0] for part in many.parts] == [
        "metrics 1 to 8 of 19 metrics",
        "metrics 9 to 16 of 19 metrics",
        "metrics 17 to 19 of 19 metrics",
    ]
    for part in many.parts:
        assert cut(part) == []
        assert part.height < 0.6 * part.width  # as a sheet on its side
