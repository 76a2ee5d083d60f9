"""Steps a second of the training loop, against a plain PyTorch loop with torch.nn.utils.prune in the same run.

Both train the same network under the same random mask on the same images of random numbers, with crops and flips, SGD with
momentum and weight decay; batches alternate between the two, so that what else the machine does touches both alike. Then
the same loop with each part of ToST and with a moving mask, relative to itself without. `--quick` takes fewer steps.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from tables import LEFT, Table
from torch import nn
from torch.nn.utils import prune

from pai_cli.compute.threads import cores
from pai_cli.data.arrays import ArrayDataset
from pai_cli.data.normalise import Normalisation
from pai_cli.models.network import Network, init_network
from pai_cli.pruning.base import Masks
from pai_cli.training.examples import TrainingData, prepare
from pai_cli.training.loop import Trainer
from pai_cli.training.recipe import Augmentation, Dynamic, Recipe
from pai_cli.training.rescale import ITERATIONS

DENSITY = 0.05
BATCH = 128
IMAGES = 4096
PARTS = {
    "soft neurons": {"soft_neurons": True},
    "ghost skips": {"ghost_skips": True},
    "label smoothing": {"label_smoothing": 0.1},
    "all three": {"soft_neurons": True, "ghost_skips": True, "label_smoothing": 0.1},
    "rigl, every 10 steps": {"dynamic": Dynamic.RIGL, "update_every": 10},
    "granet, every 10 steps": {"dynamic": Dynamic.GRANET, "update_every": 10},
    "srigl, every 10 steps": {"dynamic": Dynamic.SRIGL, "update_every": 10},
}

Step = Callable[[], object]


def images(count: int, side: int) -> ArrayDataset:
    """Random colour images of ten classes."""
    random = np.random.default_rng(0)
    stored = random.integers(0, 256, (count, 3, side, side), dtype=np.uint8)
    return ArrayDataset(
        "cifar-10", 10, np.arange(count) % 10, stored, Normalisation(255, (0.5,) * 3, (0.25,) * 3, "random")
    )


def plain_loop(network: Network, masks: Masks, dataset: ArrayDataset, recipe: Recipe) -> Iterator[None]:
    """What people write: prune.custom_from_mask on every layer, SGD, images in one tensor; a step at each `next`."""
    import copy

    model = copy.deepcopy(network.model).train()
    for name, mask in masks.items():
        module, _, parameter = name.rpartition(".")
        prune.custom_from_mask(model.get_submodule(module), parameter, torch.from_numpy(mask))  # type: ignore[no-untyped-call]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=2e-4)
    inputs = torch.from_numpy(dataset.examples(np.arange(len(dataset))))
    labels = torch.from_numpy(dataset.labels)
    while True:
        order = torch.randperm(len(labels))
        for start in range(0, len(order) - recipe.batch_size + 1, recipe.batch_size):
            chosen = order[start : start + recipe.batch_size]
            batch = cropped(inputs[chosen])
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(batch), labels[chosen])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            yield


def cropped(batch: torch.Tensor) -> torch.Tensor:
    """Random crops with padding 4, and flips, an image at a time, as torchvision's transforms do."""
    side = batch.shape[-1]
    padded = nn.functional.pad(batch, (4,) * 4)
    out = torch.empty_like(batch)
    for index, (top, left) in enumerate(torch.randint(0, 9, (len(batch), 2)).tolist()):
        image = padded[index, :, top : top + side, left : left + side]
        out[index] = image.flip(-1) if torch.rand(()) < 0.5 else image
    return out


def steps_of(network: Network, masks: Masks, recipe: Recipe, data: TrainingData) -> Step:
    """One step of the loop at each call."""
    trainer = Trainer(network, masks, recipe, data)
    trainer.train(1)
    return lambda: trainer.train(trainer.step + 1)


def alternated(runs: dict[str, Step], count: int) -> dict[str, list[float]]:
    """Seconds of `count` calls of each, one of each in turn."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(count):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            taken[name].append(time.perf_counter() - begin)
    return taken


def main() -> int:
    """Print both tables."""
    count = 10 if "--quick" in sys.argv[1:] else 30
    torch.set_num_threads(cores())
    recipe = Recipe(epochs=1000, batch_size=BATCH, augment=Augmentation.CROP_FLIP)
    print(f"ResNet-20, density {DENSITY}, batch {BATCH}, {torch.get_num_threads()} threads, medians of {count} steps\n")
    network = init_network("resnet20", None, 0)
    random = np.random.default_rng(0)
    masks = {layer.name: random.random(layer.shape) < DENSITY for layer in network.layers}
    table = Table(
        (("images", 8, LEFT), ("loop", 22, LEFT), ("steps/s", 8, ".2f"), ("ms", 8, ".1f"), ("relative", 8, ".3fx"))
    )
    table.head()
    for side in (8, 32):
        dataset = images(IMAGES, side)
        data = prepare(dataset, None, recipe, (3, side, side))
        plain = plain_loop(network, masks, dataset, recipe)
        loops: dict[str, Step] = {"torch.nn.utils.prune": lambda plain=plain: next(plain)}  # type: ignore[misc]
        loops["pai train"] = steps_of(network, masks, recipe, data)
        loops |= {f"+ {name}": steps_of(network, masks, replace(recipe, **part), data) for name, part in PARTS.items()}  # type: ignore[arg-type]
        alternated(loops, 2)
        taken = {name: statistics.median(times) for name, times in alternated(loops, count).items()}
        for name, seconds in taken.items():
            table.row(f"{side}x{side}", name, 1 / seconds, 1000 * seconds, seconds / taken["pai train"])
        seconds = rescaling_seconds(network, masks, recipe, data, max(2, count // 10))
        row = f"re-scaling, {ITERATIONS} at start"
        table.row(f"{side}x{side}", row, 1 / seconds, 1000 * seconds, seconds / taken["pai train"])
    return 0


def rescaling_seconds(network: Network, masks: Masks, recipe: Recipe, data: TrainingData, count: int) -> float:
    """Seconds of one iteration of the re-scaling."""
    trainer = Trainer(network, masks, replace(recipe, rescale=True), data)
    assert trainer.rescaling is not None
    return statistics.median(alternated({"": trainer.rescaling.iterate}, count)[""])


if __name__ == "__main__":
    sys.exit(main())
