"""What is asked of a pruning run, and whether it can be."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from math import isclose
from typing import TYPE_CHECKING, Any, Literal

from pai_cli.errors import DensityError, MethodOptionError
from pai_cli.pruning.base import METHODS, Method, Pattern, Scope
from pai_cli.pruning.counts import AllocatedQuota, GivenQuota, NetworkQuota, PatternQuota, Quota
from pai_cli.pruning.layers import given_densities
from pai_cli.pruning.ties import RULES, TieRule
from pai_cli.pruning.trained import TrainingOptions
from pai_cli.random import check_seed
from pai_cli.spelling import option

if TYPE_CHECKING:
    from pai_cli.files.densities import LayerDensities
    from pai_cli.models.network import Network, PrunableLayer

Rounds = int | Literal["auto"]
USUAL_PER_CLASS = 10
INCIDENTAL = frozenset({"device", "density_default"})
"""Fields that leave the masks as they are: an interrupted run goes on whatever they are."""


@dataclass(frozen=True)
class PruneRequest:
    """What is asked for; None leaves a choice to the method, or the input shape to the network.

    `density`: of the network; None with `pattern`, which has its own, and with `densities`, a density a layer.
    `ignore`: globs of layer names, with or without their `.weight`; such layers stay whole and are not counted.
    `data`: the dataset that a method with data takes `per_class` samples of each class from (10 unless given).
    `pattern`: N:M selection. `densities`: pairs of a layer's name or glob and its density. `shuffle`: permute each
    layer's mask within the layer. `invert`: keep the smallest scores. `training`: for the methods that train. `ties`: how
    equal scores are settled where the cut falls. `effective`: the density is of weights on a path alone.
    `density_default`: nobody asked for the density, which is the usual one; the mask file tells.
    """

    method: Method
    density: float | None = None
    scope: Scope | None = None
    seed: int = 0
    rounds: Rounds | None = None
    ignore: tuple[str, ...] = ()
    device: str = "cpu"
    input_shape: tuple[int, ...] | None = None
    data: str | None = None
    per_class: int | None = None
    pattern: Pattern | None = None
    densities: LayerDensities | None = None
    shuffle: bool = False
    invert: bool = False
    training: TrainingOptions | None = None
    density_default: bool = False
    ties: TieRule = "first"
    effective: bool = False

    def facts(self) -> dict[str, Any]:
        """What fixes the masks, as JSON can hold it: every field that is not incidental, the method by its name."""
        facts = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in INCIDENTAL}
        training = None if self.training is None else asdict(self.training)
        return {**facts, "method": self.method.name, "training": training}

    @property
    def smallest_density(self) -> float:
        """The density asked for; of layers that have their own, the smallest."""
        if self.pattern is not None:
            return Pattern(*self.pattern).density
        if self.densities:
            return min(density for _, density in self.densities)
        return 1.0 if self.density is None else self.density


def quota_of(request: PruneRequest, network: Network, layers: tuple[PrunableLayer, ...]) -> Quota:
    """How many of the weights of `layers` the request keeps. Raises `DensityError`, `LayerSelectionError`."""
    if request.pattern is not None:
        return PatternQuota(layers, Pattern(*request.pattern))
    shapes = {layer.name: layer.shape for layer in layers}
    if request.densities is not None:
        return GivenQuota(shapes, given_densities(request.densities, network.layers, layers))
    if request.density is None:
        raise DensityError(
            f"no density; give {option('density')}, {option('sparsity')}, {option('pattern')} or {option('densities')}"
        )
    rule = request.method.allocation
    if rule == "none" and request.scope == "layer":
        rule = "uniform"
    if rule == "none":
        return NetworkQuota(shapes, request.density)
    return AllocatedQuota(shapes, request.density, rule)


def check_options(request: PruneRequest, *, has_samples: bool = False) -> None:
    """Refuse an option that the method would not use, or that another excludes: none does nothing in silence.

    `has_samples`: whether samples come from elsewhere than `request.data`. Raises `MethodOptionError`,
    `UnknownMethodError`.
    """
    method = request.method
    check_seed(request.seed)
    if request.ties not in RULES:
        raise MethodOptionError(f"{option('ties', request.ties)}: must be {', '.join(RULES[:-1])} or {RULES[-1]}")
    if request.scope not in (None, "global", "layer"):
        raise MethodOptionError(f"{option('scope', request.scope)}: must be global or layer")
    if request.scope == "global" and method.allocation != "none" and request.densities is None:
        raise MethodOptionError(
            f"{option('scope', 'global')}: {method.name} fixes the density of each layer; leave {option('scope')} out"
        )
    _check_selection(request)
    if request.effective:
        _check_effective(request)
    _check_data(method, request, has_samples=has_samples)
    _check_training(method, request)
    if request.rounds is not None:
        _check_rounds(method, request)


def _check_selection(request: PruneRequest) -> None:
    """Refuse selections that exclude each other."""
    if request.pattern is not None:
        pattern = Pattern(*request.pattern)
        pattern.check()
        if request.densities is not None:
            raise MethodOptionError(f"{option('pattern', pattern)}: excludes {option('densities')}; give one")
        if request.scope is not None:
            raise MethodOptionError(
                f"{option('pattern', pattern)}: fixes the density of each layer; leave {option('scope')} out"
            )
        if request.shuffle:
            raise MethodOptionError(f"{option('pattern', pattern)}: {option('shuffle')} would undo it; leave one out")
        if request.density is not None and not isclose(request.density, pattern.density):
            raise MethodOptionError(
                f"{option('pattern', pattern)}: has density {pattern.density:g}; leave "
                f"{option('density', f'{request.density:g}')} out"
            )
    if request.densities is not None:
        if request.density is not None:
            raise MethodOptionError(
                f"{option('densities')}: excludes {option('density', f'{request.density:g}')}; give one"
            )
        if request.scope == "global":
            raise MethodOptionError(
                f"{option('scope', 'global')}: {option('densities')} fixes the density of each layer; leave "
                f"{option('scope')} out"
            )


def _check_effective(request: PruneRequest) -> None:
    """Refuse what has no density that could be reached in effective weights."""
    for name, there in (("pattern", request.pattern), ("densities", request.densities)):
        if there is not None:
            raise MethodOptionError(f"{option('effective')}: excludes {option(name)}, which fixes each layer; give one")
    if request.shuffle:
        raise MethodOptionError(f"{option('effective')}: excludes {option('shuffle')}; leave one out")
    if request.method.trains:
        raise MethodOptionError(
            f"{option('effective')}: tries several masks, and {request.method.name} trains for each; leave "
            f"{option('effective')} out"
        )


def _check_data(method: Method, request: PruneRequest, *, has_samples: bool) -> None:
    if request.per_class is not None and request.per_class < 1:
        raise MethodOptionError(f"{option('per_class', request.per_class)}: must be at least 1")
    if method.data:
        if request.data is None and not has_samples:
            does = "trains on labelled data" if method.trains else "scores with labelled samples"
            raise MethodOptionError(f"{option('method', method.name)}: {does}; give {option('data')}")
        if method.trains and request.per_class is not None:
            raise MethodOptionError(
                f"{option('per_class', request.per_class)}: {method.name} trains on all of the data; leave "
                f"{option('per_class')} out"
            )
        return
    for name, value in (("data", request.data), ("per_class", request.per_class)):
        if value is not None:
            takers = ", ".join(one.name for one in METHODS.values() if one.data)
            raise MethodOptionError(
                f"{option(name, value)}: {method.name} needs no data; leave {option(name)} out (methods that take it: "
                f"{takers})"
            )


def _check_training(method: Method, request: PruneRequest) -> None:
    given = {} if request.training is None else request.training.given()
    for name, value in given.items():
        if name not in method.trains:
            takers = ", ".join(one.name for one in METHODS.values() if name in one.trains)
            does = "has no use for it" if method.trains else "does not train"
            raise MethodOptionError(
                f"{option(name, value)}: {method.name} {does}; leave {option(name)} out (methods that take it: "
                f"{takers})"
            )
    if request.rounds is None:
        rounds_of(request)


def rounds_of(request: PruneRequest) -> int:
    """How many rounds, where the request does not say: the method's. Raises `MethodOptionError`."""
    rounds = request.method.rounds
    if isinstance(rounds, int):
        return rounds
    density = request.smallest_density
    return rounds(request.training or TrainingOptions(), density if 0 < density <= 1 else 1.0)


