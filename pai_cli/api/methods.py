"""`method`: a pruning method of one's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from pai_cli.api.ranges import takes_numpy
from pai_cli.errors import ScoreError
from pai_cli.methods import registry
from pai_cli.pruning.base import Allocation, Iterative, Masks, Method, ScoreContext, Scorer, Scores

if TYPE_CHECKING:
    import torch

Score = Callable[[ScoreContext, Masks | None], "Scores | Mapping[str, torch.Tensor]"]


@takes_numpy
def method(
    name: str,
    *,
    source: str,
    summary: str | None = None,
    allocation: Allocation = "none",
    rounds: int = 1,
    iterative: Iterative = False,
    recovers: bool = False,
    random: bool = False,
    data: bool = False,
) -> Callable[[Score], Method]:
    """Make a function a pruning method, which `prune`, `sample` and `Mask` then know by its name.

        @pai.method("mine", source="arXiv:...")
        def score(context, masks):
            return {layer.name: context.network.parameter(layer.name).detach() for layer in context.layers}

    The function is called in every round with the context (the network, the layers that are pruned, the device, labelled
    batches of a method with `data`, `context.generator(layer)` for what is drawn) and the masks of the round before, None at
    first. It gives a tensor of scores for each layer, in the weight's shape, without NaN: the largest are kept. The network
    must be left as it is.

    `source`: whose method it is. `summary`: one line, by default the first of the function's docstring. `allocation`:
    "uniform", "erk" or "smart-ratio" fix each layer's density, "none" leaves it to the scores. `rounds`: how many, where
    nobody says; `iterative`: whether a number of rounds may be asked for, and if "auto", that too, for which the function
    gives `Scores` with their flow. `recovers`: whether a round may keep what the one before did not. `random`: whether the
    seed changes the mask. `data`: whether it needs samples.

    Gives the `Method`. As the value of an entry point of the group `pai.methods` it is one for the command line too.
    Raises `ValueError` for a name that is taken.
    """

    def made(score: Score) -> Method:
        told = summary or (inspect.getdoc(score) or "a method of one's own").splitlines()[0]
        one = Method(
            name=name,
            summary=told,
            source=source,
            make_scorer=partial(_scorer, score, name),
            allocation=allocation,
            rounds=rounds,
            iterative=iterative,
            recovers=recovers,
            random=random,
            data=data,
        )
        registry.register(one)
        return one

    return made


def _scorer(score: Score, name: str, context: ScoreContext) -> Scorer:
    """What calls the function in each round, and sees that it gives what it should."""

    def scored(masks: Masks | None) -> Scores:
        given: Any = score(context, masks)
        scores = given if isinstance(given, Scores) else Scores(given) if isinstance(given, Mapping) else None
        if scores is None:
            raise ScoreError(f"{name}: gives {type(given).__name__}, and a tensor by layer is needed")
        for layer in context.layers:
            tensor: Any = scores.values.get(layer.name)
            if tensor is None:
                raise ScoreError(f"{name}: gives no scores of {layer.name!r}")
            if tuple(getattr(tensor, "shape", ())) != layer.shape:
                shape = tuple(getattr(tensor, "shape", ()))
                raise ScoreError(f"{name}: its scores of {layer.name!r} have shape {shape}, the weight {layer.shape}")
        return scores

    return scored
