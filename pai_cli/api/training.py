"""`Training`: what came of a training, as a program holds it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pai_cli.api.masks import Mask
from pai_cli.training.outputs import Outputs

if TYPE_CHECKING:
    import torch

    from pai_cli.files.tables import Record
    from pai_cli.training.job import Job, Trained


@dataclass(frozen=True)
class Training:
    """What came of a training. `first`: whether this is the first of its processes, which alone writes and speaks.

    `trained`, `job`: as the rest of the package has them.
    """

    trained: Trained
    job: Job
    first: bool = True

    @property
    def record(self) -> Record:
        """All its numbers, as the last line of its journal has them."""
        return self.trained.record

    @property
    def history(self) -> list[Record]:
        """The numbers of each epoch and each move of the mask, in order, those of the end last; the first process has them.

        An epoch's: epoch, step, lr, train_loss, train_accuracy, validation_loss, validation_accuracy, seconds.
        """
        return [dict(line) for line in self.trained.lines]

    @property
    def accuracy(self) -> float:
        """The share of the test part that is right, 0 to 1, of the network of the best epoch."""
        return self._number("test_accuracy")

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval of the accuracy (Wilson 1927)."""
        return self._number("accuracy_low"), self._number("accuracy_high")

    @property
    def validation_accuracy(self) -> float:
        """The share of the examples held out that is right, 0 to 1, by which the best epoch was chosen."""
        return self._number("validation_accuracy")

    @property
    def epoch(self) -> int:
        """The best epoch, from 1."""
        return int(self._number("best_epoch"))

    @property
    def again(self) -> bool:
        """Whether it had come to its end before, and `resume` trained nothing."""
        return self.trained.again

    @property
    def outputs(self) -> Outputs:
        """Where it has written."""
        return self.job.out

    @property
    def path(self) -> Path | None:
        """The trained checkpoint's file, None where none was asked for."""
        return self.job.out.weights

    @cached_property
    def state_dict(self) -> dict[str, torch.Tensor]:
        """The trained tensors by name, on the CPU, as the checkpoint names them: what `load_state_dict` takes."""
        if self.trained.result is None:
            from safetensors.torch import load_file

            loaded: dict[str, torch.Tensor] = load_file(str(self.path))
            return loaded
        from pai_cli.training.job import weights_of

        return weights_of(self.job, self.trained.result)

    @cached_property
    def mask(self) -> Mask | None:
        """The mask that holds at the end: of a dynamic training the last one, else the one given; None without."""
        if self.job.recipe.dynamic is None:
            return None if self.job.mask is None else Mask._of_stored(self.job.mask, None)
        if self.trained.result is None:
            assert self.job.out.mask is not None
            return Mask.load(self.job.out.mask)
        from pai_cli.training.job import final_mask

        made = final_mask(self.job, self.trained.result, self.record)
        return Mask(made.masks, layouts=made.layouts, metadata=made.metadata)

    def __repr__(self) -> str:
        tested = f"{self.record['correct']:,} of {self.record['tested']:,}"
        return f"<Training: test accuracy {self.accuracy:.4f} ({tested}), best epoch {self.epoch}>"

    def _number(self, name: str) -> float:
        value = self.record[name]
        assert isinstance(value, int | float)
        return value
