"""NTK-SAP: weights by how much the neural tangent kernel would change without them, whatever the weights are.

Wang et al. 2023, "NTK-SAP: Improving neural network pruning by aligning training dynamics",
https://arxiv.org/abs/2304.02840
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pai_cli.errors import MethodOptionError, ScoreError
from pai_cli.files.messages import one_line
from pai_cli.methods.signed_constants import constant_of
from pai_cli.models.copies import (
    failed_on,
    one_tensor,
    remedy_for,
    remove,
    repeatable,
    seeded,
    with_gradients,
    working_copy,
)
from pai_cli.models.huggingface import refuse_weights_alone
from pai_cli.models.programs import normalise_by_batch
from pai_cli.models.spectral_norms import refuse_spectral_norms
from pai_cli.pruning.base import Masks, ScoreContext, Scorer, Scores
from pai_cli.pruning.samples import batches_of
from pai_cli.random import generator_for
from pai_cli.spelling import option

DRAWS, INPUTS, PERTURBATION = 5, 100, 0.01
"""Of the authors' recipe for CIFAR-10: networks drawn a round, inputs for each (ten a class), standard deviation."""

Tensors = dict[str, torch.Tensor]


class Draw(NamedTuple):
    """One network and one batch: weights, the same perturbed, and inputs; float32."""

    weights: Tensors
    moved: Tensors
    inputs: torch.Tensor


def make_scorer(context: ScoreContext) -> Scorer:
    """|dJ/dm|, 0 or more, shaped as the weight; m its gate, 1 where it is kept and 0 where it is not.

    J = sum over draws and inputs x of |f(x; w m) - f(x; (w + e) m)|^2, which is the perturbation's variance times the
    trace (the nuclear norm) of the neural tangent kernel, to first order and in expectation. Everything in it is drawn:
    w from Kaiming's normal distribution, of variance 2 / fan_in, e from N(0, 0.01^2), x from N(0, 1), five networks a
    round with 100 inputs each. So neither data nor the network's own weights matter: batch norms have scale 1 and shift 0,
    and only biases and other norms are as the network has them. Both passes normalise by the statistics of the batch in
    the network that is not perturbed, which are held constant; an exported program by each pass's own, with the scales and
    shifts it has. Where 100 inputs are too many for one batch, each batch has a network of its own. Float64 when a weight
    of the network is, else float32.

    Raises `MethodOptionError` (input shape missing or wrong), `ScoreError` (a network that has spectral norms, or
    cannot be copied or differentiated, outputs that are not finite), `DeviceError`.
    """
    return Kernel(context).score


def draws(context: ScoreContext, number: int) -> Iterator[Draw]:
    """What is drawn in a round, from 1; on the host, so that every device has the same."""
    assert context.input_shape is not None
    random = generator_for(context.seed, f"{context.method} round {number}")

    def normal(shape: tuple[int, ...], deviation: float) -> torch.Tensor:
        return torch.from_numpy(random.standard_normal(shape, dtype="float32")).mul_(deviation)

    pieces = batches_of(INPUTS, math.prod(context.input_shape))
    for _ in range(DRAWS):
        for size in torch.arange(INPUTS).tensor_split(pieces):
            layers = context.network.layers
            weights = {layer.name: normal(layer.shape, constant_of(layer)) for layer in layers}
            moved = {name: weight + normal(tuple(weight.shape), PERTURBATION) for name, weight in weights.items()}
            yield Draw(weights, moved, normal((len(size), *context.input_shape), 1.0))


