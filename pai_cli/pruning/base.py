"""What a pruning method is: a score for every weight, and a few facts the shared engine needs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from pai_cli.models.network import Network, PrunableLayer

Allocation = Literal["none", "uniform", "erk"]
Scope = Literal["global", "layer"]
Masks = dict[str, "NDArray[np.bool_]"]
"""By layer, in network order: true where a weight is kept."""


@dataclass(frozen=True)
class Scores:
    """What a method says of the weights: the larger a score, the better the reason to keep its weight.

    `values`: one tensor a layer, shaped as the weight; any floating type, no NaN. `flow`: for methods whose
    scores measure a flow through the network, the flow itself (0 or more); `--rounds auto` removes less than
    that at a time.
    """

    values: Mapping[str, torch.Tensor]
    flow: float | None = None


Scorer = Callable[[Masks | None], Scores]
"""Scores the weights under the masks of the round before (None at first).

Masks only shrink from call to call, and scores may be written over by the next call.
"""


@dataclass(frozen=True)
class ScoreContext:
    """All that a method may look at. What is slow to build from it is built once, when the scorer is made.

    `layers` are the ones being pruned; the network's other layers stay whole. `input_shape` has no batch
    dimension. `counts`: how many weights the run keeps in the end, of the network or by layer; None when not known.
    """

    network: Network
    layers: tuple[PrunableLayer, ...]
    input_shape: tuple[int, ...] | None
    device: str
    seed: int
    counts: int | Mapping[str, int] | None = None

    def generator(self, layer: str) -> np.random.Generator:
        """The random generator of one layer, a function of the seed and the layer's name only.

        So leaving another layer out, or changing the order, does not change what is drawn here.
        """
        import numpy as np

        digest = hashlib.sha256(layer.encode()).digest()
        key = tuple(int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4))
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))


MakeScorer = Callable[[ScoreContext], Scorer]


@dataclass(frozen=True)
class Method:
    """A row of the registry.

    `make_scorer` is called once a run and gives the scorer that each round calls; as "module:function" it is
    imported only when used, so that listing the methods imports nothing heavy.
    """

    name: str
    summary: str
    """One line for `pai prune --help`."""
    source: str
    """Whose method it is, with the arXiv number."""
    make_scorer: str | MakeScorer
    allocation: Allocation = "none"
    """Densities fixed layer by layer: "uniform" or "erk"; "none" leaves them to the scores."""
    rounds: int = 1
    """How many rounds when `--rounds` is not given."""
    iterative: bool = False
    """Whether `--rounds N` applies."""
    adaptive: bool = False
    """Whether `--rounds auto` applies; the scores must then come with their flow."""
    random: bool = False
    """Whether the seed changes the mask."""

    def load(self) -> MakeScorer:
        """The function that makes this method's scorer, imported now if it was named as "module:function"."""
        if not isinstance(self.make_scorer, str):
            return self.make_scorer
        module, _, function = self.make_scorer.partition(":")
        loaded: MakeScorer = getattr(import_module(module), function)
        return loaded
