"""Where a method that looks at what a text sends through a language model is asked of something else."""

from __future__ import annotations

from typing import NoReturn

from pai_cli.errors import MethodOptionError
from pai_cli.pruning.base import ScoreContext
from pai_cli.spelling import option


def make_scorer(context: ScoreContext) -> NoReturn:
    """Raise `MethodOptionError`: there is no score of a network without a text that runs through it."""
    raise MethodOptionError(
        f"{option('method', context.method)}: prunes a language model by the inputs that a text sends into its matrices; "
        f"prune its folder, with {option('text')}"
    )
