"""Layer-wise re-scaled initialisation: one positive scale a parameter tensor, learned before the first step.

GradInit (Zhu, Ni, Xu, Kong, Huang, Goldstein 2021, arXiv:2102.08098) on the masked network, as ToST (arXiv:2206.12755) has
it: scales s minimise the loss after one step of SGD from the scaled weights, subject to a bounded gradient norm,

    min_s  L(S'; W - lr m g/|m g|) / lr   subject to  |m g| <= 1,   W = s W_0,  g = dL(S; W)/dW,  m the mask.

The gradient in the step is taken as constant. Where the bound does not hold, a step lowers |m g| itself instead.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from pai_cli.errors import TrainingError
from pai_cli.spelling import option
from pai_cli.training.examples import Pair
from pai_cli.training.model import cross_entropy
from pai_cli.training.state import Tensors

ITERATIONS = 180
RATE, BETAS, EPS = 1e-2, (0.9, 0.999), 1e-8
BOUND = 1.0
"""What the gradient's norm may be."""

FLOOR = 0.01
"""Of the scales of weights; those of biases may reach 0."""

CLIP = 1.0
"""Where the derivative by a scale is cut off."""

Batches = Callable[[int], tuple[Pair, Pair]]
"""By iteration: the batch S that the gradient is of, and S', half of which is new."""


@dataclass
class ScaleState:
    """Adam on the scales: a first moment each for the objective and for the bound, one second moment, counts of each."""

    scales: torch.Tensor
    moments: torch.Tensor
    square: torch.Tensor
    counts: list[int]

    @property
    def done(self) -> int:
        """Iterations done."""
        return sum(self.counts)

    def move(self, derivative: torch.Tensor, which: int, floors: torch.Tensor) -> None:
        """One step of Adam by `derivative`: of the objective (`which` 0) or of the bound (1)."""
        first, second = BETAS
        self.counts[which] += 1
        self.moments[which] = first * self.moments[which] + (1 - first) * derivative
        self.square = second * self.square + (1 - second) * derivative**2
        mean = self.moments[which] / (1 - first ** self.counts[which])
        spread = (self.square / (1 - second**self.done)).sqrt()
        self.scales = torch.maximum(self.scales - RATE * mean / (spread + EPS), floors)


