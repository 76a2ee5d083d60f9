"""What a pruning method is: a score for every weight, and a few facts the shared engine needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Literal, NamedTuple

from pai_cli.errors import MethodOptionError
from pai_cli.progress import Progress, silent
from pai_cli.random import generator_for
from pai_cli.spelling import option

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from pai_cli.models.network import Network, PrunableLayer
    from pai_cli.pruning.trained import TrainingContext, TrainingOptions

Allocation = Literal["none", "uniform", "erk", "smart-ratio"]
Iterative = Literal[False, True, "auto"]
Scope = Literal["global", "layer", "output"]
"""Where a density holds: in the network, in each layer, or at each output of it, which a method may ask for."""
PieceScore = Literal["draw", "magnitude"]
BatchNorm = Literal["batch", "running"]
"""What batch norms normalise by while samples are scored: their batch, or running statistics."""
BlockAllocation = Literal["owl", "alphapruning"]
BLOCK_ALLOCATIONS: tuple[BlockAllocation, ...] = ("owl", "alphapruning")
"""What gives each block of a language model its density: `pruning.block_densities`."""
USUAL_DENSITY = 0.05
"""The fraction kept where nothing is asked for: the command line takes it and says so."""
Masks = dict[str, "NDArray[np.bool_]"]
"""By layer, in network order: true where a weight is kept."""
Batches = tuple[tuple["torch.Tensor", "torch.Tensor"], ...]
"""Inputs (n, *input shape), float32 and normalised, each with its labels (n,), int64."""


InputsOf = Literal["squares", "gram"]


class ByMatrix(NamedTuple):
    """How a method prunes a language model, one matrix after the other, by what a text sends into each.

    `function`: "module:function", a `pruning.matrices.PruneMatrix`. `inputs`: what it looks at, the sum of squares of each
    input, or all of X^T X. `scope`: where its density holds.
    """

    function: str
    inputs: InputsOf
    scope: Scope


class Pattern(NamedTuple):
    """`keep` of every `of` consecutive inputs, written `keep:of`."""

    keep: int
    of: int

    def __str__(self) -> str:
        return f"{self.keep}:{self.of}"

    @property
    def density(self) -> float:
        """The fraction kept of a layer that the pattern fits."""
        return self.keep / self.of

    def check(self) -> None:
        """Raise `MethodOptionError` unless 1 <= keep < of."""
        if not 1 <= self.keep < self.of:
            raise MethodOptionError(
                f"{option('pattern', self)}: N:M keeps N of every M inputs, 1 <= N < M, such as 2:4"
            )


@dataclass(frozen=True)
class Scores:
    """What a method says of the weights: the larger a score, the better the reason to keep its weight.

    `values`: one tensor a layer, shaped as the weight; any floating type, no NaN. `flow`: for methods whose
    scores measure a flow through the network, the flow itself (0 or more); the rounds "auto" remove less than
    that at a time.
    """

    values: Mapping[str, torch.Tensor]
    flow: float | None = None


Scorer = Callable[[Masks | None], Scores]
"""Scores the weights under the masks of the round before (None at first).

