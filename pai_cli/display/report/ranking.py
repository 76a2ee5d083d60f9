"""`pai rank --plot` and `--report`: masks in order, or the metrics that predict accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pai_cli.analysis.masks import MaskReport
from pai_cli.display.console import note
from pai_cli.display.correlation import correlation_record
from pai_cli.display.correlation import parts as said
from pai_cli.display.figures.canvas import Picture, check_picture, stacked, write_picture
from pai_cli.display.figures.order import order_picture
from pai_cli.display.figures.plane import plane_picture
from pai_cli.display.figures.study import study_picture
from pai_cli.display.ranking import ranked_record
from pai_cli.display.report import page
from pai_cli.display.report.about import glossary, opening
from pai_cli.display.report.inline import figure_html
from pai_cli.display.report.tables import Cell, cells_of, table_html
from pai_cli.display.report.write import check_report, write_report
from pai_cli.display.tables import number
from pai_cli.errors import PictureError
from pai_cli.files.tables import Record
from pai_cli.ranking.correlation import Scope, ScopeKind, Study
from pai_cli.ranking.order import RankedMask
from pai_cli.ranking.plane import plane_points
from pai_cli.ranking.scored import ScoredMask

ORDER = ("rank", "mask", "method", "density", "setting", "value", "layers", "accuracy", "decided")
UNDRAWN_STUDY = "no metric has a value"
UNDRAWN_ORDER = "an order is drawn against density, and no mask has both a value and a density"
CORRELATION = (
    *("metric", "n", "tau", "tau_low", "tau_high", "tau_p", "tau_p_holm", "partial", "rho", "r", "best_share"),
    *(
        "behind",
        "behind_low",
        "behind_high",
        "partial_low",
        "partial_high",
        "partial_p",
        "partial_p_holm",
        "controls",
        "reason",
    ),
)


@dataclass(frozen=True)
class RankPictures:
    """Where pictures of a ranking go. `weights` of what draws them: whether masks were measured with theirs."""

    plot: Path | None
    report: Path | None
    force: bool

    @staticmethod
    def wanted(plot: Path | None, report: Path | None, *, force: bool) -> RankPictures:
        """Refuses, before any work, what could not be made. Raises `PictureError`."""
        check_picture(plot)
        check_report(report)
        return RankPictures(plot, report, force)

    def study(self, study: Study, masks: Sequence[ScoredMask], reports: Sequence[MaskReport], *, weights: bool) -> None:
        """Write what was asked for of metrics against accuracy. Raises `PictureError`, `OutputError`."""
        pictures = [study_picture(study), _plane(masks, reports) if weights else None]
        parts = [page.heading("Correlations"), *(_correlations(study, scope) for scope in study.scopes)]
        concluded = [part for part in said(study, None) if isinstance(part, str) and part]
        columns = ["accuracy", "spread", *CORRELATION, *study.metrics]
        self._write(
            "Which metric predicts accuracy",
            pictures,
            [*parts, *_points(study)],
            reports,
            UNDRAWN_STUDY,
            concluded=concluded,
            columns=columns,
        )

    def order(self, ranked: Sequence[RankedMask], by: str, reports: Sequence[MaskReport], *, weights: bool) -> None:
        """Write what was asked for of masks in order. Raises `PictureError`, `OutputError`."""
        pictures = [order_picture(ranked, by), _plane([row.source for row in ranked], reports) if weights else None]
        columns = _shown(ranked, by)
        title, tables = f"Masks ranked by {by}", _orders(ranked, by, columns)
        self._write(title, pictures, tables, reports, UNDRAWN_ORDER, concluded=_best(ranked, by), columns=columns)

    def _write(
        self,
        title: str,
        pictures: Sequence[Picture | None],
        tables: Sequence[str],
        reports: Sequence[MaskReport],
        undrawn: str,
        *,
        concluded: Sequence[str],
        columns: Sequence[str],
    ) -> None:
        """`undrawn`: why, where there is no picture; what else was asked for is written all the same. `concluded`: what
        the terminal says in sentences; `columns`: those that the tables have.
        """
        drawn = [picture for picture in pictures if picture is not None]
        if self.plot is not None and drawn:
            write_picture(stacked(drawn), self.plot, force=self.force)
            note(f"wrote {self.plot}: {'; '.join(picture.title for picture in drawn)}")
        if self.report is not None:
            pieces = [part for picture in drawn for part in picture.parts or (picture,)]
            failed = [page.paragraph(one.error.in_shell) for one in reports if one.error is not None]
            parts = [
                *opening(title),
                *(page.paragraph(sentence) for sentence in concluded),
                *([page.heading("Could not be measured"), *failed] if failed else []),
                *(figure_html(one, f"picture-{at}-", one.title) for at, one in enumerate(pieces)),
                *tables,
                *glossary(columns),
            ]
            write_report(page.page(title, parts), self.report, force=self.force)
            note(f"wrote {self.report}: tables and pictures, to be opened in a browser")
        if self.plot is not None and not drawn:
            raise PictureError(f"{self.plot}: nothing to draw: {undrawn}; leave out --plot")


def _best(ranked: Sequence[RankedMask], by: str) -> list[str]:
    """A sentence on the first of each group of masks that compare."""
    lines = []
    for group in sorted({row.group for row in ranked}):
        own = [row for row in ranked if row.group == group]
        first, density = own[0], own[0].source.density
        if first.value.value is not None and len(own) > 1:
            where = "" if density is None else f" at density {density:.4g}"
            sure = f": {first.decided}" if first.decided else ""
            lines.append(
                f"{first.source.name} is the first of {len(own)} masks{where}, {by} {number(first.value.value)}{sure}."
            )
    return lines


def _plane(masks: Sequence[ScoredMask], reports: Sequence[MaskReport]) -> Picture | None:
    points = plane_points(reports)
    accuracies = {mask.name: mask.accuracy for mask in masks if mask.accuracy is not None}
    return plane_picture(points, accuracies) if points else None


def _correlations(study: Study, scope: Scope) -> str:
    """A scope's table; that of the main scope stands open."""
    rows = [cells_of(correlation_record(one), CORRELATION) for one in study.within(scope)]
    caption = "Correlations with accuracy, -1 to 1, with 95% bootstrap intervals; p_holm is corrected for the metrics"
    table = table_html(f"scope-{study.scopes.index(scope)}", caption, CORRELATION, rows)
    return page.folded(_named(scope), table, is_open=scope == study.main_scope)


