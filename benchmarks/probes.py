"""How near Hutchinson's estimate comes to the diagonal of the Hessian, and what of a mask is that of its draws.

    python benchmarks/probes.py                 # a fresh ResNet-20, ten probes of each sample, as `hutchinson` draws them
    python benchmarks/probes.py --network mlp-64-300-100-10 --probes 1 10 100 --temperature 200 1

Ten samples a class of the digits of scikit-learn, running statistics of batch norms, one thread. The exact diagonal is that
of Gauss and Newton, as it is for networks of ReLUs: of each sample, the squares of the gradients of the logits weighted by
the columns of a root of the softmax's Hessian.

error     the norm of estimate minus diagonal, divided by the diagonal's
draws     of a mask, the share of its weights that one of other probes and the same samples keeps too
exact     the same, beside the mask by the exact diagonal
snip      the same, beside that of `snip --batch-norm running`
its snip  of the mask by the exact diagonal, the share that is `snip`'s
s         seconds of one core to score once
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping

import numpy as np
import torch
from stability import DENSITIES, SHAPES
from tables import Table

from pai_cli.data.registry import open_dataset
from pai_cli.methods.fisher import to_second_order
from pai_cli.methods.grasp import TEMPERATURE
from pai_cli.methods.hutchinson import PROBES, signs
from pai_cli.methods.registry import get
from pai_cli.methods.supervised import Supervised, Tensors
from pai_cli.models.network import init_network
from pai_cli.pruning import samples
from pai_cli.pruning.base import ScoreContext
from pai_cli.pruning.request import PruneRequest


def context_of(name: str) -> ScoreContext:
    """A fresh network and its samples."""
    network = init_network(name, 10, 0)
    request = PruneRequest(get("hutchinson"), DENSITIES[0], input_shape=SHAPES[name], data="digits")
    batches = samples.draw(open_dataset("digits", train=True), request, network)
    return ScoreContext(
        network, network.layers, SHAPES[name], "cpu", 0, batches, request.method.name, batch_norm="running"
    )


def exact(loss: Supervised, temperature: float) -> Tensors:
    """The diagonal of the Hessian of a network of ReLUs: the mean over the samples of that of Gauss and Newton."""
    total = loss._zeros()
    with loss._pass():
        parts = list(loss._parts())
        for part in parts:
            logits = loss._logits(part)[0] / temperature
            p = logits.detach().softmax(0)
            for k, root in enumerate(p.sqrt()[:, None] * (torch.eye(len(p)) - p)):
                product = (logits * root).sum()
                slopes = loss._differentiate(product, keep=k + 1 < len(p))
                loss._add(total, {name: one.square() / len(parts) for name, one in slopes.items()})
    return total


def flat(values: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """All values, in the order of the layers."""
    return torch.cat([one.detach().flatten() for one in values.values()])


def shared(first: torch.Tensor, second: torch.Tensor, density: float) -> float:
    """What share of the largest scores of one are among the other's."""
    count = round(density * len(first))
    kept = [set(one.topk(count).indices.tolist()) for one in (first, second)]
    return len(kept[0] & kept[1]) / count


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", choices=tuple(SHAPES), default="resnet20")
    parser.add_argument("--probes", nargs="+", type=int, default=[PROBES])
    parser.add_argument("--temperature", nargs="+", type=float, default=[TEMPERATURE])
    options = parser.parse_args()
    torch.set_num_threads(1)
    numbers = [("draws", 6, ".3f"), ("exact", 6, ".3f"), ("snip", 6, ".3f"), ("its snip", 8, ".4f"), ("s", 6, ".1f")]
    first = [("network", 17, "<"), ("temperature", 11, "g"), ("probes", 6, "d"), ("density", 7, "g")]
    table = Table([*first, ("error", 8, ".3g"), *numbers])
    table.head()
    context = context_of(options.network)
    for temperature in options.temperature:
        loss = Supervised(context, tuple(layer.name for layer in context.layers), temperature)
        diagonal = exact(loss, temperature)
        for probes in options.probes:
            begin = time.process_time()
            found = [loss.curvature(signs(np.random.default_rng(seed), loss.weights), probes) for seed in range(2)]
            took = (time.process_time() - begin) / 2
            gradient, estimate = found[0]
            error = float((flat(estimate) - flat(diagonal)).norm() / flat(diagonal).norm())
            own, other = (flat(to_second_order(loss.weights, *one).values) for one in found)
            best = flat(to_second_order(loss.weights, gradient, diagonal).values)
            snip = (flat(loss.weights) * flat(gradient)).abs()
            for density in DENSITIES:
                pairs = ((own, other), (own, best), (own, snip), (best, snip))
                shares = [shared(*pair, density) for pair in pairs]
                table.row(options.network, temperature, probes, density, error, *shares, took)


if __name__ == "__main__":
    main()
