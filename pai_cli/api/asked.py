"""What ranking is asked for, checked as it comes in, before anything is read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

from pai_cli.api.inputs import AnyPath, Shape, Source, shape_of
from pai_cli.api.placing import Placing
from pai_cli.api.progress import Wanted
from pai_cli.api.working import WORKING, Working
from pai_cli.compute.device import Device
from pai_cli.errors import ParameterError, UsageError
from pai_cli.files.standard_input import is_standard_input
from pai_cli.ranking.results import Named
from pai_cli.ranking.rules import COLLAPSED, MOST_RESAMPLES, AccuracyRules, AccuracyUnit
from pai_cli.refusals import Idle, idle_force, refuse
from pai_cli.spectral.conventions import Convention
from pai_cli.spectral.parameters import one_of, shown, whole_number
from pai_cli.spelling import option

MOST_SEED = 2**63

_MEASURES = ("weights", "model", "input_shape", "convention")
_WORKS = ("jobs", "cluster", "store", "no_store")
_ALL_WORKS = f"{', '.join(map(option, _WORKS[:-1]))} and {option(_WORKS[-1])}"
_PLACED = f"{option('device')} and {option('device_memory')}"


IDLE = (
    *WORKING,
    idle_force(f"{option('plot')} or {option('report')}", "plot", "report"),
    Idle(_MEASURES, f"{{it}}: the metrics of {option('table')} are measured already; leave it out", beside=("table",)),
    Idle(_WORKS, f"{_ALL_WORKS}: nothing is measured with {option('table')}; leave them out", beside=("table",)),
    Idle(
        ("device", "device_memory"),
        f"{_PLACED}: nothing is measured with {option('table')}; leave them out",
        beside=("table",),
    ),
    Idle(("trust",), f"{{it}}: a {option('table')} holds no code; leave it out", beside=("table",)),
    Idle(
        ("group_by",),
        f"{{it}} names columns of a {option('table')}, or of accuracies; leave it out",
        without=("table", "accuracy"),
    ),
    Idle(
        ("mask_column", "accuracy_column"),
        f"{{it}} names a column of {option('accuracy', 'CSV')}, or of a {option('table')}; leave it out",
        without=("table", "accuracy"),
    ),
)
IDLE_OF_REPORTS = (
    Idle((*_MEASURES, "trust"), "{it}: reports are measured already; leave it out"),
    Idle(_WORKS, f"{_ALL_WORKS}: reports are measured already; leave them out"),
    Idle(("device", "device_memory"), f"{_PLACED}: reports are measured already; leave them out"),
)
IDLE_OF_RANKS = (
    Idle(
        ("collapsed_at", "accuracy_unit", "order"),
        "{it}: is about accuracies, and there are none: leave it out",
        without=("accurate",),
    ),
    Idle(
        ("metrics", "controls", "resamples", "seed"),
        "{it}: is of correlations with accuracy, and this is an order: leave it out",
        without=("correlating",),
    ),
    Idle(
        ("smallest_first",),
        f"{{it}}: there is no order beside correlations: give {option('order')}, or leave it out",
        beside=("correlating",),
    ),
)
IDLE_OF_SCORES = (
    Idle(
        ("model", "input_shape"),
        "{it}: only metrics of the whole network need it, such as effective_share or overlap; leave it out",
        without=("networked",),
    ),
)


@dataclass(frozen=True)
class Asked:
    """All that `rank` takes, under the same names and with the same defaults."""

    masks: Any = None
    table: Any = None
    accuracy: Any = None
    mask_column: str | None = None
    accuracy_column: str | None = None
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
        refuse(Asked, IDLE, vars(self))
        listed = self.masks if isinstance(self.masks, list | tuple) else [self.masks]
        given = (self.table, self.accuracy, *listed)
        if sum(isinstance(one, str | PathLike) and is_standard_input(one) for one in given) > 1:
            raise UsageError("- is standard input, which one thing can be read from")

    @property
    def named(self) -> Named:
        """The columns that were named."""
        return Named(self.mask_column, self.accuracy_column)

    @property
    def networked(self) -> bool:
        """Whether the network was given, for what can be told of it."""
        return self.weights is not None or self.model is not None

    def refuse_idle(self, rules: Iterable[Idle], **found: object) -> None:
        """Raise `UsageError` for what does nothing, as is known by what was `found`."""
        refuse(Asked, rules, {**vars(self), **found})
