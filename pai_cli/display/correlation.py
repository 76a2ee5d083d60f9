"""Showing which metrics predict accuracy, and how sure that is."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from pai_cli.display.look import USUAL, Look
from pai_cli.display.tables import show_records, show_title
from pai_cli.files.messages import all_names, some_names
from pai_cli.files.tables import Format, Record, write_document, write_table
from pai_cli.ranking.correlation import Best, Correlation, Scope, ScopeKind, Study
from pai_cli.ranking.statistics import LEVEL

STATISTICS = ("tau", "rho", "r", "partial")
COMPARED = ("n_common", "tau_common", "best_share", "behind", "behind_low", "behind_high")
FIELDS = (
    *("metric", "scope", "setting", "density", "masks", "groups", "grouped_by", "confounded", "n"),
    *(
        name
        for statistic in STATISTICS
        for name in (statistic, *(f"{statistic}_{part}" for part in ("low", "high", "p", "p_holm", "test")))
    ),
    *("controls", "n_partial", "partial_reason"),
    *COMPARED,
    "reason",
)
MOST_PARTIALS = 3  # metrics in a sentence on what is beyond the controls
MUCH = 0.5  # partial tau that masks must rule out for a metric to be said to add nothing
MOST_DENSITIES = 12  # columns of a table for people
METHOD = {
    "interval": "95%, percentiles of bootstrap samples of the masks within each group",
    "correction": "Holm, over the metrics of a scope",
    "partial": "partial tau given the controls, by the correlations sin(pi tau / 2); p of 0 by its bootstrap error",
}


def show_study(study: Study, by: str | None, look: Look) -> None:
    """Write the study to standard output: tables and sentences for people; else a row a metric and scope, which in JSON
    stand in one object with the best metric of each scope and every mask's values. `by`: a metric to set beside the best.
    """
    if look.kind.for_people:
        _draw(study, by, look)
    elif look.kind is Format.JSON:
        write_document(sys.stdout, study_document(study, look))
    else:
        write_table(sys.stdout, look.kind, look.shown(FIELDS), correlation_records(study, look), header=look.header)


def correlation_records(study: Study, look: Look = USUAL) -> list[Record]:
    """One a metric and scope, ordered within each scope."""
    scopes = ([correlation_record(one) for one in study.within(scope)] for scope in study.scopes)
    return [record for records in scopes for record in look.ordered(records)]


def correlation_record(one: Correlation) -> Record:
    """One metric in one scope, in the fields of the formats for programs."""
    record: Record = {
        "metric": one.metric,
        "scope": one.scope.kind.value,
        "setting": one.scope.setting or None,
        "density": one.scope.density,
        "masks": one.scope.masks,
        "groups": one.scope.groups,
        "grouped_by": ", ".join(one.scope.grouped_by) or None,
        "confounded": one.scope.confounded,
        "n": one.n,
    }
    for name in STATISTICS:
        for part, value in asdict(getattr(one, name)).items():
            record[name if part == "value" else f"{name}_{part}"] = value
    record |= {"controls": ", ".join(one.controls) or None, "n_partial": one.n_partial}
    return record | {name: getattr(one, name) for name in ("partial_reason", *COMPARED, "reason")}


def study_document(study: Study, look: Look = USUAL) -> dict[str, Any]:
    """The whole study, as JSON has it; of the correlations the columns that were asked for."""
    fields = look.shown(FIELDS)
    bests = [(scope, study.best(scope)) for scope in study.scopes]
    return {
        "resamples": study.resampling.count,
        "seed": study.resampling.seed,
        **METHOD,
        "grouped_by": list(study.main_scope.grouped_by),
        "best": [_best_record(scope, best) for scope, best in bests if best is not None],
        "correlations": [{name: one[name] for name in fields} for one in correlation_records(study, look)],
        "masks": _mask_records(study),
    }


def _best_record(scope: Scope, best: Best) -> dict[str, Any]:
    return {
        "scope": scope.kind.value,
        "setting": scope.setting or None,
        "density": scope.density,
        "metric": best.strongest.metric,
        "n_common": best.strongest.n_common,
        "tau_common": best.strongest.tau_common,
        "best_share": best.strongest.best_share,
        "runner_up": None if best.runner_up is None else best.runner_up.metric,
        "not_told_from": list(best.level),
        "reversed": best.reversed,
    }


def _mask_records(study: Study) -> list[dict[str, Any]]:
    columns = [study.points[metric] for metric in study.metrics]
    records = []
    for points in zip(*columns, strict=True):
        first = points[0]
        record: dict[str, Any] = {"mask": first.name, "setting": first.setting or None, "density": first.density}
        record |= {"density_group": first.group, "accuracy": first.accuracy, "spread": first.spread, "runs": first.runs}
        record["metrics"] = {metric: point.value.value for metric, point in zip(study.metrics, points, strict=True)}
        record["errors"] = {metric: point.value.error for metric, point in zip(study.metrics, points, strict=True)}
        records.append(record)
    return records


# --- for people


Part = str | tuple[str, Sequence[str], list[Record]]
"""A sentence, or a table: its title, its columns and its rows."""


def _draw(study: Study, by: str | None, look: Look) -> None:
    for part in parts(study, by, look=look):
        if isinstance(part, str):
            show_title(part, look)
        else:
            title, columns, rows = part
            show_title(title, look)
            show_records(rows, columns, look=look if look.columns == columns else replace(look, columns=()))


def parts(study: Study, by: str | None, *, shell: bool = True, look: Look = USUAL) -> Iterator[Part]:
    """What a person reads, setting by setting: tables and sentences. `shell`: whether remedies are those of a command line.

    `look`: which columns the first table of a setting has, and what orders the metrics.
    """
    alone = _alone(study)
    if alone:
        yield f"{some_names(alone, MOST_PARTIALS)}: 1 mask each, and a correlation takes two"
        yield ""
    for setting in dict.fromkeys(scope.setting for scope in study.scopes if scope.setting not in alone):
        own = [scope for scope in study.scopes if scope.setting == setting]
        main = next((scope for scope in own if scope.kind is ScopeKind.POOLED), own[0])
        found = _ordered(study.within(main), look)
        if look.columns:
            yield _title(main), look.columns, [correlation_record(one) for one in found]
        else:
            yield _title(main), _columns(found), [_row(one) for one in found]
        overall = next((scope for scope in own if scope.confounded), None)
        densities = [scope for scope in own if scope.kind is ScopeKind.DENSITY]
        if overall is not None and overall is not main:
            yield from _densities(study, found, overall, densities, shell=shell)
        yield from _sentences(study, main, by, shell=shell)
        yield from _given_controls(sorted(found, key=lambda one: one.metric != by))
        yield from _asides(study, overall, densities, shell=shell)
        yield ""


def _ordered(found: Sequence[Correlation], look: Look) -> list[Correlation]:
    by_name = {one.metric: one for one in found}
    return [by_name[str(record["metric"])] for record in look.ordered([correlation_record(one) for one in found])]


def _alone(study: Study) -> list[str]:
    """Settings of one mask, where there are several: they need no table each to say that nothing can be said."""
    most: dict[str, int] = {}
    for scope in study.scopes:
        if scope.setting is not None:
            most[scope.setting] = max(most.get(scope.setting, 0), scope.masks)
    alone = [setting for setting, masks in most.items() if masks == 1]
    return alone if len(alone) > 1 else []


def _title(scope: Scope) -> str:
    where = "all settings" if scope.setting is None else scope.setting
    masks = f"{scope.masks} mask{'s' * (scope.masks != 1)}"
    equal = f"equal {all_names(scope.grouped_by)}" if scope.grouped_by else "their own"
    within = f", compared within {scope.groups} groups of {equal}" if scope.kind is ScopeKind.POOLED else ""
    return f"{where}: {masks}{within}" if where else f"{masks}{within}"


def _row(one: Correlation) -> Record:
    behind = None if one.behind is None else f"{one.behind:.2f}{_interval(one.behind_low, one.behind_high)}"
    return {
        "metric": one.metric,
        "n": one.n,
        "tau": _rounded(one.tau.value),
        "95% interval": _interval(one.tau.low, one.tau.high).strip() or None,
        "p": _p(one.tau.p),
        "p corrected": _p(one.tau.p_holm),
        "partial": _partial(one),
        "partial p": _p(one.partial.p_holm),
        "strongest in": None if one.best_share is None else f"{one.best_share:.0%}",
        "behind the strongest": behind,
        "rho": _rounded(one.rho.value),
        "r": _rounded(one.r.value),
        "note": (one.reason or "").split(":")[0],
    }


def _columns(found: Sequence[Correlation]) -> list[str]:
    """All that some metric has; a note only where not all have the same."""
    rows = [_row(one) for one in found]
    return [
        name
        for name in rows[0]
        if any(row[name] for row in rows) and (name != "note" or len({row[name] for row in rows}) > 1)
    ]


def _densities(
    study: Study, order: Sequence[Correlation], overall: Scope, densities: Sequence[Scope], *, shell: bool
) -> Iterator[Part]:
    """tau density by density, and over all at once, which the last column calls what it is."""
    shown = [scope for scope in densities if any(one.tau.value is not None for one in study.within(scope))]
    columns = {f"{scope.density:.4g}": scope for scope in shown[:MOST_DENSITIES] if scope.density is not None}
    columns["mixed (confounded)"] = overall
    taus = {name: {one.metric: _rounded(one.tau.value) for one in study.within(at)} for name, at in columns.items()}
    rows: list[Record] = [{"metric": one.metric, **{name: taus[name][one.metric] for name in columns}} for one in order]
    yield "tau at each density, and with densities mixed", ["metric", *columns], rows
    if len(shown) > MOST_DENSITIES:
        yield f"{len(shown) - MOST_DENSITIES} more densities: {_all_of_it(shell=shell)} has them"


def _all_of_it(*, shell: bool) -> str:
    return "--format csv" if shell else "to_pandas()"


def _sentences(study: Study, scope: Scope, by: str | None, *, shell: bool) -> list[str]:
    """The best metric of a scope and how sure that is, or why nothing can be said."""
    best = study.best(scope)
    if best is None:
        reasons = list(dict.fromkeys(one.reason for one in study.within(scope) if one.reason))
        return [f"No metric can be told from the others: {'; '.join(reasons)}."]
    one = best.strongest
    tried = sum(found.tau.p is not None for found in study.within(scope))
    corrected = f" corrected for {tried} metrics" if tried > 1 else ""
    lines = [
        f"{one.metric} follows accuracy most closely: tau {_rounded(one.tau.value)}{_interval(one.tau.low, one.tau.high)}, "
        f"p {_p(one.tau.p_holm)}{corrected}; strongest in {one.best_share:.0%} of {study.resampling.count:,} bootstrap "
        "samples of the masks."
    ]
    if one.tau.p_holm is not None and one.tau.p_holm > LEVEL:
        lines.append("That is not told from chance.")
    if one.n_common != scope.masks:
        lines.append(f"Compared over the {one.n_common} of {scope.masks} masks with a value of every metric compared.")
    if best.reversed:
        end = "smallest" if study.larger_is_better[one.metric] else "largest"
        remedy = f"pai rank --by {one.metric} --{end}-first"
        if not shell:
            remedy = f"rank with by={one.metric!r}, smallest_first={end == 'smallest'}"
        lines.append(f"It does so against its direction: {remedy}.")
    if best.runner_up is not None:
        lines.append(f"Runner-up: {best.runner_up.metric}, {_behind(best.runner_up)}.")
        lines.append(_told_apart(best))
    asked = next((found for found in study.within(scope) if found.metric == by), None)
    if asked is not None and asked.metric not in (one.metric, best.runner_up and best.runner_up.metric):
        against = _behind(asked) if asked.behind is not None else asked.reason
        lines.append(f"{asked.metric}: tau {_rounded(asked.tau.value)}, {against}.")
    return lines


def _given_controls(found: Sequence[Correlation]) -> list[str]:
    """What metrics tell that their controls do not, or that they tell nothing; of the first ones with numbers."""
    lines = []
    held = [one for one in found if one.controls]
    for controls in dict.fromkeys(one.controls for one in held):
        own = [one for one in held if one.controls == controls]
        names = all_names(control.replace("_", " ") for control in controls)
        adding = [f"{one.metric} {_partial(one)}" for one in own if one.adds]
        idle = [one for one in own if one.adds is False]
        corrected = f" corrected for {len(adding) + len(idle)} metrics" if len(adding) + len(idle) > 1 else ""
        if adding:
            lines.append(f"Beyond {names} these go with accuracy: partial tau of {some_names(adding, MOST_PARTIALS)}.")
        tells = "does" if len(controls) == 1 else "do"
        for one in idle[:MOST_PARTIALS]:
            p = f"p {_p(one.partial.p_holm)}{corrected}"
            lines.append(f"{_untold(one, names, tells)}: partial tau {_partial(one)}, {p}.")
        if others := [one.metric for one in idle[MOST_PARTIALS:]]:
            lines.append(f"Nor is anything told of {some_names(others, 5)}.")
        lines += _not_known(own, names)
    return lines


def _not_known(own: Sequence[Correlation], controls: str) -> list[str]:
    """Of which metrics it is not known what they tell, a sentence a reason; those without a tau have theirs in the table."""
    unknown = [one for one in own if one.adds is None and one.tau.value is not None]
    lines = []
    for reason in dict.fromkeys(one.partial_reason for one in unknown):
        alike = [one.metric for one in unknown if one.partial_reason == reason]
        tell = "tells" if len(alike) == 1 else "tell"
        lines.append(f"What {some_names(alike, MOST_PARTIALS)} {tell} beyond {controls} is not known: {reason}.")
    return lines


def _untold(one: Correlation, controls: str, do: str) -> str:
    """That it adds nothing, where its interval says that it cannot add much."""
    if max(abs(one.partial.low or 0.0), abs(one.partial.high or 0.0)) <= MUCH:
        return f"{one.metric} adds nothing that {controls} {do} not tell, as far as these masks say"
    return f"{one.metric} is not seen to add what {controls} {do} not tell, which these masks are too few to rule out"


def _partial(one: Correlation) -> str | None:
    """`0.03 (-0.20 to 0.20)`."""
    value = _rounded(one.partial.value)
    return None if value is None else f"{value}{_interval(one.partial.low, one.partial.high)}"


def _behind(one: Correlation) -> str:
    return f"tau {one.behind:.2f}{_interval(one.behind_low, one.behind_high)} behind"


def _told_apart(best: Best) -> str:
    if not best.level:
        return "These masks tell it from every other metric (95% intervals of the differences, each on its own)."
    return f"These masks do not tell it from {some_names(best.level, 5)}."


def _asides(study: Study, overall: Scope | None, densities: Sequence[Scope], *, shell: bool) -> list[str]:
    """What to beware of: densities mixed, and densities with too few masks."""
    lines = []
    if overall is not None:
        lines.append(
            "With densities mixed, tau is confounded by density: accuracy follows density, and so does any metric that "
            "grows with it. Judge by masks of equal density."
        )
    few = [scope for scope in densities if study.best(scope) is None]
    if few and len(densities) > 1:
        names = some_names([f"{scope.density:.4g}" for scope in few if scope.density is not None], MOST_DENSITIES)
        reasons = f"{_all_of_it(shell=shell)} has the reasons"
        lines.append(f"At density {names} alone nothing can be said of the best metric: {reasons}.")
    return lines


def _rounded(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}".replace("-0.00", "0.00")


def _p(value: float | None) -> str | None:
    """To two digits; what float64 cannot hold is not 0."""
    return None if value is None else f"{value:.2g}" if value else "<1e-300"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" ({_rounded(low)} to {_rounded(high)})"
