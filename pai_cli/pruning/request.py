"""What is asked of a pruning run, and whether it can be."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from pai_cli.errors import DensityError, MethodOptionError
from pai_cli.pruning.base import BatchNorm, Method, Pattern, Scope, Takers
from pai_cli.pruning.counts import AllocatedQuota, GivenQuota, NetworkQuota, PatternQuota, Quota
from pai_cli.pruning.layers import given_densities
from pai_cli.pruning.ties import RULES, TieRule
from pai_cli.pruning.trained import TrainingOptions
from pai_cli.random import check_seed
from pai_cli.refusals import Idle, refuse
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
    `data`: the dataset that a method with data takes `per_class` samples of each class from (10 unless given);
    `normalise`: standardise its values where they are floats. `batch_norm`: what batch norms normalise by.
    `pattern`: N:M selection. `densities`: pairs of a layer's name or glob and its density. `shuffle`: permute each
    layer's mask within the layer. `invert`: keep the smallest scores. `training`: for the methods that train. `ties`: how
    equal scores are settled where the cut falls. `effective`: the density is of weights on a path alone. `story`: what else
    the mask file tells of how it was asked for.
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
    normalise: bool = False
    batch_norm: BatchNorm | None = None
    pattern: Pattern | None = None
    densities: LayerDensities | None = None
    shuffle: bool = False
    invert: bool = False
    training: TrainingOptions | None = None
    density_default: bool = False
    ties: TieRule = "first"
    effective: bool = False
    story: tuple[tuple[str, str], ...] = ()

    def facts(self) -> dict[str, Any]:
        """What fixes the masks, as JSON can hold it: every field that is not incidental, the method by its name.

        A default that is taken stands there as its value, so that to give it later makes no difference.
        """
        facts = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in INCIDENTAL}
        one = self.method.allocation == "none" and self.pattern is None and self.densities is None
        taken = {
            "method": self.method.name,
            "training": None if self.training is None else asdict(self.training),
            "scope": self.scope or ("global" if one else "layer"),
            "rounds": rounds_of(self) if self.rounds is None else self.rounds,
            "batch_norm": self.normalises_by,
            "pattern": None if self.pattern is None else str(Pattern(*self.pattern)),
        }
        if self.method.data and not self.method.trains:
            taken["per_class"] = self.per_class or USUAL_PER_CLASS
        return facts | taken

    @property
    def normalises_by(self) -> BatchNorm | None:
        """What batch norms normalise by while samples are scored; None for a method that leaves no choice."""
        return self.batch_norm or next(iter(self.method.batch_norm), None)

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


_TAKERS = "leave {{it}} out (methods that take it: {{takers.{}}})"
_PATTERN = option("pattern", "{pattern}")
_AUTO = option("rounds", "auto")
_WEIGHS = f"{_AUTO}: weighs all layers against each other; give a number of {option('rounds')}, or leave"


def _unused(name: str, does: str, *, trains: bool) -> Idle:
    """Of an option of training, beside a method that trains without it, or does not train."""
    return Idle(
        (name,),
        f"{{value}}: {{method.name}} {does}; {_TAKERS.format(name)}",
        where=lambda call: name not in call.method.trains and bool(call.method.trains) is trains,
    )


IDLE = (
    Idle(
        ("scope",),
        "{value}: {method.name} fixes the density of each layer; leave {it} out",
        without=("densities",),
        where=lambda call: call.scope == "global" and call.method.allocation != "none",
    ),
    Idle(("scope",), f"{_PATTERN}: fixes the density of each layer; leave {{it}} out", beside=("pattern",)),
    Idle(("shuffle",), f"{_PATTERN}: {{it}} would undo it; leave one out", beside=("pattern",)),
    Idle(
        ("scope",),
        f"{{value}}: {option('densities')} fixes the density of each layer; leave {{it}} out",
        beside=("densities",),
        where=lambda call: call.scope == "global",
    ),
    Idle(
        ("pattern", "densities"),
        f"{option('effective')}: excludes {{it}}, which fixes each layer; give one",
        beside=("effective",),
    ),
    Idle(("shuffle",), f"{option('effective')}: excludes {{it}}; leave one out", beside=("effective",)),
    Idle(
        ("effective",),
        "{it}: tries several masks, and {method.name} trains for each; leave {it} out",
        where=lambda call: call.method.trains,
    ),
    Idle(
        ("per_class",),
        "{value}: {method.name} trains on all of the data; leave {it} out",
        where=lambda call: call.method.trains,
    ),
    Idle(
        ("data", "per_class"),
        f"{{value}}: {{method.name}} needs no data; {_TAKERS.format('data')}",
        where=lambda call: not call.method.data,
    ),
    Idle(
        ("batch_norm",),
        "{value}: {method.name} has no use for it; " + _TAKERS.format("batch_norm"),
        where=lambda call: not call.method.batch_norm,
    ),
    Idle(
        ("batch_norm",),
        "{value}: {method.name} scores each sample by itself, and there is no batch to normalise by; leave {it} out",
        where=lambda call: call.batch_norm not in call.method.batch_norm,
    ),
    *(
        _unused(field.name, does, trains=trains)
        for field in fields(TrainingOptions)
        for trains, does in ((True, "has no use for it"), (False, "does not train"))
    ),
    Idle(
        ("rounds",),
        f"{{value}}: {{method.name}} freezes by {option('epochs')} and {option('freeze_every')}; "
        f"{_TAKERS.format('iterative')}",
        where=lambda call: "freeze_every" in call.method.trains,
    ),
    Idle(
        ("rounds",),
        f"{{value}}: {{method.name}} scores once; {_TAKERS.format('iterative')}",
        where=lambda call: not call.method.iterative,
    ),
    Idle(
        ("rounds",),
        "{value}: only for {takers.adaptive}; give {method.name} a number of {it}",
        where=lambda call: call.rounds == "auto" and not call.method.adaptive,
    ),
    Idle(("scope",), f"{_WEIGHS} {{value}} out", where=lambda call: call.rounds == "auto" and call.scope == "layer"),
    Idle(("pattern", "densities"), f"{_WEIGHS} {{it}} out", where=lambda call: call.rounds == "auto"),
    Idle(
        ("invert",),
        f"{_AUTO}: removes the smallest scores, and {{it}} keeps them; give a number of {option('rounds')}",
        where=lambda call: call.rounds == "auto",
    ),
)


def check_options(request: PruneRequest, *, has_samples: bool = False) -> None:
    """Refuse what is out of range or missing, and what does nothing: see `IDLE`.

    `has_samples`: whether samples come from elsewhere than `request.data`. Raises `MethodOptionError`,
    `UnknownMethodError`.
    """
    method = request.method
    check_seed(request.seed)
    if request.ties not in RULES:
        raise MethodOptionError(f"{option('ties', request.ties)}: must be {', '.join(RULES[:-1])} or {RULES[-1]}")
    if request.scope not in (None, "global", "layer"):
        raise MethodOptionError(f"{option('scope', request.scope)}: must be global or layer")
    pattern = None if request.pattern is None else Pattern(*request.pattern)
    if pattern is not None:
        pattern.check()
    if request.per_class is not None and request.per_class < 1:
        raise MethodOptionError(f"{option('per_class', request.per_class)}: must be at least 1")
    if method.data and request.data is None and not has_samples:
        does = "trains on labelled data" if method.trains else "scores with labelled samples"
        raise MethodOptionError(f"{option('method', method.name)}: {does}; give {option('data')}")
    training = {} if request.training is None else request.training.given()
    refuse(PruneRequest, IDLE, {**vars(request), "pattern": pattern, "takers": Takers(), **training}, MethodOptionError)
    if request.rounds is None:
        rounds_of(request)
    elif request.rounds != "auto" and request.rounds < 1:
        raise MethodOptionError(f"{option('rounds', request.rounds)}: must be at least 1, or auto")


def rounds_of(request: PruneRequest) -> int:
    """How many rounds, where the request does not say: the method's. Raises `MethodOptionError`."""
    rounds = request.method.rounds
    if isinstance(rounds, int):
        return rounds
    density = request.smallest_density
    return rounds(request.training or TrainingOptions(), density if 0 < density <= 1 else 1.0)
