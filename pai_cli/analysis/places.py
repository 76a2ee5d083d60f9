"""Where masks are measured when nobody says: on a GPU, where one is there and work is so much that it pays for its start."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from pai_cli.analysis.masks import AnalysisRequest, wanted
from pai_cli.compute.device import Device, may_have_gpu, resolve
from pai_cli.compute.rates import Rates, measured_rates, start_seconds
from pai_cli.compute.threads import all_cores
from pai_cli.errors import PaiError
from pai_cli.files.first_bytes import first_bytes, is_safetensors
from pai_cli.files.masks import Mask, MaskFile
from pai_cli.files.stacks import parted
from pai_cli.printable import reason_of
from pai_cli.spectral.costs import LAUNCHES, MOST_ENTRIES, Work, work_of
from pai_cli.spectral.solvers import Solver
from pai_cli.spelling import option
from pai_cli.telling import note

WORTH, LEAST = 2.0, 0.5  # times the start of a GPU, and seconds, that the cores must be busy for

UNKNOWN_SIDE = 1024  # of the matrices of a file that tells no shapes before it is read


def place_of(work: Work, entries: float) -> str:
    """A GPU, where one is there and measures this sooner, its start set aside; else "cpu". Says which, and why.

    `work` is of matrices of so many entries in all. Nothing is imported where there is no trace of a GPU, and where the
    cores are done before it would have begun.
    """
    here = work.seconds / all_cores()
    if here <= max(LEAST, WORTH * start_seconds()) or not may_have_gpu():
        return "cpu"
    try:
        gpu = resolve(Device.CUDA)
        there = seconds_there(work, entries, measured_rates(gpu))
    except (PaiError, RuntimeError) as error:
        why = error.text if isinstance(error, PaiError) else f"the GPU cannot be used ({reason_of(error)})"
        note(f"the cores do the work ({option('device', 'auto')}): {why}")
        return "cpu"
    times = f"about {_told(there)} there and {_told(here)} on {all_cores()} cores"
    if there >= here:
        note(f"the cores do the work ({option('device', 'auto')}): there is a GPU, and it takes {times}")
        return "cpu"
    note(f"a GPU does the work ({option('device', 'auto')}: {times}; {option('device', 'cpu')} leaves it out)")
    return gpu


def seconds_there(work: Work, entries: float, rates: Rates) -> float:
    """What a device of these rates takes."""
    batches = max(1, math.ceil(entries / MOST_ENTRIES))
    products = work.single / rates.single + work.double / rates.double
    return batches * LAUNCHES * rates.launch + products + work.sent / rates.sent


def place_of_masks(masks: Sequence[Path | Mask], request: AnalysisRequest, unfinished: float) -> str:
    """Where these masks are measured best. All are taken to be like the first, and of the others this share to be measured.

    What only the cores can do stays there.
    """
    if request.options.solver.solver not in (Solver.AUTO, Solver.POWER) or not may_have_gpu():
        return "cpu"
    sizes = [size_of(mask) for mask in masks]
    layers = _layers_of(masks[0], sizes[0], request)
    entries = sum(rows * columns for rows, columns in layers)
    times = 1.0 + unfinished * sum(sizes[1:]) / max(1, sizes[0])
    work = work_of(layers, weighted=request.weights is not None).times(times)
    return place_of(work, entries * times)


def size_of(mask: Path | Mask) -> int:
    """Bytes of a file, elements of a mask in memory."""
    if not isinstance(mask, Path):
        return sum(map(math.prod, mask.shapes.values()))
    try:
        return mask.stat().st_size
    except OSError:  # told when it is read
        return 0


def _layers_of(mask: Path | Mask, size: int, request: AnalysisRequest) -> list[tuple[int, int]]:
    """Rows and columns of the layers that are asked for; of a file that tells no shapes, of some of its size."""
    opened = _opened(mask)
    if opened is None:
        return [(UNKNOWN_SIDE, UNKNOWN_SIDE)] * (size // UNKNOWN_SIDE**2 // 4)
    found = parted(opened)
    shapes = {name: tuple(shape) for name, shape in found.shapes.items() if wanted(name, request.layers)}
    return [found.layout(name).matrix(shape) for name, shape in shapes.items() if len(shape) > 1 and 0 not in shape]


def _opened(mask: Path | Mask) -> Mask | None:
    """The mask, of which only a header is read; None for a file that has none, or a fault, which is told when it is read."""
    if not isinstance(mask, Path):
        return mask
    try:
        return MaskFile(mask) if is_safetensors(first_bytes(mask)) else None
    except (PaiError, OSError):
        return None


def _told(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1g} s"