class Rescaling:
    """Learns the scales of a model's parameter tensors, an iteration at a time; the model is read, not changed.

    `masks`: of weights, by name, in their type. Tensors that are all 0 have no scale, but a part in the gradient.
    `rate`: of the SGD step that is looked ahead. Batch norms normalise by their batch; everything else is in evaluation
    mode. Raises `TrainingError` for a model with nothing to scale.
    """

    def __init__(self, model: nn.Module, masks: Mapping[str, torch.Tensor], rate: float, batches: Batches):
        self._model = copy.deepcopy(model).eval().requires_grad_(False)
        for module in self._model.modules():
            if isinstance(module, _BatchNorm):
                module.track_running_stats = False
                module.running_mean = module.running_var = module.num_batches_tracked = None
        self._start = {name: one.detach().clone() for name, one in model.named_parameters()}
        self._scaled = torch.stack([one.any() for one in self._start.values()]).cpu()
        if not bool(self._scaled.any()):
            raise TrainingError(
                f"{option('rescale')}: every parameter is 0, and has no scale; leave {option('rescale')} out"
            )
        self._masks, self._rate, self._batches = masks, rate, batches
        self._dtype = next(iter(self._start.values())).dtype
        count = len(self._start)
        floors = [0.0 if name.rpartition(".")[2] == "bias" else FLOOR for name in self._start]
        self._floors = torch.tensor(floors, dtype=torch.float64)
        one = torch.ones(count, dtype=torch.float64)
        self.state = ScaleState(one, torch.zeros(2, count, dtype=torch.float64), torch.zeros_like(one), [0, 0])

    @property
    def finished(self) -> bool:
        """Whether all iterations are done."""
        return self.state.done >= ITERATIONS

    def iterate(self) -> None:
        """One iteration. Raises `TrainingError` when the loss or its gradient is not finite."""
        now, later = self._batches(self.state.done)
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            scaled = torch._foreach_mul(list(self._start.values()), self.state.scales.tolist())
            weights = {name: one.requires_grad_() for name, one in zip(self._start, scaled, strict=True)}
            loss = self._loss(weights, now)
            found = torch.autograd.grad(loss, list(weights.values()), create_graph=True, allow_unused=True)
            steps = {name: self._masked(name, g) for name, g in zip(weights, found, strict=True) if g is not None}
            norm = torch.stack([step.square().sum() for step in steps.values()]).sum().sqrt()
            length = float(norm.detach())
            if not math.isfinite(length):
                raise TrainingError(
                    f"{option('rescale')}: the gradient at initialisation is not finite; leave {option('rescale')} out"
                )
            which = int(length > BOUND)
            if which:
                derivatives = torch.autograd.grad(norm, list(weights.values()), allow_unused=True)
            else:
                factor = self._rate / length if length > 0 else 0.0
                ahead = {
                    name: (one - factor * steps[name] if name in steps else one).detach().requires_grad_()
                    for name, one in weights.items()
                }
                objective = self._loss(ahead, later) / self._rate
                derivatives = torch.autograd.grad(objective, list(ahead.values()), allow_unused=True)
        self.state.move(self._by_scale(derivatives), which, self._floors)

    def _masked(self, name: str, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * self._masks[name] if name in self._masks else gradient

    def _by_scale(self, derivatives: tuple[torch.Tensor | None, ...]) -> torch.Tensor:
        """dF/ds = <dF/dW, W_0> of each tensor, cut off; 0 of those without a scale, whose Adam then stays at 1."""
        starts = self._start.values()
        found = [
            (k, one, start) for k, (one, start) in enumerate(zip(derivatives, starts, strict=True)) if one is not None
        ]
        products = [0.0] * len(starts)
        if found:
            by_tensor = torch._foreach_mul([one for _, one, _ in found], [start for _, _, start in found])
            sums = torch.stack([one.sum() for one in by_tensor]).tolist()  # all in one wait for the device
            for (k, _, _), total in zip(found, sums, strict=True):
                products[k] = total
        by_scale = torch.tensor(products, dtype=torch.float64).masked_fill(~self._scaled, 0.0)
        if not bool(by_scale.isfinite().all()):
            raise TrainingError(
                f"{option('rescale')}: a scale's derivative is not finite; give a smaller {option('lr')}, or leave "
                f"{option('rescale')} out"
            )
        return by_scale.clamp(-CLIP, CLIP)

    def _loss(self, weights: Tensors, batch: Pair) -> torch.Tensor:
        inputs, labels = batch
        return cross_entropy(functional_call(self._model, weights, (inputs.to(self._dtype),)), labels)

    def scales(self) -> dict[str, float]:
        """The scale of every parameter tensor that has one."""
        found = zip(self._start, self.state.scales.tolist(), self._scaled.tolist(), strict=True)
        return {name: scale for name, scale, scaled in found if scaled}

    def apply(self, model: nn.Module) -> None:
        """Scale the model's parameters; a pruned weight, 0 times its scale, stays 0."""
        scales = self.scales()
        with torch.no_grad():
            torch._foreach_mul_([model.get_parameter(name) for name in scales], list(scales.values()))

    def tensors(self) -> Tensors:
        """The state, to be kept."""
        state = self.state
        counts = torch.tensor(state.counts)
        return {"scales": state.scales, "moments": state.moments, "square": state.square, "counts": counts}

    def load(self, tensors: Tensors) -> None:
        """Go on from what was kept."""
        counts = tensors["counts"].tolist()
        self.state = ScaleState(tensors["scales"], tensors["moments"], tensors["square"], counts)
