"""How a network is trained: the numbers of a recipe, checked, and the learning rate at every step. Imports nothing heavy."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Any

from pai_cli.errors import RecipeError
from pai_cli.pruning.allocation import exact
from pai_cli.pruning.base import Pattern
from pai_cli.random import check_seed
from pai_cli.spectral.conventions import Convention
from pai_cli.spelling import option


class Optimizer(StrEnum):
    """What turns gradients into steps: SGD with momentum, or Adam (Kingma and Ba 2015, arXiv:1412.6980)."""

    SGD = "sgd"
    ADAM = "adam"


class Schedule(StrEnum):
    """How the learning rate changes: x0.1 at 1/2 and at 3/4 of all steps, half a cosine down to 0, or not at all."""

    STEPS = "steps"
    COSINE = "cosine"
    CONSTANT = "constant"


class Augmentation(StrEnum):
    """What is done to training images, at random: see `examples.Augment`. `auto` is what is usual for the data."""

    AUTO = "auto"
    NONE = "none"
    CROP = "crop"
    CROP_FLIP = "crop-flip"


class Dynamic(StrEnum):
    """How the mask moves: as many weights grow as go, at random (SET, arXiv:1707.04780), by gradient (RigL,
    arXiv:1911.11134) or by gradient with as many for every output (SRigL, arXiv:2305.02299); or fewer and fewer are kept
    (GMP, arXiv:1710.01878), some of them exchanged by gradient (GraNet, arXiv:2106.10404).
    """

    SET = "set"
    RIGL = "rigl"
    GMP = "gmp"
    GRANET = "granet"
    SRIGL = "srigl"

    @property
    def gradual(self) -> bool:
        """Whether it begins with more weights than it ends with, by default with all of them."""
        return self in (Dynamic.GMP, Dynamic.GRANET)


class RecipeName(StrEnum):
    """Recipes by name: what they have beside the base recipe."""

    PLAIN = "plain"
    TOST = "tost"


USUAL_LR = {Optimizer.SGD: 0.1, Optimizer.ADAM: 1e-3}
USUAL_FRACTION, FRACTION_OF_GRANET = 0.3, 0.5
"""The share of the kept weights that the first updates move: of RigL and of SRigL, and of GraNet."""
SMOOTHING = 0.1
"""The mass that ToST's label smoothing takes from the true class."""


