"""What ranking is asked for, checked as it comes in, before anything is read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

from pai_cli.api.given import STDIN
from pai_cli.api.inputs import AnyPath, Shape, Source, shape_of
from pai_cli.api.placing import Placing
from pai_cli.api.progress import Wanted
from pai_cli.api.working import Working, refuse_idle_force
from pai_cli.compute.device import Device
from pai_cli.errors import ParameterError, UsageError
from pai_cli.ranking.rules import COLLAPSED, MOST_RESAMPLES, AccuracyRules, AccuracyUnit
from pai_cli.spectral.conventions import Convention
from pai_cli.spectral.parameters import one_of, shown, whole_number
from pai_cli.spelling import option

MOST_SEED = 2**63


@dataclass(frozen=True)
class Asked:
    """All that `rank` takes, under the same names and with the same defaults."""

    masks: Any = None
    table: Any = None
    accuracy: Any = None
    order: bool = False
    weights: Source | None = None
    convention: str = Convention.H23
    model: str | None = None
    input_shape: Shape | None = None
    by: str | None = None
    smallest_first: bool | None = None
    metrics: str | Iterable[str] | None = None
    controls: str | Iterable[str] | None = None
    group_by: str | Iterable[str] | None = None
    collapsed_at: float | None = None
    accuracy_unit: str | None = None
    resamples: int | None = None
    seed: int | None = None
    device: str = Device.AUTO
    device_memory: int | str | None = None
    trust: bool = False
    plot: AnyPath | None = None
    report: AnyPath | None = None
    force: bool = False
    jobs: int | None = None
    cluster: str | None = None
    store: AnyPath | None = None
    no_store: bool = False
    progress: Wanted = None
    shape: tuple[int, ...] | None = field(init=False)
    rules: AccuracyRules = field(init=False)
    working: Working = field(init=False)
    place: Placing = field(init=False)

    def __post_init__(self) -> None:
        refuse_idle_force(self.plot, self.report, force=self.force)
        object.__setattr__(self, "convention", one_of("convention", self.convention, Convention))
        at = self.collapsed_at
        if at is not None and not (isinstance(at, int | float) and 0 <= at <= 1):
            raise ParameterError(f"{option('collapsed_at', shown(at))}: give a fraction, 0 to 1")
        unit = None if self.accuracy_unit is None else one_of("accuracy_unit", self.accuracy_unit, AccuracyUnit)
        for name, least, most in (("resamples", 100, MOST_RESAMPLES), ("seed", 0, MOST_SEED)):
            if getattr(self, name) is not None:
                whole_number(name, getattr(self, name), least, most)
        object.__setattr__(self, "shape", shape_of(self.input_shape))
        object.__setattr__(self, "rules", AccuracyRules(COLLAPSED if at is None else at, unit))
        object.__setattr__(self, "working", Working.of(self.jobs, self.cluster, self.store, no_store=self.no_store))
        object.__setattr__(self, "place", Placing.of(self.device, self.device_memory))
        self._check()

    def _check(self) -> None:
        """Refuse what makes no sense together."""
        nothing = self.masks is None or (isinstance(self.masks, list | tuple) and not self.masks)
        if (self.table is None) is nothing:
            raise UsageError(f"give masks, or {option('table', 'CSV')} of metrics measured before, one of the two")
        if self.table is not None:
            idle = {name: getattr(self, name) is not None for name in ("weights", "model", "input_shape")}
            for name, there in (idle | {"convention": self.chose_convention}).items():
                if there:
                    told = f"the metrics of {option('table')} are measured already; leave it out"
                    raise UsageError(f"{option(name)}: {told}")
            if self.working != Working():
                raise UsageError(
                    f"{option('jobs')}, {option('cluster')}, {option('store')} and {option('no_store')}: nothing is "
                    f"measured with {option('table')}; leave them out"
                )
            if not self.place.by_default:
                raise UsageError(
                    f"{option('device')} and {option('device_memory')}: nothing is measured with {option('table')}; leave "
                    "them out"
                )
            if self.trust:
                raise UsageError(f"{option('trust')}: a {option('table')} holds no code; leave it out")
        elif self.group_by is not None:
            raise UsageError(f"{option('group_by')} names columns of a {option('table')}; leave it out")
        listed = self.masks if isinstance(self.masks, list | tuple) else [self.masks]
        if (
            sum(isinstance(one, str | PathLike) and str(one) == STDIN for one in (self.table, self.accuracy, *listed))
            > 1
        ):
            raise UsageError("- is standard input, which one thing can be read from")

    @property
    def chose_convention(self) -> bool:
        """Whether a convention was asked for that is not the usual one."""
        return self.convention != Convention.H23

    @property
    def networked(self) -> bool:
        """Whether the network was given, for what can be told of it."""
        return self.weights is not None or self.model is not None

    def refuse_idle(self, *, accurate: bool, correlating: bool) -> None:
        """Refuse what would do nothing. `accurate`: whether any accuracies are given."""
        kinds = (
            (
                not accurate,
                {"collapsed_at": self.collapsed_at, "accuracy_unit": self.accuracy_unit, "order": self.order or None},
                "is about accuracies, and there are none: leave it out",
            ),
            (
                not correlating,
                {"metrics": self.metrics, "controls": self.controls, "resamples": self.resamples, "seed": self.seed},
                "is of correlations with accuracy, and this is an order: leave it out",
            ),
            (
                correlating,
                {"smallest_first": self.smallest_first},
                f"there is no order beside correlations: give {option('order')}, or leave it out",
            ),
        )
        for idle, given, told in kinds:
            for name, value in given.items():
                if idle and value is not None:
                    raise UsageError(f"{option(name)}: {told}")