def _check_rounds(method: Method, request: PruneRequest) -> None:
    rounds = request.rounds
    if not method.iterative:
        takers = ", ".join(m.name for m in METHODS.values() if m.iterative)
        does = (
            f"freezes by {option('epochs')} and {option('freeze_every')}"
            if "freeze_every" in method.trains
            else "scores once"
        )
        raise MethodOptionError(
            f"{option('rounds', rounds)}: {method.name} {does}; leave {option('rounds')} out (methods that take it: "
            f"{takers})"
        )
    if rounds == "auto":
        _check_auto(method, request)
    elif rounds is not None and rounds < 1:
        raise MethodOptionError(f"{option('rounds', rounds)}: must be at least 1, or auto")


def _check_auto(method: Method, request: PruneRequest) -> None:
    if not method.adaptive:
        takers = ", ".join(m.name for m in METHODS.values() if m.adaptive)
        raise MethodOptionError(
            f"{option('rounds', 'auto')}: only for {takers}; give {method.name} a number of {option('rounds')}"
        )
    others = {
        option("scope", "layer"): request.scope == "layer",
        option("pattern"): request.pattern is not None,
        option("densities"): request.densities is not None,
    }
    for other in (other for other, given in others.items() if given):
        raise MethodOptionError(
            f"{option('rounds', 'auto')}: weighs all layers against each other; give a number of {option('rounds')}, "
            f"or leave {other} out"
        )
    if request.invert:
        raise MethodOptionError(
            f"{option('rounds', 'auto')}: removes the smallest scores, and {option('invert')} keeps them; give a "
            f"number of {option('rounds')}"
        )
