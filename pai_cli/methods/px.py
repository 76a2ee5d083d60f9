"""PX (Path eXclusion): weights by their paths, and samples by the paths they wake, in a bound of the tangent kernel's trace.

Iurada, Ciccone, Tommasi 2024, "Finding lottery tickets in vision models via data-driven spectral foresight pruning",
https://arxiv.org/abs/2406.01820
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite

import torch
from torch import nn

from pai_cli.errors import MethodOptionError, ScoreError
from pai_cli.models.copies import (
    ONE_TYPE,
    failed_on,
    one_tensor,
    remedy_for,
    remove,
    repeatable,
    seeded,
    takes_float32_alone,
    with_gradients,
    working_copy,
)
from pai_cli.models.gates import Gated, Gates
from pai_cli.models.linearised import Linearised
from pai_cli.pruning.base import Masks, ScoreContext, Scorer, Scores
from pai_cli.spelling import option


def make_scorer(context: ScoreContext) -> Scorer:
    """|w^2 * dR/d(w^2)| in float64, 0 or more, shaped as the weight; 0 for a weight that is masked or on no path.

    R = sum over outputs k of c_k h_k. h_k is the output of SynFlow-L2's network of squared parameters and buffers, for an
    input of ones: the sum over the paths to k of the squared product of their weights. c_k is the sum over the samples x of
    the output, for x^2, of the network of kept weights set to 1, whose ReLUs are open where the network's own are for x: how
    many paths x wakes, each by its input squared. Without biases the slopes dR/d(w^2) of all weights sum to the paper's
    bound on the trace of the neural tangent kernel, sum_k |J_v^f_k|^2 |J_w^v_k|^2, v the products along paths. Batch norms
    are in evaluation mode, by the statistics that the network has; max pools take the largest of what each network gives
    them. Which ReLUs are open is told in float64 when a weight of the network is, else in float32. Samples enter by the c_k
    alone: where these are all the same, as before any weight of a last linear layer is pruned, this is SynFlow-L2.

    Raises what `Linearised` does; `MethodOptionError` when the network fails on a batch; `ScoreError` at an activation other
    than ReLU, ReLU6 and leaky ReLU and where outputs are no sums over paths for another reason, without samples, and where R
    is past float64.
    """
    return Paths(context).score


class Paths:
    """Three copies of a network: its own weights, and in float64 ones and squares; all in evaluation mode."""

    def __init__(self, context: ScoreContext) -> None:
        if not context.batches:
            raise ScoreError(f"{context.method}: has no samples to score with; give {option('data')}")
        self.context = context
        model, device, method = context.network.model, context.device, context.method
        names = tuple(layer.name for layer in context.layers)
        shape = context.input_shape or tuple(context.batches[0][0].shape[1:])
        self.squares = Linearised(context.network, names, shape, device, squared=True, method=method)
        double = any(parameter.dtype == torch.float64 for parameter in model.parameters())
        # Only signs are taken of it, and float32 takes half as long.
        self.precision = torch.float64 if double else torch.float32
        self.own = working_copy(model, device, self.precision, method)
        self.ones = working_copy(model, device, torch.float64, method)
        _count_paths(self.ones, {layer.name for layer in context.network.layers})
        self.followed = False
        self.weights = [with_gradients(one, names) for one in (self.own, self.ones)]

    def score(self, masks: Masks | None) -> Scores:
        """A round's scores."""
        for weights in (*self.weights, self.squares.weights):
            remove(weights, masks)
        with torch.no_grad(), seeded(self.context.device, self.context.seed), repeatable(self.context.device):
            woken = torch.stack([outputs.sum(0) for outputs in self._paths()]).sum(0)
        flow = self.squares.flow(woken)
        if not isfinite(flow.output):
            raise ScoreError(
                f"{self.context.method}: the sum over paths is not a finite float64 (too deep, or weights too large or not "
                f"finite); give another {option('method')}, such as erk"
            )
        squares = self.squares.weights
        # A running mean that no ReLU follows makes slopes below 0.
        return Scores({name: (one.detach() * flow.gradients[name]).abs_() for name, one in squares.items()})

    def _paths(self) -> Iterator[torch.Tensor]:
        """Of each batch, how many paths lead to each output (samples, outputs), each by its input squared."""
        for inputs, _ in self.context.batches:
            x = inputs.to(self.context.device, self.precision)
            gates = Gates(self.context.method)
            try:
                with gates:
                    self.own(x.clone())  # as its first operation may be in place
                outputs = self._woken(x.double().square(), gates)
                if not self.followed:
                    self._check(outputs, self._woken(4 * x.double().square(), gates))
            except ScoreError:
                raise
            except Exception as error:
                failure = f"{self.context.method}: {failed_on(inputs, error)}"
                if takes_float32_alone(self.ones, x):
                    raise ScoreError(f"{failure} in float64; {ONE_TYPE}") from error
                remedy = remedy_for(error, f"give the shape of one input with {option('input_shape')}")
                raise MethodOptionError(f"{failure}; {remedy}") from error
            yield outputs

    def _woken(self, squares: torch.Tensor, gates: Gates) -> torch.Tensor:
        """The outputs of the network of ones, whose ReLUs are open as noted."""
        with Gated(gates.noted):
            return one_tensor(self.ones(squares), self.context.method)

    def _check(self, outputs: torch.Tensor, of_four: torch.Tensor) -> None:
        """Outputs that are sums over paths grow as the inputs do. Raises `ScoreError` elsewhere."""
        self.followed = torch.allclose(4 * outputs, of_four, rtol=1e-6, equal_nan=True)
        if not self.followed:
            raise ScoreError(
                f"{self.context.method}: with ReLUs held open or shut the outputs are not proportional to the inputs, so no "
                "sum over paths (the network has a function that is not linear, or adds or takes away what is no bias of a "
                f"layer); give another {option('method')}"
            )


def _count_paths(model: nn.Module, weights: set[str]) -> None:
    """Let every path count once: weights and scales 1, biases and means 0, variances 1; other parameters stay."""
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            last = name.rpartition(".")[2]
            if "bias" in last or last == "running_mean":
                tensor.zero_()
            elif name in weights or last == "running_var" or (last == "weight" and tensor.dim() == 1):
                tensor.fill_(1.0)
