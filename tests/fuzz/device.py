"""Graphs of every kind as tensors, solved as one plan: what is claimed of two singular values holds against a dense SVD."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from random_graphs import EVERY_KIND, Case, case_of, check_all, check_residuals

from pai_cli.spectral.device.gathering import graphs_of
from pai_cli.spectral.problems import Problems
from pai_cli.spectral.solvers import Solver, SolverOptions


class TensorCase(Case):
    """The same graph on torch."""

    def problem(self) -> Problems:
        weights = None if self.weights is None else torch.from_numpy(self.weights)
        graph = graphs_of([torch.from_numpy(self.mask)], [weights])[0]
        return Problems.whole(graph, weighted=weights is not None)


def case(seed: int, folder: Path) -> None:
    """A few graphs of each kind: 24 cases are 2,592 graphs."""
    rng = np.random.default_rng(seed)
    plain = [case_of(kind, int(rng.integers(2**48))) for kind in EVERY_KIND for _ in range(4)]
    cases: list[Case] = [TensorCase(one.note, one.mask, one.weights, one.expected, one.outcome) for one in plain]
    if rng.random() < 0.2:
        check_residuals(cases)
    else:
        check_all(cases, SolverOptions(solver=Solver(str(rng.choice(["auto", "power"])))))
