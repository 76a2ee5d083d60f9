"""What stands at the head of a page and at its foot: what was asked, by what, and what the columns mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pai_cli.display.report import page
from pai_cli.files.checkpoints import files_of
from pai_cli.files.digest import sha256_of
from pai_cli.files.provenance import provenance, typed
from pai_cli.spectral.catalogue import RANKED

MOST_DIGESTED = 2**30  # bytes of a checkpoint whose digest is taken for a page

MEANINGS = {
    "density": "kept weights / all weights",
    "kept": "kept weights",
    "d_L": "mean degree of the inputs that have a kept weight",
    "d_R": "mean degree of the outputs that have a kept weight",
    "n_regular": "left-regular subgraphs: inputs of one degree",
    "layers": "layers over which the mean is taken",
    "decided": "what sets a mask before the next one",
    "accuracy": "on the test set, the mean over runs",
    "spread": "standard deviation over runs",
    "runs": "trainings of the mask",
    "n": "masks with a value and an accuracy",
    "tau": "Kendall's rank correlation with accuracy, -1 to 1",
    "tau_p": "chance of as large a tau where there is no relation",
    "tau_p_holm": "the same, corrected for the number of metrics (Holm)",
    "partial": "tau of what the controls do not tell",
    "partial_p": "chance of as large a partial tau where there is nothing beyond the controls",
    "partial_p_holm": "the same, corrected for the number of metrics (Holm)",
    "rho": "Spearman's rank correlation",
    "r": "Pearson's correlation",
    "best_share": "bootstrap samples in which the metric is the strongest",
    "behind": "tau of the strongest metric less this one's",
}
"""Of columns that are no metrics; `_low` and `_high` are ends of 95% intervals."""


def opening(title: str, weights: Path | None = None) -> list[str]:
    """The title, and what was asked: the command line where one was typed, when, by which version, of which weights."""
    story = provenance(typed())
    facts = {"asked": story.get("command", ""), "made": story["created"], "by": f"pai {story['pai_version']}"}
    if weights is not None:
        facts["weights"] = f"{weights}, {_digest(weights)}"
    rows = "".join(f"<dt>{name}</dt><dd>{page.text(told)}</dd>" for name, told in facts.items() if told)
    return [page.heading(title, 1), f'<dl class="facts">{rows}</dl>']


def _digest(weights: Path) -> str:
    files = [file for file in files_of(weights) if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    return f"SHA-256 {sha256_of(files)}" if size <= MOST_DIGESTED else f"{size:,} bytes (their digest was not taken)"


def glossary(columns: Sequence[str]) -> list[str]:
    """What these columns mean, in their order."""
    known = {**MEANINGS, **{name: metric.meaning for name, metric in RANKED.items()}}
    shown = [name for name in dict.fromkeys(columns) if name in known]
    rows = (f"<dt>{page.text(name)}</dt><dd>{page.text(known[name])}</dd>" for name in shown)
    return [page.heading("What the columns mean"), f'<dl class="facts">{"".join(rows)}</dl>'] if shown else []