class Kernel:
    """Two copies of a network, for the weights that are drawn and for those perturbed."""

    def __init__(self, context: ScoreContext) -> None:
        refuse_weights_alone(context.network.model)
        refuse_spectral_norms(context.network.model, context.method)
        if context.input_shape is None:
            raise MethodOptionError(
                f"{context.method}: the shape of one input is not known; give it with {option('input_shape')}, such as "
                "3,32,32"
            )
        self.context, self.round = context, 0
        model, names = context.network.model, [layer.name for layer in context.network.layers]
        double = any(parameter.dtype == torch.float64 for parameter in model.parameters())
        self.dtype = torch.float64 if double else torch.float32
        self.models = tuple(working_copy(model, context.device, self.dtype, context.method) for _ in range(2))
        self.weights = tuple(with_gradients(one, names) for one in self.models)
        modules = [module for one in self.models for module in one.modules()]
        self.norms = [
            _plain(module).to(context.device, self.dtype) for module in modules if isinstance(module, _BatchNorm)
        ]
        for one in self.models:
            if isinstance(one, fx.GraphModule):
                normalise_by_batch(one)

    def score(self, masks: Masks | None) -> Scores:
        """A round's scores, of other draws than the round before. Raises what `make_scorer` says."""
        self.round += 1
        totals = {one.name: torch.zeros_like(self.weights[0][one.name].detach()) for one in self.context.layers}
        sizes = []
        for draw in draws(self.context, self.round):
            self._take(draw, masks)
            inputs = draw.inputs.to(self.context.device, self.dtype)
            self._settle(inputs)
            with torch.enable_grad(), repeatable(self.context.device):
                before, after = (self._outputs(model, inputs) for model in self.models)
                sizes.append((before - after).square().sum())
                self._add_slopes(sizes[-1], totals)
        if not bool(torch.stack(sizes).isfinite().all()):
            raise ScoreError(
                f"{self.context.method}: the outputs for drawn weights and inputs are not finite (too deep without a norm, "
                f"or biases too large); give another {option('method')}, such as erk"
            )
        return Scores({name: total.abs_() for name, total in totals.items()})

    def _take(self, draw: Draw, masks: Masks | None) -> None:
        for weights, drawn in zip(self.weights, (draw.weights, draw.moved), strict=True):
            for name, weight in weights.items():
                weight.detach().copy_(drawn[name])
            remove(weights, masks)

    def _settle(self, inputs: torch.Tensor) -> None:
        """Give the batch norms of both the statistics of this batch in the network that is not perturbed."""
        if not self.norms:
            return
        for norm in self.norms:
            norm.train()
        with torch.no_grad():
            self._outputs(self.models[0], inputs)
        for norm in self.norms:
            norm.eval()
        for mine, theirs in zip(*(one.buffers() for one in self.models), strict=True):
            theirs.copy_(mine)

    def _outputs(self, model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        method = self.context.method
        try:
            # A network that draws in its pass draws the same in both; a clone, as its first operation may be in place.
            with seeded(self.context.device, self.context.seed):
                outputs = model(inputs.clone())
        except Exception as error:
            remedy = remedy_for(error, f"give the shape of one input with {option('input_shape')}")
            raise MethodOptionError(f"{method}: {failed_on(inputs, error)}; {remedy}") from error
        return one_tensor(outputs, method)

    def _add_slopes(self, size: torch.Tensor, totals: Tensors) -> None:
        """dJ/dm is w dJ/d(w m), of both networks; what is not scored need not be asked for."""
        both = [(total, weights[name]) for weights in self.weights for name, total in totals.items()]
        try:
            found = torch.autograd.grad(size, [weight for _, weight in both], allow_unused=True)
        except RuntimeError as error:
            raise ScoreError(
                f"{self.context.method}: the network's outputs cannot be differentiated ({one_line(error)})"
            ) from error
        for (total, weight), gradient in zip(both, found, strict=True):
            if gradient is not None:
                total.addcmul_(weight.detach(), gradient)


def _plain(norm: _BatchNorm) -> _BatchNorm:
    """The batch norm with scale 1 and shift 0, whose running statistics are those of the last batch."""
    norm.momentum = 1.0
    if norm.running_mean is None:  # it would normalise each of the two networks by itself
        norm.track_running_stats, norm.num_batches_tracked = True, torch.zeros((), dtype=torch.int64)
        norm.running_mean, norm.running_var = torch.zeros(norm.num_features), torch.ones(norm.num_features)
    if norm.affine:
        norm.weight.detach().fill_(1.0)
        norm.bias.detach().fill_(0.0)
    return norm
