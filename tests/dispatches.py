"""What a GPU would be asked for, counted on tensors of the CPU or of `meta`: launches, waits, and which operations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pai_cli.spectral.device import gathering
from pai_cli.spectral.device.plan import Way, parts_of, planned
from pai_cli.spectral.device.solve import tables
from pai_cli.spectral.solver_table import limits_of
from pai_cli.spectral.solvers import DEFAULT, DEVICE_PROOF_SIDE
from pai_cli.spectral.subgraphs import regular_subgraphs

NO_LAUNCH = {
    *(
        "view",
        "_unsafe_view",
        "slice",
        "select",
        "transpose",
        "t",
        "expand",
        "unsqueeze",
        "squeeze",
        "permute",
        "alias",
    ),
    *("detach", "as_strided", "diagonal", "unbind", "split", "split_with_sizes", "reshape_alias", "_reshape_alias"),
    *("empty", "new_empty", "empty_like", "empty_strided", "lift_fresh", "scalar_tensor", "is_pinned"),
}
SEVERAL = {"nonzero": 4, "sort": 6, "argsort": 6, "linalg_cholesky_ex": 4}  # launches of one operation on a GPU
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "_linalg_eigh", "_linalg_svd", "linalg_eigvalsh"}


class Dispatches(TorchDispatchMode):
    """Counts inside its block. `names`: of every operation, with its overload; `shapes`: of each result with dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.launches = self.waits = self.bytes = 0
        self.names: Counter[str] = Counter()
        self.shapes: list[tuple[str, tuple[int, ...]]] = []
        self.solved: list[tuple[int, ...]] = []  # what is given to an eigensolver

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[1]
        self.names[func.name()] += 1
        self.waits += name in WAITS
        if name in ("_linalg_eigh", "linalg_eigvalsh", "_linalg_svd"):
            self.solved.append(tuple(args[0].shape))
        if name in NO_LAUNCH or name == "_local_scalar_dense":
            return result
        self.launches += SEVERAL.get(name, 1)
        made = [one for one in (result if isinstance(result, tuple) else (result,)) if isinstance(one, torch.Tensor)]
        given = [one for one in args if isinstance(one, torch.Tensor)]
        self.bytes += sum(one.numel() * one.element_size() for one in made + given)
        self.shapes += [(name, tuple(one.shape)) for one in made]
        return result


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dispatches]:
    """Counts all that the block does; copies to the host, which no dispatch shows on the CPU, are waits too."""
    with monkeypatch.context() as patch, Dispatches() as seen:
        for name in ("cpu", "tolist", "__array__"):
            patch.setattr(torch.Tensor, name, _waiting(seen, getattr(torch.Tensor, name)))
        yield seen


def _waiting(seen: Dispatches, method: Any) -> Any:
    def waits(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.waits += 1
        return method(self, *args, **kwargs)

    return waits


def counted_on_meta(
    shapes: Sequence[tuple[int, int]], density: float, monkeypatch: pytest.MonkeyPatch
) -> tuple[Dispatches, int]:
    """What a mask of layers (rows, columns) would take: the very plan of degrees as chance gives them, on tensors without
    values; and of how many problems. What is read of the device is made up here, each time a wait.
    """
    rng = np.random.default_rng(0)

    def numbers(tensor: torch.Tensor) -> Any:
        seen.waits += 1
        return made.pop(0)(len(tensor))

    def left(count: int) -> Any:
        degrees = []
        for width in dict.fromkeys(sorted(gathering.padded_width(rows) for rows, _ in shapes)):
            own = [shape for shape in shapes if gathering.padded_width(shape[0]) == width]
            degrees += [np.zeros(1), *(rng.binomial(rows, density, columns) for rows, columns in own)]
        assert sum(map(len, degrees)) == count
        return np.concatenate(degrees).astype(float)

    def right(count: int) -> Any:
        return np.full(count, max(1, round(density * min(min(shape) for shape in shapes))), dtype=np.int64)

    made = [left, right]
    monkeypatch.setattr(gathering, "fetched", numbers)
    monkeypatch.setattr(gathering, "zero_one", lambda mask: mask)
    with Dispatches() as seen:
        masks = [torch.empty(shape, dtype=torch.bool, device="meta") for shape in shapes]
        graphs = gathering.graphs_of(masks, [None] * len(masks))
        for graph in graphs:  # every class touches nearly all rows
            graph.left_classes.n_R[:] = np.minimum(graph.n_R0, graph._classes.degree * 3)
            graph.n_R = graph.n_R0
        parts = parts_of([regular_subgraphs(graph).problems(graph) for graph in graphs])
        way = Way(limits_of(DEFAULT, 0, DEVICE_PROOF_SIDE))
        tables(planned(parts, way), way.limits)
        seen.waits += 1  # for the table
    return seen, len(parts)
