"""The loss of a network on labelled samples, and its derivatives by the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import fx, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from pai_cli.compute.device import sent
from pai_cli.errors import MethodOptionError, ScoreError
from pai_cli.files.messages import one_line
from pai_cli.models.batch_norms import batch_norms, fresh_norms
from pai_cli.models.copies import failed_on, kind_of, remove, repeatable, seeded, with_gradients, working_copy
from pai_cli.models.programs import normalise_by_batch
from pai_cli.pruning.base import Batches, Masks, ScoreContext
from pai_cli.spelling import option

Tensors = dict[str, torch.Tensor]
HELD = 2**31
"""Bytes of samples up to which a device holds them from pass to pass."""


class _Batch(NamedTuple):
    """Samples, their labels on the device, and the smallest and the largest of these."""

    inputs: torch.Tensor
    labels: torch.Tensor
    least: int
    most: int

    def by_sample(self) -> Iterator[_Batch]:
        """A batch of each sample."""
        for inputs, labels in zip(self.inputs[:, None], self.labels[:, None], strict=True):
            yield _Batch(inputs, labels, self.least, self.most)


class Supervised:
    """A copy of a network with its mean cross-entropy over all samples, L = sum_b (n_b / n) L_b over the batches.

    Batch norms normalise by their batch, as in training and as most papers do at initialisation, where there are no
    running statistics yet; or, with `context.batch_norm` "running", by running statistics. Those that are the initial
    ones, mean 0 and variance 1, are then measured first: PyTorch's, averaged over the batches, in one pass. Everything
    else is in evaluation mode: dropout and other random passes would make the scores those of one draw. Float64 when a
    weight of the network is, else float32. `names`: the weights that are masked and differentiated. `temperature`: the
    logits are divided by it. The network itself is not touched.

    Raises `ScoreError` when the network cannot be copied, or without samples; `DeviceError`; and what `gradient` does where
    statistics are measured.
    """

    def __init__(self, context: ScoreContext, names: tuple[str, ...], temperature: float = 1.0) -> None:
        if not context.batches:
            raise ScoreError(f"{context.method}: has no samples to score with; give {option('data')}")
        model = context.network.model
        double = any(parameter.dtype == torch.float64 for parameter in model.parameters())
        self._dtype = torch.float64 if double else torch.float32
        self._context = context
        self._temperature = temperature
        self._model = working_copy(model, context.device, self._dtype, context.method)
        self._by_batch = by_batch = context.batch_norm == "batch"
        for norm in batch_norms(self._model).values():
            norm.train(by_batch)
        if isinstance(self._model, fx.GraphModule):  # with running statistics one that has no batch norm
            normalise_by_batch(self._model)
        self.weights = with_gradients(self._model, names)
        self._batches = _batches_on(context.device, context.batches)
        self._count = sum(len(labels) for _, labels in context.batches)
        if not by_batch:
            self._warm_up()

    def mask(self, masks: Masks | None) -> None:
        """Set the weights that are false in `masks` to zero, for good: masks only ever shrink."""
        remove(self.weights, masks)

    def gradient(self) -> Tensors:
        """dL/dw of each weight, shaped as it; zeros for a weight that the loss does not depend on.

        Raises `MethodOptionError` when the network fails on a batch, `ScoreError` when what it returns is not one
        tensor of logits that can be differentiated, or the loss is not finite.
        """
        total, losses = self._zeros(), []
        with self._pass():
            for batch in self._batches:
                losses.append(self._loss(batch))
                self._add(total, self._differentiate(losses[-1]))
        self._check_finite(losses)
        return total

    def moments(self) -> tuple[Tensors, Tensors]:
        """The means over the samples of g_i and of g_i squared, g_i = dL_i/dw the gradient of one sample's cross-entropy.

        Each sample passes by itself, as a batch of one, so both are exact. Raises as `gradient` does.
        """
        first, second, losses = self._zeros(), self._zeros(), []
        with self._pass():
            for sample in (one for batch in self._batches for one in batch.by_sample()):
                losses.append(self._loss(sample))
                found = self._differentiate(losses[-1])  # g_i / n
                self._add(first, found)
                squares = torch._foreach_mul(list(found.values()), list(found.values()))
                self._add(second, dict(zip(found, squares, strict=True)))
        self._check_finite(losses)
        torch._foreach_mul_(list(second.values()), self._count)
        return first, second

    def hessian_times(self, vectors: Mapping[str, torch.Tensor]) -> Tensors:
        """H v, the Hessian of L by all the weights together times `vectors` (by name, shaped as the weights).

        By differentiating the product of gradient and vector, so exact but for rounding. Raises as `gradient` does.
        """
        total, losses = self._zeros(), []
        with self._pass():
            for batch in self._batches:
                losses.append(self._loss(batch))
                self._add(total, self._times(self._differentiate(losses[-1], again=True), vectors))
        self._check_finite(losses)
        return total

    def curvature(self, draw: Callable[[], Tensors], probes: int) -> tuple[Tensors, Tensors]:
        """dL/dw, and the mean of z * (H z) over `probes` vectors z, as `draw` gives them (by name, shaped as the weights).

        Of independent signs that is an unbiased estimate of the diagonal of the Hessian of L. Each sample passes by itself,
        with probes of its own; where batch norms normalise by their batch, each batch does. Raises as `gradient` does.
        """
        gradient, diagonal = self._zeros(), self._zeros()
        losses, parts = [], len(self._batches) if self._by_batch else self._count
        with self._pass():
            for done, part in enumerate(self._parts()):
                self._context.progress(done, parts, "probing the loss")
                losses.append(self._add_curvature(part, draw, probes, gradient, diagonal))
        self._check_finite(losses)
        torch._foreach_div_(list(diagonal.values()), probes)
        return gradient, diagonal

    def _add_curvature(
        self, part: _Batch, draw: Callable[[], Tensors], probes: int, gradient: Tensors, diagonal: Tensors
    ) -> torch.Tensor:
        """Add those of one part, the diagonal `probes` times; its loss. By itself, so that its graph goes with it."""
        loss = self._loss(part)
        found = self._differentiate(loss, again=True)
        self._add(gradient, {name: one.detach() for name, one in found.items()})
        for _ in range(probes):
            probe = draw()
            products = self._times(found, probe, keep=True)
            self._add(diagonal, {name: probe[name] * one for name, one in products.items()})
        return loss.detach()

    def _parts(self) -> Iterator[_Batch]:
        """The samples as they pass apart: one by one, or in batches that batch norms tie together."""
        for batch in self._batches:
            yield from (batch,) if self._by_batch else batch.by_sample()

    def _warm_up(self) -> None:
        """Measure the running statistics that are the initial ones."""
        norms = list(fresh_norms(self._model).values())
        for norm in norms:
            norm.momentum = None  # the mean over all batches, each as much
            norm.reset_running_stats()
            norm.train()
        with self._pass(), torch.no_grad():
            for batch in self._batches if norms else ():
                self._logits(batch)
        for norm in norms:
            norm.eval()

    def _zeros(self) -> Tensors:
        flat = torch.zeros(
            sum(one.numel() for one in self.weights.values()), dtype=self._dtype, device=self._context.device
        )
        pieces = flat.split_with_sizes([one.numel() for one in self.weights.values()])
        return {name: piece.reshape(self.weights[name].shape) for name, piece in zip(self.weights, pieces, strict=True)}

    def _loss(self, batch: _Batch) -> torch.Tensor:
        """One batch's share of L."""
        logits = self._logits(batch) / self._temperature
        share = len(batch.labels) / self._count
        return nn.functional.cross_entropy(logits, batch.labels.to(logits.device)) * share

    def _check_finite(self, losses: list[torch.Tensor]) -> None:
        """Of all batches at once: each look is a wait for the device."""
        if not bool(torch.stack([loss.detach() for loss in losses]).isfinite().all()):
            raise ScoreError(
                f"{self._context.method}: the loss on the samples is not finite (weights or inputs too large); "
                f"give another {option('method')}, such as erk"
            )

    @contextmanager
    def _pass(self) -> Iterator[None]:
        device, seed = self._context.device, self._context.seed
        # Fused attention has no second derivative; the plain one has, and is as exact.
        with torch.enable_grad(), seeded(device, seed), repeatable(device), sdpa_kernel(SDPBackend.MATH):
            yield

    def _logits(self, batch: _Batch) -> torch.Tensor:
        method, inputs, labels = self._context.method, batch.inputs, batch.labels
        try:
            # A copy, because a network whose first operation is in place would write over the samples.
            outputs = self._model(inputs.to(device=self._context.device, dtype=self._dtype, copy=True))
        except Exception as error:
            remedy = (
                f"give the shape of one input with {option('input_shape')}, or more samples with {option('per_class')}"
            )
            raise MethodOptionError(f"{method}: {failed_on(inputs, error)}; {remedy}") from error
        wanted = f"and logits of shape ({len(labels)}, classes) are needed"
        remedy = f"give a {option('model')} factory whose network returns the logits alone"
        if not (isinstance(outputs, torch.Tensor) and outputs.is_floating_point()):
            raise ScoreError(f"{method}: the network returns {kind_of(outputs)}, {wanted}; {remedy}")
        if outputs.dim() != 2 or len(outputs) != len(labels):
            raise ScoreError(f"{method}: the network returns shape {tuple(outputs.shape)}, {wanted}; {remedy}")
        if batch.least < 0 or batch.most >= outputs.shape[1]:
            raise ScoreError(
                f"{method}: the samples have labels {batch.least} to {batch.most}, and the network "
                f"{outputs.shape[1]} outputs; give {option('data')} of as many classes"
            )
        return outputs

    def _times(self, gradients: Tensors, vectors: Mapping[str, torch.Tensor], *, keep: bool = False) -> Tensors:
        """H v of one pass, from its gradients, which can be differentiated; with `keep`, once more afterwards."""
        product = sum(((g * vectors[name]).sum() for name, g in gradients.items()), start=torch.zeros(()))
        if not product.requires_grad:  # a loss linear in the weights has no second derivative to ask for
            return {}
        return self._differentiate(product, keep=keep)

    def _differentiate(self, loss: torch.Tensor, *, again: bool = False, keep: bool = False) -> Tensors:
        """The gradients of the weights that `loss` depends on; with `again`, they can be differentiated themselves; with
        `keep`, the loss once more.
        """
        try:
            found = torch.autograd.grad(
                loss, [*self.weights.values()], create_graph=again, retain_graph=again or keep, allow_unused=True
            )
        except RuntimeError as error:
            raise ScoreError(
                f"{self._context.method}: the network's loss cannot be differentiated ({one_line(error)})"
            ) from error
        return {name: g for name, g in zip(self.weights, found, strict=True) if g is not None}

    @staticmethod
    def _add(total: Tensors, part: Tensors) -> None:
        if part:
            torch._foreach_add_([total[name] for name in part], list(part.values()))


def _batches_on(device: str, batches: Batches) -> tuple[_Batch, ...]:
    """The batches, on the device where they are few enough; elsewhere they are sent in each pass."""
    few = sum(inputs.nbytes for inputs, _ in batches) <= HELD
    return tuple(
        _Batch(sent(inputs, device) if few else inputs, sent(labels, device), int(labels.min()), int(labels.max()))
        for inputs, labels in batches
    )