@dataclass(frozen=True)
class Recipe:
    """A recipe; what is there unless told otherwise is the base recipe of the papers on masks at initialisation.

    `lr`: None is the optimizer's usual, 0.1 or 0.001. `batch_size`: of each process. `validation`: the share of every
    class's training examples held out. `amp`: bfloat16 where autocast has it, weights stay as they are.

    The parts of ToST (Jaiswal et al. 2022, arXiv:2206.12755), which act in the first `early` share of all steps only:
    `soft_neurons`, `ghost_skips`, `label_smoothing` (the mass shared by the wrong classes); `rescale` comes before the
    first step. `dynamic`: None, or how the mask moves: every `update_every` steps, from the share `update_from` of all until
    the share `update_until`, a share of the weights that falls from `update_fraction` (None: 0.3, of GraNet 0.5) by half a
    cosine. `final_density`: of a gradual one, the share of the weights that is kept at the end. `min_salient`: of SRigL,
    the share of an output's weights that must be salient for it to keep any (gamma_sal). `pattern`: of SRigL, the N of every
    M inputs that each output keeps, none being ablated; None for as many of all its inputs. `convention`: what the spectrum
    of a moving mask is by. `steps`: how many of all steps are done; None for all.
    """

    epochs: int = 160
    batch_size: int = 128
    optimizer: Optimizer = Optimizer.SGD
    lr: float | None = None
    schedule: Schedule = Schedule.STEPS
    momentum: float = 0.9
    weight_decay: float = 2e-4
    validation: float = 0.1
    augment: Augmentation = Augmentation.AUTO
    seed: int = 0
    amp: bool = False
    soft_neurons: bool = False
    ghost_skips: bool = False
    rescale: bool = False
    label_smoothing: float = 0.0
    early: float = 0.5
    dynamic: Dynamic | None = None
    update_every: int = 100
    update_fraction: float | None = None
    update_from: float = 0.0
    update_until: float = 0.75
    final_density: float = 0.05
    min_salient: float = 0.3
    pattern: Pattern | None = None
    convention: Convention = Convention.H23
    steps: int | None = None

    def __post_init__(self) -> None:
        """Raise `RecipeError` for a number out of range, `MethodOptionError` for a seed or a pattern."""
        check_seed(self.seed)
        if self.pattern is not None:
            self.pattern.check()
        for name, value in (
            ("epochs", self.epochs),
            ("batch_size", self.batch_size),
            ("update_every", self.update_every),
            ("steps", self.steps),
        ):
            if value is not None and value < 1:
                raise RecipeError(f"{option(name, value)}: must be 1 or more")
        if not (math.isfinite(self.base_lr) and self.base_lr > 0):
            raise RecipeError(f"{option('lr', f'{self.base_lr:g}')}: must be above 0, and finite")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise RecipeError(f"{option('weight_decay', f'{self.weight_decay:g}')}: must be 0 or more, and finite")
        for name, share in (
            ("validation", self.validation),
            ("early", self.early),
            ("update_fraction", self.first_fraction),
            ("update_until", self.update_until),
            ("final_density", self.final_density),
        ):
            if not 0 < share < 1:
                raise RecipeError(f"{option(name, f'{share:g}')}: must be above 0 and below 1")
        for name, share in (
            ("label_smoothing", self.label_smoothing),
            ("min_salient", self.min_salient),
            ("update_from", self.update_from),
        ):
            if not 0 <= share < 1:
                raise RecipeError(f"{option(name, f'{share:g}')}: must be 0 or more and below 1")
        if self.update_from >= self.update_until:
            begin, end = (option(name, f"{getattr(self, name):g}") for name in ("update_from", "update_until"))
            raise RecipeError(f"{begin}: must be below {end}")

    @property
    def base_lr(self) -> float:
        """The learning rate at the first step."""
        return USUAL_LR[self.optimizer] if self.lr is None else self.lr

    @property
    def first_fraction(self) -> float:
        """The share of the kept weights that the first updates move."""
        if self.update_fraction is not None:
            return self.update_fraction
        return FRACTION_OF_GRANET if self.dynamic is Dynamic.GRANET else USUAL_FRACTION

    @property
    def facts(self) -> dict[str, Any]:
        """All of it as JSON can have it, by name."""
        return {**asdict(self), "pattern": None if self.pattern is None else str(self.pattern)}

    @property
    def story(self) -> dict[str, str]:
        """What a mask tells of the training that made it."""
        told = {"epochs": str(self.epochs), "optimizer": self.optimizer.value}
        return {**told, "lr": repr(self.base_lr), "batch_size": str(self.batch_size)}

    @property
    def early_parts(self) -> tuple[str, ...]:
        """The names of the parts that act early and are gone at the end."""
        parts = {
            "soft_neurons": self.soft_neurons,
            "ghost_skips": self.ghost_skips,
            "label_smoothing": self.label_smoothing > 0,
        }
        return tuple(name for name, wanted in parts.items() if wanted)

    def lr_at(self, step: int, steps: int) -> float:
        """The learning rate of step `step`, from 0, of `steps`."""
        if self.schedule is Schedule.STEPS:
            return self.base_lr * 0.1 ** ((2 * step >= steps) + (4 * step >= 3 * steps))
        if self.schedule is Schedule.COSINE:
            return self.base_lr * 0.5 * (1 + math.cos(math.pi * step / steps))
        return self.base_lr

    def early_steps(self, steps: int) -> int:
        """How many of `steps` the early parts act in: at least one less than all, so that the end is plain."""
        return min(round(self.early * steps), steps - 1)

    def updates_at(self, step: int, steps: int) -> bool:
        """Whether the mask moves at this step, instead of the weights."""
        if self.dynamic is None or step % self.update_every:
            return False
        return step > 0 and exact(self.update_from) * steps <= step < exact(self.update_until) * steps

    def first_update(self, steps: int) -> int:
        """The first step of `steps` at which the mask moves; 0 when there is none."""
        return next((step for step in range(1, steps) if self.updates_at(step, steps)), 0)

    def last_update(self, steps: int) -> int:
        """The last step of `steps` at which the mask moves; 0 when there is none."""
        return next((step for step in range(steps - 1, 0, -1) if self.updates_at(step, steps)), 0)

    def moved_share(self, step: int, steps: int) -> float:
        """The share of a layer's kept weights that the update at `step` moves (Evci et al. 2020, section 3)."""
        if self.dynamic is Dynamic.GMP:
            return 0.0
        return self.first_fraction / 2 * (1 + math.cos(math.pi * step / (self.update_until * steps)))

    def left_to_prune(self, step: int, steps: int) -> Fraction:
        """Of all that a gradual one prunes, the share that is still kept after the update at `step`: (1 - (t - t0) /
        (t1 - t0))^3 with the first and the last step of the schedule (Zhu and Gupta 2017, equation 1); exact.
        """
        begin, end = exact(self.update_from) * steps, self.last_update(steps)
        return ((end - step) / (end - begin)) ** 3 if step < end else Fraction(0)
