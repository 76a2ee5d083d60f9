"""The labelled samples that methods with data score with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import torch

from pai_cli.data.batches import batch_for, check_classes, choose
from pai_cli.data.registry import open_dataset
from pai_cli.errors import MethodOptionError
from pai_cli.models.batch_norms import batch_norms
from pai_cli.models.copies import failed_on, one_tensor, remedy_for, seeded, working_copy
from pai_cli.pruning.base import Batches
from pai_cli.pruning.request import USUAL_PER_CLASS, PruneRequest
from pai_cli.random import generator_for
from pai_cli.spelling import option

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pai_cli.data.base import Dataset
    from pai_cli.models.network import Network

MOST_IN_BATCH, FEWEST_IN_BATCH = 128, 16
NUMBERS_IN_BATCH = 128 * 3 * 64 * 64
"""What a batch may hold, so that the second derivatives of a ResNet-50 at 224 x 224 fit in 32 GiB."""


def open_samples(request: PruneRequest) -> Dataset | None:
    """The training part of the dataset that the request names; None for a method without data.

    Raises `DataError`.
    """
    if request.data is None or not request.method.data:
        return None
    return open_dataset(request.data, train=True, normalise=request.normalise)


def draw(dataset: Dataset, request: PruneRequest, network: Network) -> Batches:
    """`per_class` samples of each class, chosen and ordered by the seed, in batches of nearly equal size.

    A batch holds at most 128, fewer where one input has more than 3 x 64 x 64 numbers (but 16). Classes are mixed, as
    a batch norm looks at a whole batch. Raises `DataError` (classes that the network cannot tell apart, a sample that
    cannot be read or made into an input), `MethodOptionError` (the network fails on one).
    """
    batch = batch_for(dataset, chosen(dataset, request), request.input_shape or network.input_shape)
    inputs, labels = torch.from_numpy(batch.inputs), torch.from_numpy(batch.labels)
    # Batch norms without running statistics normalise by their batch in every mode, and one sample may be too few for that.
    stateless = any(norm.running_mean is None for norm in batch_norms(network.model).values())
    check_classes(dataset, _outputs(network, inputs[: 2 if stateless else 1], request), network.description)
    pieces = batches_of(len(labels), inputs[0].numel())
    return tuple(zip(inputs.tensor_split(pieces), labels.tensor_split(pieces), strict=True))


def batches_of(samples: int, numbers: int) -> int:
    """How many batches this many samples make, of so many numbers each."""
    return -(-samples // max(FEWEST_IN_BATCH, min(MOST_IN_BATCH, NUMBERS_IN_BATCH // max(1, numbers))))


def chosen(dataset: Dataset, request: PruneRequest) -> NDArray[np.int64]:
    """The indices of the samples, in the order they are shown to the network: a function of the request alone."""
    indices = choose(dataset, request.per_class or USUAL_PER_CLASS, request.seed)
    return generator_for(request.seed, "order of the samples").permutation(indices)


def _values(dataset: Dataset) -> dict[str, str]:
    """What is made of stored values, where the data set tells."""
    normalisation = getattr(dataset, "normalisation", None)
    return {} if normalisation is None else {"values": normalisation.stated()}


def story(dataset: Dataset | None, request: PruneRequest) -> dict[str, str]:
    """What a mask file should tell of the samples: the dataset, how many a class, their indices, what is made of values. {}
    without data.

    Of a method that trains: the dataset, and how many examples it trains on, which are all.
    """
    if dataset is None:
        return {}
    if request.method.trains:
        return {"data": request.data or dataset.name, "examples": str(len(dataset)), **_values(dataset)}
    return {
        "data": request.data or dataset.name,
        "per_class": str(request.per_class or USUAL_PER_CLASS),
        "samples": json.dumps(np.sort(chosen(dataset, request)).tolist(), separators=(",", ":")),
        **_values(dataset),
    }


def _outputs(network: Network, examples: torch.Tensor, request: PruneRequest) -> int:
    """How many numbers the network gives for each of these examples."""
    name = request.method.name
    twin = working_copy(network.model, "cpu", torch.float32, name)
    with torch.no_grad(), seeded("cpu", request.seed):
        try:
            outputs = twin(examples.clone())
        except Exception as error:
            remedy = remedy_for(error, f"give the shape of one input with {option('input_shape')}")
            raise MethodOptionError(f"{name}: {failed_on(examples, error)}; {remedy}") from error
    outputs = one_tensor(outputs, name)
    return int(outputs.shape[-1]) if outputs.dim() == 2 else 0
