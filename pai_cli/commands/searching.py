"""The options of the pruning methods that train, and what `pai prune` does for them besides."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pai_cli.pruning.trained import EPOCHS, FREEZE_EVERY
from pai_cli.training.recipe import Optimizer

if TYPE_CHECKING:
    from pai_cli.data.base import Dataset
    from pai_cli.files.checkpoints import Checkpoint
    from pai_cli.methods.resume import RunFiles
    from pai_cli.models.network import Network
    from pai_cli.pruning.base import Method
    from pai_cli.pruning.run import PruneRequest
    from pai_cli.pruning.trained import TrainingRun

Epochs = Annotated[
    int | None,
    typer.Option(help=f"Of a method that trains: epochs, by default {EPOCHS}; of imp, of each round, by default 160."),
]
FreezeEvery = Annotated[
    int | None,
    typer.Option("--freeze-every", help=f"Of gem-miner: epochs between freezes, by default {FREEZE_EVERY}."),
]
Penalty = Annotated[
    float | None,
    typer.Option(
        metavar="LAMBDA",
        help="Of gem-miner: what the sum of the squared scores counts in the loss; by default that of the published "
        "recipe for the nearest density.",
    ),
]
Rewind = Annotated[
    float | None,
    typer.Option(
        metavar="EPOCHS", help="Of imp: how far the weights are trained that each round goes back to, by default 2.5."
    ),
]
OptimizerName = Annotated[Optimizer | None, typer.Option(help="Of a method that trains: by default sgd, momentum 0.9.")]
LearningRate = Annotated[
    float | None,
    typer.Option("--lr", help="Of a method that trains: the first learning rate; by default as published, 0.1 of sgd."),
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", help="Of a method that trains: examples a step, by default 128.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on where a method that trains was interrupted, with the same settings.")
]


@dataclass(frozen=True)
class Searched:
    """A run of the chosen method, and the file it goes on from where the method trains.

    `force`: whether a mask that stands in its way may be replaced.
    """

    run: TrainingRun
    force: bool
    files: RunFiles | None = None

    @property
    def kept(self) -> Path | None:
        """Where the state is."""
        return None if self.files is None else self.files.path

    def close(self) -> None:
        """Remove the state: all that was to be written is."""
        if self.files is not None:
            self.files.close()


def refuse_resume_early(method: Method, *, resume: bool) -> None:
    """Refuse --resume where nothing is kept."""
    from pai_cli.errors import MethodOptionError
    from pai_cli.pruning.base import METHODS

    if resume and not method.trains:
        takers = ", ".join(one.name for one in METHODS.values() if one.trains)
        raise MethodOptionError(
            f"--resume: {method.name} does not train; leave it out (methods that take it: {takers})"
        )


def open_run(
    out: Path,
    request: PruneRequest,
    source: Checkpoint,
    network: Network,
    dataset: Dataset | None,
    *,
    resume: bool,
    force: bool,
) -> Searched:
    """A run of the request that writes the mask `out`, to go on from what is kept with `resume`.

    A run that is continued may replace a mask that it wrote itself, and no other: else `OutputError`.
    """
    from pai_cli.files.atomic import check_output
    from pai_cli.files.runs import tells
    from pai_cli.pruning.trained import TrainingOptions, TrainingRun

    if not request.method.trains:
        return Searched(TrainingRun(), force)
    from pai_cli.data.fingerprint import digest_of
    from pai_cli.methods.resume import RunFiles

    assert dataset is not None
    facts = request.facts()
    del facts["training"]
    facts |= asdict(request.training or TrainingOptions())
    facts |= {"source_sha256": source.sha256, "network": network.description}
    facts |= {"examples": len(dataset), "data_sha256": digest_of([dataset])}
    files = RunFiles.beside(out, json.loads(json.dumps(facts)))
    own = {"method": request.method.name, "seed": str(request.seed), "source_sha256": source.sha256}
    own |= {} if request.density is None else {"density": repr(request.density)}
    replaces = force or (resume and tells(out, own))
    check_output(out, force=replaces)
    return Searched(files.begin(resume=resume), replaces, files)
