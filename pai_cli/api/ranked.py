"""An order of masks, and how well metrics predict accuracy, as a program and a notebook take them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pai_cli.api.inputs import AnyPath, maybe_path
from pai_cli.api.report import Report, Value
from pai_cli.api.showing import Shown, Table, data_frame
from pai_cli.errors import PictureError, UnknownNameError
from pai_cli.spelling import for_python

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

    from pai_cli.analysis.masks import MaskReport
    from pai_cli.display.report.ranking import RankPictures
    from pai_cli.ranking.correlation import Correlation, Study
    from pai_cli.ranking.order import RankedMask
    from pai_cli.ranking.scored import ScoredMask


@dataclass(frozen=True)
class Place:
    """One mask's place in an order.

    `rank`: 1 is best, equal for values whose error bounds overlap, None without a value. `group`: number of the group of
    masks that compare, from 0, the sparsest first. `value`: of the metric that decides; `layers`: over how many it is a
    mean. `margin`: how far it is from the next mask's in the group; `decided`: that in words. `density`, of the layers
    that were measured, `network_density`, of the whole network, and `accuracy`: 0 to 1, None where not known; `runs`:
    how many accuracies that is the mean of. `report`: of a mask that was measured.
    """

    rank: int | None
    name: str
    group: int
    value: Value
    layers: int | None
    margin: float | None
    decided: str
    density: float | None
    network_density: float | None
    method: str | None
    setting: str
    accuracy: float | None
    runs: int
    report: Report | None


class Ranking(Shown, Sequence[Place]):
    """Masks in order: a sequence of places, group by group, best first. Shows itself as a table.

    `by`: the metric that decides. `failed`: reports of the masks that could not be measured.
    """

    def __init__(self, ranked: Sequence[RankedMask], by: str, reports: Sequence[MaskReport], *, weights: bool = False):
        self.ranked = tuple(ranked)
        self.by = by
        self.measured = tuple(reports)
        self.weights = weights
        self.failed = tuple(Report(one, weights=weights) for one in reports if one.error is not None)
        self._reports = {str(one.path): one for one in reports}

    def __getitem__(self, at: Any) -> Any:
        return tuple(map(self._place, self.ranked[at])) if isinstance(at, slice) else self._place(self.ranked[at])

    def __len__(self) -> int:
        return len(self.ranked)

    def _place(self, row: RankedMask) -> Place:
        source, measured = row.source, self._reports.get(row.source.name)
        return Place(
            rank=row.rank,
            name=source.name,
            group=row.group,
            value=Value.of(row.value),
            layers=row.counted,
            margin=row.margin,
            decided=row.decided,
            density=source.density,
            network_density=source.network_density,
            method=source.method,
            setting=source.setting,
            accuracy=source.accuracy,
            runs=source.runs,
            report=None if measured is None else Report(measured, weights=self.weights),
        )

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON has it: `by`, and the records of `pai rank` in JSON, those of masks that failed last."""
        return {"by": self.by, "masks": self._records()}

    def to_pandas(self) -> pd.DataFrame:
        """A row a mask, those that failed last. Raises `MissingPackageError` without pandas."""
        from pai_cli.display.ranking import FIELDS

        return data_frame(self._records(), FIELDS)

    def plot(self, figure: FigureBase | None = None) -> list[Axes]:
        """The value that ranks them, against density: matplotlib's axes. `figure`: where to draw, by default a new one of
        pyplot. Raises `PictureError` without matplotlib, and where no mask has both a value and a density.
        """
        from pai_cli.display.figures.canvas import axes_of
        from pai_cli.display.figures.order import order_picture
        from pai_cli.display.report.ranking import UNDRAWN_ORDER

        picture = order_picture(self.ranked, self.by)
        if picture is None:
            raise PictureError(f"nothing to draw: {UNDRAWN_ORDER}")
        return axes_of(picture, figure)

    def _records(self) -> list[Any]:
        from pai_cli.display.ranking import failed_record, ranked_record

        rows = [ranked_record(row, self.by, for_python) for row in self.ranked]
        return rows + [failed_record(one, self.by, for_python) for one in self.measured if one.error is not None]

    def _tables(self) -> list[Table | str]:
        from pai_cli.display.ranking import group_tables

        tables = group_tables(self.ranked, self.by, for_python)
        failed = [f"{one.name}: not measured: {one.error}" for one in self.failed]
        return [*(Table(title, columns, records) for title, columns, records in tables), *failed]


