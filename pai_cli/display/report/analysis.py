"""`pai analyze --plot` and `--report`: what passes by on its way to the table is kept, as far as it will be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pai_cli.analysis.masks import MaskReport
from pai_cli.display.console import note
from pai_cli.display.figures.canvas import Picture, check_picture, short_labels, write_picture
from pai_cli.display.figures.layers import MOST_ROWS, LayerProfile, profile_picture
from pai_cli.display.figures.plane import plane_picture
from pai_cli.display.records import mask_records
from pai_cli.display.report import page
from pai_cli.display.report.about import glossary, opening
from pai_cli.display.report.inline import figure_html
from pai_cli.display.report.tables import Cell, cells_of, table_html
from pai_cli.display.report.write import check_report, write_report
from pai_cli.display.tables import PATH_COLUMNS, WEIGHT_COLUMNS, noted
from pai_cli.errors import PictureError
from pai_cli.files.tables import Record
from pai_cli.ranking.plane import PlanePoint, plane_points

MOST_TABLES = 100  # masks whose layers a page lists; the table of networks has them all
MOST_OPEN = 3  # masks whose layers are shown without a click
COLUMNS = (
    *("density", "kept", "d_L", "d_R", "sigma_1", "sigma_2", "dr", "dr_norm", "dr_imdb", "dr_imdb_norm", "ds"),
    *("ds_imdb", "narc", "n_regular"),
)
WHERE_KNOWN = (*PATH_COLUMNS, *WEIGHT_COLUMNS)  # columns of a page that has a number for them
NOT_OF_NETWORKS = ("d_L", "d_R", "n_regular")

Row = dict[str, Cell]


@dataclass
class AnalysisPictures:
    """What `--plot` and `--report` need of the masks, gathered while they are analyzed.

    Of each mask its network's row is kept; of the first few hundred, what is drawn of their layers.
    """

    plot: Path | None
    report: Path | None
    force: bool
    weights: Path | None
    paths: list[Path] = field(default_factory=list)
    measured: int = 0
    failed: list[str] = field(default_factory=list)
    profiles: list[LayerProfile] = field(default_factory=list)
    points: list[PlanePoint] = field(default_factory=list)
    networks: list[Row] = field(default_factory=list)
    layers: list[tuple[str, list[Row]]] = field(default_factory=list)
    known: set[str] = field(default_factory=set)

    @staticmethod
    def wanted(plot: Path | None, report: Path | None, *, force: bool, weights: Path | None) -> AnalysisPictures:
        """Refuses, before any work, what could not be made. Raises `PictureError`."""
        check_picture(plot)
        check_report(report)
        return AnalysisPictures(plot, report, force, weights)

    def add(self, report: MaskReport) -> None:
        """Take from one more report what will be drawn of it."""
        if report.report is None:
            self.failed.append(report.error.in_shell if report.error is not None else "")
            return
        self.measured += 1
        if len(self.profiles) < MOST_ROWS:
            self.paths.append(report.path)
            self.profiles.append(LayerProfile.of(str(report.path), report.report))
        if self.report is None:
            return
        with_weights = self.weights is not None
        if with_weights:
            self.points += plane_points([report])
        *layers, network = mask_records(report, summary=len(self.layers) == MOST_TABLES)
        self.networks.append(self._row(network))
        if len(self.layers) < MOST_TABLES:
            rows = [self._row(one) for one in (*layers, network | {"layer": "network mean"})]
            self.layers.append((str(report.path), rows))

    def write(self) -> None:
        """Write what was asked for, and say so. Raises `PictureError` when no mask could be measured, `OutputError`."""
        if not self.measured and (asked := self.plot or self.report) is not None:
            raise PictureError(f"{asked}: nothing to draw, as no mask could be measured")
        if self.plot is not None:
            write_picture(self._profile_picture(), self.plot, force=self.force)
            left_out = f", the first {MOST_ROWS} of {self.measured} masks" if self.measured > MOST_ROWS else ""
            note(f"wrote {self.plot}: dr and dr_imdb from layer to layer{left_out}")
        if self.report is not None:
            write_report(self._page(), self.report, force=self.force)
            note(f"wrote {self.report}: tables and pictures of {_masks(self.measured)}, to be opened in a browser")

    def _profile_picture(self) -> Picture:
        labels = short_labels(self.paths) if len(self.paths) > 1 else [str(self.paths[0])]
        shown = [profile.called(label) for profile, label in zip(self.profiles, labels, strict=True)]
        return profile_picture(shown, self.measured)

    def _columns(self, *, networks: bool = False) -> list[str]:
        columns = [*COLUMNS, *(column for column in WHERE_KNOWN if column in self.known)]
        return [column for column in columns if not (networks and column in NOT_OF_NETWORKS)]

    def _row(self, record: Record) -> Row:
        self.known.update(column for column in WHERE_KNOWN if record.get(column) is not None)
        noticed = {**record, "note": noted(record, self.weights is not None) or None}
        columns = ("mask", "layer", "shape", *COLUMNS, *WHERE_KNOWN, "note")
        return dict(zip(columns, cells_of(noticed, columns), strict=True))

    def _page(self) -> str:
        title = f"{_masks(self.measured)} analyzed"
        parts = [*opening(title, self.weights), *self._failures(), *self._pictures()]
        return page.page(
            title, [*parts, *self._network_table(), *self._layer_tables(), *glossary(["density", *self._columns()])]
        )

    def _failures(self) -> list[str]:
        if not self.failed:
            return []
        return [page.heading("Could not be measured"), *(page.paragraph(reason) for reason in self.failed)]

    def _pictures(self) -> list[str]:
        profile = self._profile_picture()
        parts = [page.heading("From layer to layer"), figure_html(profile, "profile-", profile.title)]
        if len(self.points) > 1:
            plane = plane_picture(self.points)
            parts += [page.heading("The full-spectrum plane"), figure_html(plane, "plane-", plane.title)]
        return parts

    def _network_table(self) -> list[str]:
        if self.measured == 1:
            return []
        columns = ["mask", *self._columns(networks=True), "note"]
        caption = "Means over each network's layers; pointing at a number shows it in full, with its error"
        return [page.heading("Networks"), table_html("networks", caption, columns, _cells(self.networks, columns))]

    def _layer_tables(self) -> list[str]:
        columns = ["layer", "shape", *self._columns(), "note"]
        parts = [page.heading("Layers")]
        if self.measured > len(self.layers):
            parts.append(page.paragraph(f"Of the first {len(self.layers)} masks; analyze others apart to see theirs."))
        for number, (name, rows) in enumerate(self.layers, start=1):
            caption = "Pointing at a number shows it in full, with its error"
            *cells, mean = _cells(rows, columns)
            table = table_html(f"layers-{number}", caption, columns, cells, mean)
            parts.append(page.folded(name, table, is_open=self.measured <= MOST_OPEN))
        return parts


def _cells(rows: Sequence[Row], columns: Sequence[str]) -> list[list[Cell]]:
    return [[row[column] for column in columns] for row in rows]


def _masks(count: int) -> str:
    return "1 mask" if count == 1 else f"{count} masks"