def _named(scope: Scope) -> str:
    where = {
        ScopeKind.OVERALL: "densities mixed (confounded)" if scope.confounded else "all masks",
        ScopeKind.POOLED: "within equal densities",
        ScopeKind.DENSITY: f"density {scope.density:.4g}" if scope.density is not None else "density not told",
    }[scope.kind]
    setting = "all settings, " if scope.setting is None else f"{scope.setting}, " if scope.setting else ""
    return f"{setting}{where}: {scope.masks} masks"


def _points(study: Study) -> list[str]:
    """Every mask with its accuracy and its metrics."""
    every = [point for points in study.points.values() for point in points]
    setting = ["setting"] if any(point.setting for point in every) else []
    spread = ["spread"] if any(point.spread is not None for point in every) else []
    columns = ["mask", *setting, "density", "accuracy", *spread, "runs", *study.metrics]
    rows = []
    for points in zip(*(study.points[metric] for metric in study.metrics), strict=True):
        first = points[0]
        record: Record = {
            "mask": first.name,
            "setting": first.setting,
            "density": first.density,
            "accuracy": first.accuracy,
            "spread": first.spread,
            "runs": first.runs,
        }
        for metric, point in zip(study.metrics, points, strict=True):
            record[metric], record[f"{metric}_error"] = point.value.value, point.value.error
        rows.append(cells_of(record, columns))
    caption = "Pointing at a number shows it in full, with its error; spread is the standard deviation over runs"
    return [page.heading("Masks"), table_html("masks", caption, columns, rows)]


def _shown(ranked: Sequence[RankedMask], by: str) -> list[str]:
    """The columns of an order that have anything in them."""
    present = [column for column in ORDER if any(ranked_record(row, by)[column] for row in ranked)]
    return [by if column == "value" else column for column in present]


def _orders(ranked: Sequence[RankedMask], by: str, columns: Sequence[str]) -> list[str]:
    """A table a group of masks that compare."""
    parts = []
    for group in sorted({row.group for row in ranked}):
        own = [row for row in ranked if row.group == group]
        rows: list[list[Cell]] = [cells_of(_ordered(row, by), columns) for row in own]
        densities = [row.source.density for row in own if row.source.density is not None]
        caption = f"{len(own)} masks" + (f" at density {min(densities):.4g}" if densities else "")
        parts.append(table_html(f"group-{group}", caption, columns, rows))
    return parts


def _ordered(row: RankedMask, by: str) -> Record:
    record = ranked_record(row, by)
    return {**record, by: record["value"], f"{by}_error": record["error"], f"{by}_layers": record["layers"]}
