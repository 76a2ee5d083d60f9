"""A reason in a table is never cut."""

from __future__ import annotations

from pai_cli.display.tables import noted


def test_a_failed_masks_reason_is_whole():
    reason = "mask (1).pt: tensor 'a (b)' cannot be read; convert it; it is: sparse (COO)"
    assert noted({"reason": reason, "outcome": "failed", "level": "network"}, weights=False) == f"failed: {reason}"


def test_only_the_list_of_measures_is_left_out():
    record = {"level": "layer", "outcome": "proved"}
    reason = "needs --weights (lambda, l2); no rows (see the file): empty (dr, dr_imdb); needs --weights too (1)"
    assert noted(record | {"reason": reason}, weights=False) == "no rows (see the file): empty; needs --weights too (1)"
    outcome = "error bound wider than asked for: the value lies within the bound given"
    assert noted(record | {"reason": None, "outcome": outcome}, weights=True) == outcome
