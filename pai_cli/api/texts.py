"""`to_text`: results as the tables that the command line writes."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pai_cli.api.ranked import Correlations, Ranking
from pai_cli.api.report import JunctionReport, Report
from pai_cli.api.showing import Table
from pai_cli.errors import ParameterError
from pai_cli.files.tables import Format, Record, write_document, write_table
from pai_cli.printable import as_line
from pai_cli.spectral.parameters import one_of, shown
from pai_cli.spelling import for_python, option


def to_text(
    found: Any,
    format: str = Format.TABLE,  # noqa: A002
    *,
    columns: str | Iterable[str] | None = None,
    sort: str | None = None,
) -> str:
    """Results as text, as the command line writes them: a table of a paper or a page in one line.

    `found`: a `Report` (a row a layer, and its network), several of them (a row a mask: its network), what `rank`,
    `correlate` and `mine` give (a row a subgraph, all of them), some of its subgraphs or pairs, or records such as
    `list_metrics()`. `format`: "table", "markdown" or "latex" (the rules of booktabs),
    with numbers as a person reads them; "csv", "tsv", "json" or "jsonl", with all digits. `columns`: only these, names or
    globs of the fields that "csv" has; by default all of those, or what a person reads. `sort`: a column that orders the
    rows of each table, "-dr" for the largest first; rows without a value are last, a network's mean below its layers.

    Raises `UsageError` for columns that are not there, `ParameterError` for anything but such results.
    """
    from pai_cli.display.look import Look

    kind, source = one_of("format", format, Format), _source_of(found)
    also = {found.by: "value"} if isinstance(found, Ranking) else {}
    look = Look.of(kind, source.fields, columns, sort, also=also)
    stream = io.StringIO()
    if kind.for_people:
        stream.writelines(f"{line}\n" for part in source.tables(look) for line in _lines(part, look))
    elif kind is Format.JSON and isinstance(found, Correlations):
        write_document(stream, source.document(look))
    else:
        write_table(stream, kind, look.shown(source.fields), source.records(look))
    return stream.getvalue().strip("\n")


@dataclass(frozen=True)
class _Source:
    """What there is to write: `fields` that programs get, and the `table` that a person does, where that has others."""

    found: Any
    fields: Sequence[str]
    table: Callable[[Any, Any], tuple[Sequence[str], Sequence[Record]]] | None = None

    def records(self, look: Any) -> list[Record]:
        """A row each, in order."""
        found = self.found
        if isinstance(found, Report | JunctionReport):
            return look.ordered(found._records(), total=True)  # type: ignore[no-any-return]
        if isinstance(found, Correlations):
            from pai_cli.display.correlation import correlation_records

            return correlation_records(found.study, look)
        return look.ordered(found._records() if isinstance(found, Ranking) else _rows(found))  # type: ignore[no-any-return]

    def document(self, look: Any) -> dict[str, Any]:
        """All of a study."""
        from pai_cli.display.correlation import study_document

        return study_document(self.found.study, look)

    def tables(self, look: Any) -> Iterator[Table | str]:
        """What a person reads."""
        found = self.found
        if isinstance(found, Ranking):
            from pai_cli.display.ranking import group_tables

            for title, names, rows in group_tables(found.ranked, found.by, for_python, look):
                yield Table(title, names, rows)
        elif isinstance(found, Correlations):
            from pai_cli.display.correlation import parts

            for part in parts(found.study, found.by, shell=False, look=look):
                yield part if isinstance(part, str) else Table(*part)
        elif isinstance(found, Report | JunctionReport):
            yield self._of_layers(look)
        else:
            yield self._of_networks(look)

    def _of_layers(self, look: Any) -> Table | str:
        usual = self.found._tables()[0]
        if isinstance(usual, str):
            return usual
        return Table(usual.caption, look.shown(usual.columns), look.ordered(usual.records, total=True), total=True)

    def _of_networks(self, look: Any) -> Table:
        from pai_cli.display.tables import network_table

        if self.table is not None:
            return Table("", *self.table(self.found, look))
        if not isinstance(self.found[0], Report):
            return Table("", look.shown(self.fields), look.ordered(list(self.found)))
        names, rows = network_table(_rows(self.found), weights=any(one.weights for one in self.found))
        return Table("", look.shown(names), look.ordered(rows))


def _source_of(found: Any) -> _Source:
    from pai_cli.api.mine import Mining
    from pai_cli.display import correlation, junctions, mining, ranking
    from pai_cli.display.records import ANALYZE_FIELDS
    from pai_cli.mining.overlap import Overlap
    from pai_cli.mining.run import FIELDS, Subgraph

    for kind, fields in (
        (Report, ANALYZE_FIELDS),
        (JunctionReport, junctions.FIELDS),
        (Ranking, ranking.FIELDS),
        (Correlations, correlation.FIELDS),
    ):
        if isinstance(found, kind):
            return _Source(found, fields)
    several = list(found) if isinstance(found, Iterable) and not isinstance(found, str | Mapping) else []
    if isinstance(found, Mining) or (several and all(isinstance(one, Subgraph) for one in several)):
        return _Source(several, tuple(FIELDS), mining.subgraph_table)
    if several and all(isinstance(one, Overlap) for one in several):
        return _Source(several, mining.PAIR_FIELDS, mining.pair_table)
    if several and all(isinstance(one, Report) for one in several):
        return _Source(several, ANALYZE_FIELDS)
    if several and all(isinstance(one, Mapping) and one.keys() == several[0].keys() for one in several):
        return _Source(several, list(several[0]))
    raise ParameterError(
        f"{option('found', shown(found))}: give a report, several of them, what rank, correlate or mine gives, or records "
        "of the same fields"
    )


def _rows(found: Sequence[Any]) -> list[Record]:
    """A record a network of reports, or a subgraph, or a pair; other records as they are."""
    records = (one._records()[-1] if isinstance(one, Report) else one for one in found)
    return [one.to_dict() if hasattr(one, "to_dict") else one for one in records]


def _lines(part: Table | str, look: Any) -> list[str]:
    from pai_cli.display.papers import title_lines
    from pai_cli.display.tables import table_text

    title = as_line(part if isinstance(part, str) else part.caption)
    lines = [title] if look.kind is Format.TABLE or not title else title_lines(look.kind, title)
    if isinstance(part, str):
        return lines
    table = table_text(part.columns, part.records, total=part.total, look=look)
    return [*(lines if title else []), table, *([""] if look.kind is not Format.TABLE else [])]