Masks only shrink from call to call, unless the method `recovers` weights; scores may be written over by the next call.
"""


@dataclass(frozen=True)
class ScoreContext:
    """All that a method may look at. What is slow to build from it is built once, when the scorer is made.

    `layers` are the ones being pruned; the network's other layers stay whole. `input_shape` has no batch
    dimension. `batches`: labelled samples, for a method with `data`; none for the others. `method`: the name that
    was asked for, for messages. `counts`: how many weights the run keeps in the end, of the network or by layer; None
    when not known. `training`: for a method that trains; None for the others. `batch_norm`: what batch norms normalise by,
    for a method that says in its row which it can do. `progress`: for a method that takes long to score once.

    A method may read the network and must leave it as it is: weights, buffers, gradients, `requires_grad`, mode.
    What it has to change, it changes on a copy.
    """

    network: Network
    layers: tuple[PrunableLayer, ...]
    input_shape: tuple[int, ...] | None
    device: str
    seed: int
    batches: Batches = ()
    method: str = ""
    counts: int | Mapping[str, int] | None = None
    training: TrainingContext | None = None
    batch_norm: BatchNorm = "batch"
    progress: Progress = silent

    def generator(self, layer: str) -> np.random.Generator:
        """The random generator of one layer, a function of the seed and the layer's name only.

        So leaving another layer out, or changing the order, does not change what is drawn here.
        """
        return generator_for(self.seed, layer)


MakeScorer = Callable[[ScoreContext], Scorer]


def fixed(values: Mapping[str, torch.Tensor]) -> Scorer:
    """A scorer whose scores are these in every round, whatever is left."""
    scores = Scores(values)
    return lambda _: scores


@dataclass(frozen=True)
class Method:
    """A row of `methods.registry`.

    `make_scorer` is called once a run and gives the scorer that each round calls; as "module:function" it is
    imported only when used, so that listing the methods imports nothing heavy.
    """

    name: str
    summary: str
    """One line for the help of `pai prune`."""
    source: str
    """Whose method it is, with the arXiv number."""
    make_scorer: str | MakeScorer
    allocation: Allocation = "none"
    """Densities fixed layer by layer: "uniform", "erk" or "smart-ratio"; "none" leaves them to the scores."""
    rounds: int | Callable[[TrainingOptions, float], int] = 1
    """How many rounds when nobody says; what the options of training and the density make of them."""
    iterative: Iterative = False
    """Whether a number of rounds applies; of "auto", the rounds "auto" too: the scores must then come with their flow."""
    recovers: bool = False
    """Whether a weight that one round leaves out may be kept by a later one: each round chooses from all weights, and the
    scores must then tell of those that are left out too.
    """
    random: bool = False
    """Whether the seed changes the mask, samples aside."""
    data: bool = False
    """Whether it scores with labelled samples: data are then needed, and `ScoreContext.batches` holds them."""
    batch_norm: tuple[BatchNorm, ...] = ()
    """For a method with `data`: what it can have batch norms normalise by, the usual first; `ScoreContext.batch_norm` says
    which.
    """
    trains: tuple[str, ...] = ()
    """For a method that trains, which needs `data`: the `TrainingOptions` it takes. `ScoreContext.training` then holds
    them and all of the data, and `batches` none; the scorer is called in every round.
    """

    in_pieces: PieceScore | None = None
    """How a part of a weight is scored without the rest and without the network, so that a checkpoint larger than memory
    can be pruned: "draw" as `pruning.random`, "magnitude" as `pruning.magnitude`; None where that cannot be.
    """

    device_masks: bool = False
    """Whether the scorer takes masks as any `Mapping`: those of a device then stay there from round to round."""

    by_matrix: ByMatrix | None = None
    """For a method that prunes language models by a text: how. It has no scorer."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for a method that would train on nothing."""
        if self.trains and not self.data:
            raise ValueError("a method that trains needs data=True")

    @property
    def text(self) -> bool:
        """Whether it reads a text, and prunes language models alone."""
        return self.by_matrix is not None

    @property
    def draws(self) -> bool:
        """Whether another seed gives another mask: by what is drawn, or by which samples are taken."""
        return self.random or self.data or self.text

    @property
    def adaptive(self) -> bool:
        """Whether the rounds "auto" apply."""
        return self.iterative == "auto"

    @property
    def reads_weights(self) -> bool:
        """Whether it looks at the weights; one that draws in pieces looks at the seed alone."""
        return self.in_pieces != "draw"

    def load(self) -> MakeScorer:
        """The function that makes this method's scorer, imported now if it was named as "module:function"."""
        if not isinstance(self.make_scorer, str):
            return self.make_scorer
        module, _, function = self.make_scorer.partition(":")
        loaded: MakeScorer = getattr(import_module(module), function)
        return loaded


METHODS: dict[str, Method] = {}
"""The methods known so far, by name; `methods.registry` fills it. Here they are told of, not chosen."""


class Takers:
    """What methods take, for messages: `Takers().data` names those with data, `Takers().penalty` those with that option."""

    def __getattr__(self, name: str) -> str:
        """Those for which this field holds, or which train and take this option."""
        return ", ".join(one.name for one in METHODS.values() if getattr(one, name, False) or name in one.trains)
