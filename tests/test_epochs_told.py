"""What a training says while it goes on: words beside a bar on a terminal, and a line an epoch where there is none."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from test_searching import context, searching
from trainings import masks_of, recipe, residual, trainer

from pai_cli.display import progress
from pai_cli.methods.imp import Rounds
from pai_cli.progress import Milestone, told_of
from pai_cli.training.loop import Run, Trainer
from pai_cli.training.said import epoch_over, in_epoch

EPOCH = {"epoch": 2, "lr": 0.1, "train_loss": 0.5, "train_accuracy": 0.75}
HELD_OUT = {"validation_loss": 0.25, "validation_accuracy": 0.875, "best_epoch": 2}

Told = list[tuple[int, int, str]]


def listening() -> tuple[Told, Any]:
    told: Told = []
    return told, lambda done, total, what="": told.append((done, total, what))


def numbers(told: Told) -> list[list[float]]:
    """Loss and accuracy of what was trained with, an epoch each."""
    lines = [what for _, _, what in told if isinstance(what, Milestone)]
    return [[float(one) for one in re.findall(r"loss ([\d.]+), accuracy ([\d.]+)%", line)[0]] for line in lines]


# ---- the words


def test_a_line_an_epoch() -> None:
    assert epoch_over(EPOCH, 9) == "epoch 2/9: lr 0.1, loss 0.5, accuracy 75.00%"
    line = "epoch 2/9: lr 0.1, loss 0.5, accuracy 75.00%; held out: loss 0.25, accuracy 87.50%"
    assert epoch_over({**EPOCH, **HELD_OUT}, 9) == f"{line}, the best so far"
    assert epoch_over({**EPOCH, **HELD_OUT, "best_epoch": 1}, 9) == line


def test_words_beside_a_bar() -> None:
    assert in_epoch((1, 9), None, None, 0.1) == "epoch 1/9, lr 0.1"
    assert in_epoch((3, 9), 0.51234, 0.875, 0.01) == "epoch 3/9, loss 0.512, accuracy 87.5%, lr 0.01"


def test_without_a_terminal_long_work_says_where_it_is_once_a_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with progress.progress_bar("synflow") as show:
        for done, words in enumerate(
            ["", "round 2/9", Milestone("epoch over"), "round 4/9", "round\n5/9", "", "", "", ""]
        ):
            show(done, 8, words)
            now += 35
    said = [line.removeprefix("pai: ") for line in capsys.readouterr().err.splitlines()]
    assert said == ["epoch over", r"synflow: 50% done, round\n5/9", "synflow: 75% done"]
    with progress.progress_bar("analyzing") as show:
        now += 60
        show(999, 1000, "m.safetensors")  # which is not all
    assert capsys.readouterr().err == "pai: analyzing: 99% done, m.safetensors\n"


def test_a_milestone_of_a_part_is_one_of_all() -> None:
    assert isinstance(told_of("round 1/2, ", Milestone("over")), Milestone)
    assert told_of("round 1/2, ", Milestone("over")) == "round 1/2, over"
    assert not isinstance(told_of("round 1/2, ", "on"), Milestone)


# ---- where they go


def test_without_a_terminal_milestones_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress_bar("training") as show:
        show(1, 10, "epoch 1/2")
        show(5, 10, Milestone("epoch 1/2: lr 0.1"))
    out = capsys.readouterr()
    assert (out.out, out.err) == ("", "pai: epoch 1/2: lr 0.1\n")


@pytest.mark.parametrize("width", [80, 120])
def test_on_a_terminal_words_and_time_stay_whole(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(progress, "errors", lambda: Console(file=screen, force_terminal=True, width=width, _environ={}))
    monkeypatch.setattr(progress, "errors_have_no_terminal", lambda: False)
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    words = "round 2/9, epoch 12/160, loss 0.134, accuracy 94.5%, lr 0.001"
    with progress.progress_bar("imp") as show:
        show(1, 10, words)
        show(1, 10, Milestone("epoch 1/2: lr 0.1"))
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert f"imp {words} " in drawn
    assert "10% -:--:--" in drawn
    assert "lr 0.1 " not in drawn  # the milestone is no line there, and takes no place of the words
    assert max(map(len, re.split(r"[\r\n]+", drawn))) <= width


# ---- the numbers in them


def test_a_search_tells_the_means_of_its_steps() -> None:
    """Against losses that the steps gave, and the network asked again for each batch before its scores moved."""
    search = searching(residual())
    told, tell = listening()
    search.run = replace(search.run, progress=tell)
    losses, right = [], []
    differentiate = search.differentiate

    def watched(inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        losses.append(differentiate(inputs, labels))
        with torch.no_grad():
            right.append(float((search.model(inputs).argmax(1) == labels).double().mean()))
        return losses[-1]

    search.differentiate = watched  # type: ignore[method-assign]
    search.train(3 * search.steps_in_epoch)
    each = search.steps_in_epoch
    means = [
        [float(sum(losses[at : at + each])) / each, 100 * sum(right[at : at + each]) / each]
        for at in range(0, 3 * each, each)
    ]
    assert len(numbers(told)) == 3
    for found, mean in zip(numbers(told), means, strict=True):
        assert found == [pytest.approx(mean[0], rel=1e-3), pytest.approx(mean[1], abs=0.01)]


def test_an_interrupted_search_tells_the_same() -> None:
    whole, told = searching(residual()), []
    for at in (None, whole.steps_in_epoch + 2):
        heard, tell = listening()
        search = searching(residual())
        search.run = replace(search.run, progress=tell)
        if at is not None:
            search.train(at)
            after = searching(residual())
            after.run = search.run
            after.load(search.state())
            search = after
        search.train(3 * search.steps_in_epoch)
        told.append([what for _, _, what in heard if isinstance(what, Milestone)])
    assert told[0] == told[1]
    assert len(told[0]) == 3


def test_a_round_that_begins_within_an_epoch_tells_of_its_own_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps before the rewinding point are not this round's, and must not make its mean smaller."""
    given = context(residual(), "imp", epochs=2, freeze_every=None, rewind=0.5)
    told, tell = listening()
    rounds = Rounds(replace(given, training=replace(given.training, progress=tell)))
    losses: list[float] = []
    count = Trainer._count

    def counting(trainer: Trainer, loss: torch.Tensor, *others: torch.Tensor) -> None:
        losses.append(float(loss))
        count(trainer, loss, *others)

    monkeypatch.setattr(Trainer, "_count", counting)
    masks = {layer.name: np.ones(layer.shape, dtype=bool) for layer in given.layers}
    rounds.score(masks)
    first, each = len(losses), rounds.steps_in_epoch
    assert first == 2 * each
    fewer = {name: mask.copy() for name, mask in masks.items()}
    next(iter(fewer.values())).reshape(-1)[0] = False
    rounds.score(fewer)
    assert len(losses) - first == 2 * each - rounds.point
    assert 0 < rounds.point < each
    lines = [what.split(":")[0] for _, _, what in told if isinstance(what, Milestone)]
    of = rounds.training.rounds
    assert lines == [f"round {at}/{of}, epoch {epoch}/2" for at in (1, 2) for epoch in (1, 2)]
    own = losses[first : first + each - rounds.point]
    assert numbers(told)[2][0] == pytest.approx(sum(own) / len(own), rel=1e-3)


def test_what_is_told_is_what_is_recorded() -> None:
    told, tell = listening()
    records: list[dict[str, Any]] = []
    network = residual()
    trainer(network, masks_of(network), recipe(epochs=2), Run(progress=tell, record=records.append)).train()
    assert [what for _, _, what in told if isinstance(what, Milestone)] == [epoch_over(one, 2) for one in records]
    assert f", accuracy {records[0]['validation_accuracy']:.1%}, lr " in told[-2][2]
