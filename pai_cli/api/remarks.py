"""What is said of a measured mask on standard error, beside its numbers."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from pai_cli.files.layer_names import told_assumed
from pai_cli.files.messages import some_names
from pai_cli.spelling import option
from pai_cli.telling import Repeated, note, warn

if TYPE_CHECKING:
    from pai_cli.analysis.masks import MaskReport


def tell(report: MaskReport, notes: Repeated) -> None:
    """What to know of how a mask was read, and of what was found, beside its numbers."""
    network = report.report
    if network is None:
        return
    if report.remark:
        notes.note(report.path, report.remark)
    if report.skipped:
        notes.note(report.path, f"left out {', '.join(report.skipped)}: no rows and columns")
    if network.assumed:
        notes.note(report.path, _of_assumed(network.assumed))
    if network.collapsed:
        warn(f"{report.path}: collapsed layers (no weight kept): {', '.join(network.collapsed)}")
    tell_unproved(report, notes)


class UnmatchedGlobs:
    """The globs of layers that match none of any mask so far."""

    def __init__(self, globs: Iterable[str]):
        self._left = list(globs)
        self._measured = False

    def look(self, report: MaskReport) -> None:
        """Take out those that match a layer of this mask."""
        from pai_cli.files.ordering import matches

        self._measured |= report.report is not None
        self._left = [glob for glob in self._left if not any(matches(name, glob) for name in report.shapes)]

    def tell(self) -> None:
        """Say which are left after the last mask, beside others that matched."""
        if self._left and self._measured:
            note(f"{option('layers', ' '.join(self._left))}: matches no layer, and chose none")


def tell_assumed(reports: Iterable[MaskReport]) -> None:
    """Say of which layers nobody told the layout: of the first such mask, and of how many others."""
    found = [(report.path, report.report.assumed) for report in reports if report.report and report.report.assumed]
    if found:
        path, layers = found[0]
        more = f" (and of {len(found) - 1} more masks)" if len(found) > 1 else ""
        note(f"{path}: {_of_assumed(layers, more)}")


def _of_assumed(layers: Collection[str], more: str = "") -> str:
    who = f"pai convert {option('names_from', 'CKPT')} takes both from a network that is known"
    return f"{told_assumed(layers)}{more}; {who}"


def tell_unproved(report: MaskReport, notes: Repeated) -> None:
    """Which layers' singular values are not proved to be the two largest, and which have none, if any."""
    from pai_cli.analysis.masks import unanswered_told
    from pai_cli.spectral.result import Outcome

    if report.report is None:
        return
    full, unanswered = report.report.full, report.report.unanswered
    if unanswered:
        warn(
            f"{report.path}: {unanswered_told(unanswered)}; "
            f"pai analyze {option('solver', 'gram')} or direct goes another way"
        )
    if full:
        text = f"{some_names(full)}: {Outcome.TOO_FULL.value}; what is not certified holds all the same"
        notes.note(report.path, text)
    if rest := [name for name in report.report.unproved if name not in full]:
        notes.note(
            report.path,
            f"the singular values of {some_names(rest)} are not proved to be the two largest; "
            f"pai analyze {option('certify')} proves it",
        )
