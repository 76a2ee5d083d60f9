"""A whole network built instead of searched for: random biregular layers, or layers improved until dr stops growing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pai_cli.compute.pool import open_pool
from pai_cli.methods.registry import get
from pai_cli.progress import Progress, silent
from pai_cli.pruning.layers import select_layers
from pai_cli.pruning.request import PruneRequest, quota_of
from pai_cli.pruning.run import PruneResult, check_request, result_of
from pai_cli.sampling.expanders.layer import BuiltLayer, Construction, Kind, LayerPlan, build_layer

if TYPE_CHECKING:
    from pai_cli.models.network import Network
    from pai_cli.sampling.workers import Workers

ALLOCATION = "erk"  # whose densities the layers have

WORTH_PROCESSES = 2e10  # multiplications of a Gram matrix's making, about ten seconds of descent


@dataclass(frozen=True)
class BuiltNetwork:
    """The layers in network order; `pruned`: their masks and what is worth knowing of them.

    `request`: what was asked for, with the method whose densities the layers have; `kind`: how they were built.
    """

    layers: tuple[BuiltLayer, ...]
    pruned: PruneResult
    request: PruneRequest
    kind: Kind


def plans(network: Network, request: PruneRequest) -> list[LayerPlan]:
    """How many weights each layer keeps: ERK's counts, or round(density * size) of given densities.

    Raises `DensityError`, `LayerSelectionError`.
    """
    as_erk = replace(request, method=get(ALLOCATION))
    check_request(network, as_erk)
    layers = select_layers(network.layers, request.ignore)
    counts = quota_of(as_erk, network, layers).steps(1)[-1]
    assert isinstance(counts, dict)  # of densities by layer
    return [LayerPlan(one.name, one.shape, one.layout, counts[one.name]) for one in layers]


def construct(
    network: Network,
    request: PruneRequest,
    construction: Construction,
    workers: Workers,
    progress: Progress = silent,
) -> BuiltNetwork:
    """Build every layer; the same request gives the same masks, whoever builds them.

    `request`: density or densities, seed, layers left out. Raises what `plans` and the pool raise.
    """
    wanted = plans(network, request)
    slowest_first = sorted(wanted, key=_work, reverse=True)
    total = sum(map(_work, wanted))
    built: dict[str, BuiltLayer] = {}
    done = 0
    is_long = construction.kind == "ramanujan" and construction.steps * sum(map(_work, wanted)) > WORTH_PROCESSES
    jobs = 1 if workers.by_themselves and not is_long else workers.jobs
    with open_pool(jobs, workers.cluster) as pool:
        progress(0, total, "building layers")
        for plan, outcome in zip(slowest_first, pool.map(build_layer, construction, slowest_first), strict=True):
            layer = outcome.get_of(plan.name)
            built[layer.plan.name] = layer
            done += _work(layer.plan)
            progress(done, total, layer.plan.name.removesuffix(".weight"))
    layers = tuple(built[plan.name] for plan in wanted)
    masks = {layer.plan.name: layer.mask for layer in layers}
    as_erk = replace(request, method=get(ALLOCATION))
    return BuiltNetwork(layers, result_of(network, as_erk, masks, 1), as_erk, construction.kind)


def _work(plan: LayerPlan) -> int:
    """Multiplications of the making of the smaller Gram matrices of a layer's groups: what a step of a descent takes."""
    rows, columns = plan.block
    return plan.layout.groups * rows * columns * min(rows, columns)