class Correlations(Shown):
    """How well each metric predicts accuracy. Shows itself as tables and sentences.

    `correlations["dr_imdb"]` is the metric's `Correlation` where metrics are to be judged by: over masks of equal density;
    `tau`, `rho`, `r` of it each have `value`, `low`, `high`, `p` and `p_holm`. `best`: the name of the metric that accuracy
    follows most closely, None where the masks are too few to say; `level`: those that are not told from it. `study`: every
    scope. `failed`: reports of the masks that could not be measured.
    """

    def __init__(
        self,
        study: Study,
        masks: Sequence[ScoredMask],
        reports: Sequence[MaskReport],
        *,
        by: str | None = None,
        weights: bool = False,
    ):
        self.study = study
        self.by = by
        self.masks = tuple(masks)
        self.measured = tuple(reports)
        self.weights = weights
        self.failed = tuple(Report(one, weights=weights) for one in reports if one.error is not None)
        best = study.best(study.main_scope)
        self.best = None if best is None else best.strongest.metric
        self.level = () if best is None else best.level

    def __getitem__(self, metric: str) -> Correlation:
        for one in self.study.within(self.study.main_scope):
            if one.metric == metric:
                return one
        raise UnknownNameError(f"no metric {metric!r}; there are {', '.join(self.study.metrics)}")

    def __iter__(self) -> Iterator[str]:
        return iter(self.study.metrics)

    def __len__(self) -> int:
        return len(self.study.metrics)

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON has it: the object of `pai rank` with accuracies in JSON."""
        from pai_cli.display.correlation import study_document

        return study_document(self.study)

    def to_pandas(self) -> pd.DataFrame:
        """A row a metric and scope. Raises `MissingPackageError` without pandas."""
        from pai_cli.display.correlation import FIELDS, correlation_record

        study = self.study
        return data_frame([correlation_record(one) for scope in study.scopes for one in study.within(scope)], FIELDS)

    def plot(self, figure: FigureBase | None = None) -> list[Axes]:
        """Each metric against accuracy: matplotlib's axes. `figure`: where to draw, by default a new one of pyplot. Raises
        `PictureError` without matplotlib, and where no metric has a value.
        """
        from pai_cli.display.figures.canvas import axes_of
        from pai_cli.display.figures.study import study_picture
        from pai_cli.display.report.ranking import UNDRAWN_STUDY

        picture = study_picture(self.study)
        if picture is None:
            raise PictureError(f"nothing to draw: {UNDRAWN_STUDY}")
        return axes_of(picture, figure)

    def _tables(self) -> list[Table | str]:
        from pai_cli.display.correlation import parts

        found = parts(self.study, self.by, shell=False)
        return [part if isinstance(part, str) else Table(*part) for part in found]


def pictures_wanted(plot: AnyPath | None, report: AnyPath | None, *, force: bool) -> RankPictures | None:
    """Where pictures of a result go, None for nowhere. Refuses, before any work, what could not be made: `PictureError`."""
    if plot is None and report is None:
        return None
    from pai_cli.display.report.ranking import RankPictures

    return RankPictures.wanted(maybe_path(plot), maybe_path(report), force=force)


def draw(found: Ranking | Correlations, pictures: RankPictures | None) -> None:
    """Write what was asked for, and say so. Raises `PictureError`, `OutputError`."""
    if pictures is None:
        return
    if isinstance(found, Ranking):
        pictures.order(found.ranked, found.by, found.measured, weights=found.weights)
    else:
        pictures.study(found.study, found.masks, found.measured, weights=found.weights)
