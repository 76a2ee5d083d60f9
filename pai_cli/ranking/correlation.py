"""How well each metric predicts accuracy: overall, within each density, and over densities pooled."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pai_cli.ranking.bootstrap import Resampling
from pai_cli.ranking.statistics import LEVEL
from pai_cli.spectral.result import Measure


class ScopeKind(StrEnum):
    """Which pairs of masks are compared."""

    OVERALL = "overall"  # every pair of a setting's masks, whatever their densities
    POOLED = "pooled"  # every pair of equal density
    DENSITY = "density"  # the masks of one density


@dataclass(frozen=True)
class Scope:
    """The masks that a correlation is over.

    `setting`: as in `ScoredMask`; None where pairs of several settings are pooled. `density`: of the group's sparsest mask,
    None unless `kind` is DENSITY. `masks`: how many; `groups`: in how many groups they are compared. `confounded`: masks of
    different densities are compared with each other, so that a metric which only follows density seems to predict.
    `grouped_by`: what all masks that are compared have in common.
    """

    kind: ScopeKind
    setting: str | None
    density: float | None
    masks: int
    groups: int
    confounded: bool
    grouped_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Statistic:
    """A correlation, -1 to 1, or None where it is not defined.

    `low`, `high`: its 95% bootstrap interval. `p`: two-sided, of no association; `p_holm`: corrected for the number of
    metrics in this scope (Holm). `test`: how p was found: "exact", "permutation", "normal", "t" or "bootstrap".
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    test: str | None = None

    @property
    def perfect(self) -> bool:
        """Whether it is 1 or -1."""
        return abs(self.value or 0.0) > 1 - 1e-12


@dataclass(frozen=True)
class Correlation:
    """One metric against accuracy in one scope, over the `n` masks that have both.

    `tau`: Kendall's tau-b; `rho`: Spearman's; `r`: Pearson's. Metrics are compared by `tau_common`, over the `n_common`
    masks with a value of each of them: `best_share` is the share of bootstrap samples in which this metric's is the
    strongest, 0 to 1; `behind`, how much weaker it is than the strongest, with the 95% interval of that difference over the
    same samples (None for the strongest itself). `reason`: why something is missing.

    `partial`: partial tau given the `controls`, over the `n_partial` masks that have those too: what the metric tells that
    they do not; `partial_reason`: why something of it is missing.
    """

    metric: str
    scope: Scope
    n: int
    tau: Statistic
    rho: Statistic
    r: Statistic
    n_common: int | None = None
    tau_common: float | None = None
    best_share: float | None = None
    behind: float | None = None
    behind_low: float | None = None
    behind_high: float | None = None
    reason: str | None = None
    partial: Statistic = Statistic(None)
    controls: tuple[str, ...] = ()
    n_partial: int | None = None
    partial_reason: str | None = None

    @property
    def adds(self) -> bool | None:
        """Whether it tells something that its controls do not, by p corrected; None where that is not known."""
        return None if self.partial.p_holm is None else self.partial.p_holm <= LEVEL


@dataclass(frozen=True)
class Point:
    """One mask in a scatter plot of a metric: `value` (with its error bound) against `accuracy` (0 to 1).

    `group`: number of the group of equal densities in its setting, from 0 for the sparsest. `spread`: the standard
    deviation of accuracy over its `runs`, None with fewer than two.
    """

    name: str
    setting: str
    density: float | None
    group: int
    value: Measure
    accuracy: float
    spread: float | None
    runs: int


@dataclass(frozen=True)
class Best:
    """The metric whose tau is the strongest in a scope, and how sure that is.

    `runner_up`: the next strongest, None when there is no other. `level`: the metrics whose 95% interval of `behind`
    reaches 0, which these masks do not tell from the strongest. `reversed`: it orders against its own direction.
    """

    strongest: Correlation
    runner_up: Correlation | None
    level: tuple[str, ...]
    reversed: bool


@dataclass(frozen=True)
class Study:
    """What is known of every metric: its correlations, scope by scope in the order of `scopes`, and its points.

    `larger_is_better`: each metric's direction. `points[metric]`: every mask with an accuracy, in one order for all metrics;
    a missing value stays, with its reason. `resampling`: of the bootstrap.
    """

    metrics: tuple[str, ...]
    larger_is_better: dict[str, bool]
    scopes: tuple[Scope, ...]
    correlations: tuple[Correlation, ...]
    points: dict[str, tuple[Point, ...]]
    resampling: Resampling

    @property
    def main_scope(self) -> Scope:
        """The one to judge metrics by: every pair of masks that compares, or the only group there is."""
        pooled = [scope for scope in self.scopes if scope.kind is ScopeKind.POOLED]
        return pooled[-1] if pooled else self.scopes[0]

    def within(self, scope: Scope) -> list[Correlation]:
        """The correlations of a scope, strongest tau first; those without one last."""
        found = [one for one in self.correlations if one.scope == scope]
        return sorted(found, key=lambda one: (one.tau.value is None, -abs(one.tau.value or 0.0)))

    def best(self, scope: Scope) -> Best | None:
        """The metric that predicts best in a scope, or None where there are too few masks to say."""
        rivals = [one for one in self.correlations if one.scope == scope and one.best_share is not None]
        if not rivals:
            return None
        strongest, *others = sorted(rivals, key=lambda one: (one.behind is not None, one.behind or 0.0))
        level = tuple(one.metric for one in others if one.behind_low is not None and one.behind_low <= 0)
        upwards = (strongest.tau_common or 0.0) > 0
        against = upwards is not self.larger_is_better[strongest.metric]
        return Best(strongest, others[0] if others else None, level, against)
