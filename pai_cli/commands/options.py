"""The options of the commands that make masks, and those that several share: each means the same everywhere."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pai_cli.compute.device import Device
from pai_cli.errors import UsageError
from pai_cli.files.tables import Format
from pai_cli.methods.registry import names
from pai_cli.pruning.base import USUAL_DENSITY
from pai_cli.spectral.conventions import Convention
from pai_cli.spectral.solvers import Solver

STDOUT = Path("/dev/stdout")


def written(path: Path | None) -> Path | None:
    """Where a file goes: `-` is standard output, which is refused where it is a terminal, as what is written is no text."""
    if path is None or (str(path) != "-" and path != STDOUT):
        return path
    if sys.stdout.isatty():
        raise UsageError(f"{path}: standard output is a terminal, and this is no text; send it to a file or a pipe")
    if not STDOUT.exists():
        raise UsageError(f"{path}: standard output is no file on this system; name one")
    return STDOUT


class TieChoice(StrEnum):
    """What becomes of equal scores."""

    FIRST = "first"
    RANDOM = "random"
    ERROR = "error"


class BatchNormChoice(StrEnum):
    """What batch norms normalise by while samples are scored."""

    BATCH = "batch"
    RUNNING = "running"


class AllocationChoice(StrEnum):
    """What gives the blocks of a language model their densities."""

    OWL = "owl"
    ALPHAPRUNING = "alphapruning"


class ScopeChoice(StrEnum):
    """Where the density holds."""

    GLOBAL = "global"
    LAYER = "layer"


Masks = Annotated[
    list[str],
    typer.Argument(metavar="MASK...", help="Mask files, folders of them, or - (paths on stdin)."),
]
CheckpointPath = Annotated[
    Path,
    # `readable`: a file that may not be read is told as any other fault is, not as wrong usage.
    typer.Argument(
        metavar="CKPT",
        readable=False,
        help="A checkpoint, or a Hugging Face model's folder; .safetensors, its .index.json when sharded, .pt .pth .bin "
        ".ckpt, a torch.export .pt2.",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        metavar="CKPT", readable=False, help="The checkpoint the masks were made for; metrics of weights need it."
    ),
]
Trust = Annotated[
    bool,
    typer.Option("--trust", help="Let a pickle or a .pt2 run its code; only for files whose maker you trust."),
]
OutputFormat = Annotated[
    Format,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="markdown, latex, json, jsonl, csv or tsv; table, markdown and latex are as a person reads them, latex with "
        "the rules of booktabs, the others for programs.",
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="Only these columns, names or globs, commas between; names are those of --format csv, which has all.",
    ),
]
Sort = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="Order the rows of each table by a column, -COLUMN the largest first; rows without a value last, a network's "
        "mean below its layers.",
    ),
]
NoHeader = Annotated[bool, typer.Option("--no-header", help="csv and tsv without the line of field names.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing output file.")]
Plot = Annotated[
    Path | None,
    typer.Option("--plot", metavar="FILE", readable=False, help="Draw a picture, .svg, .png or .pdf (extra plot)."),
]
ReportPage = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="HTML",
        readable=False,
        help="Write a page of tables and pictures (extra plot); one file, to be opened in a browser.",
    ),
]
Packed = Annotated[bool, typer.Option("--packed", help="Write bits instead of bytes, an eighth of the size.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Seed of everything random; the same seed gives the same bits.")]
Density = Annotated[
    float | None,
    typer.Option(
        metavar="X", help=f"Fraction of weights to keep, by default {USUAL_DENSITY:g}; above 0 and at most 1."
    ),
]
Sparsity = Annotated[str | None, typer.Option(metavar="X", help="Fraction of weights to remove, 1 - density.")]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="The network, where names and shapes do not tell it; a NAME of `pai models`, package.module:factory, "
        "file.py:factory, or hf (a Hugging Face folder, made by transformers).",
    ),
]
InputShape = Annotated[
    str | None, typer.Option(metavar="C,H,W", help="Shape of one input; known architectures have one.")
]
Ignore = Annotated[
    list[str] | None,
    typer.Option(metavar="GLOB", help="Layers to leave whole, by name; may be given again, and are not counted."),
]
Rounds = Annotated[
    str | None,
    typer.Option(metavar="N|auto", help="Rounds of an iterative method; auto makes each as large as is safe."),
]
MethodName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        autocompletion=names,
        help="How weights are chosen, always needed; `pai methods` lists the methods.",
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        help="Labelled samples, digits or a path; for the methods that need them (`pai methods`).",
    ),
]
PerClass = Annotated[
    int | None,
    typer.Option("--per-class", metavar="N", min=1, help="Samples of each class, by default 10; chosen by the seed."),
]
Normalise = Annotated[
    bool,
    typer.Option(
        "--normalise",
        help="Standardise values that are floats; these are taken as they are otherwise.",
    ),
]
BatchNormName = Annotated[
    BatchNormChoice | None,
    typer.Option(
        "--batch-norm",
        metavar="CHOICE",
        help="What batch norms score by, batch or running; their batch (mostly the default), or running statistics, "
        "measured on the samples first where they are the initial ones.",
    ),
]
TextPath = Annotated[
    Path | None,
    typer.Option(
        "--text",
        metavar="TEXT",
        readable=False,
        help="Text that runs through a language model; a file, .jsonl with a field text, or a saved data set.",
    ),
]
Sequences = Annotated[
    int | None,
    typer.Option("--sequences", metavar="N", min=1, help="Sequences taken of the text, by default 128; by the seed."),
]
SequenceLength = Annotated[
    int | None,
    typer.Option("--sequence-length", metavar="N", min=1, help="Tokens of a sequence, by default 2048."),
]
Head = Annotated[bool, typer.Option("--head", help="Prune a language model's head too; with --text or --allocation.")]
PatternText = Annotated[
    str | None,
    typer.Option(
        "--pattern",
        metavar="N:M",
        help="Keep N of every M consecutive inputs, such as 2:4; instead of a density. Layers whose inputs M does not "
        "divide are left whole.",
    ),
]
DensitiesPath = Annotated[
    Path | None,
    typer.Option(
        metavar="JSON",
        readable=False,
        help="A density for each layer, instead of one; a JSON object of layer names, or globs, and fractions kept.",
    ),
]
AllocationName = Annotated[
    AllocationChoice | None,
    typer.Option(
        "--allocation",
        metavar="CHOICE",
        help="A density for each block of a language model; owl: by its outliers with --text. alphapruning: by spectra.",
    ),
]
Shuffle = Annotated[bool, typer.Option("--shuffle", help="Permute each layer's mask within the layer; by the seed.")]
Invert = Annotated[bool, typer.Option("--invert", help="Keep the smallest scores.")]
TieName = Annotated[
    TieChoice | None,
    typer.Option(
        "--ties",
        metavar="CHOICE",
        help="Equal scores at the cut, first, random or error; keep the first (the default), draw by the seed, or refuse.",
    ),
]
Reinit = Annotated[
    bool,
    typer.Option("--reinit", help="Keep the mask, redraw the weights; by the seed. -w says where to write them."),
]
WeightsOut = Annotated[
    Path | None,
    typer.Option(
        "--weights-out",
        "-w",
        readable=False,
        metavar="CKPT",
        callback=written,
        help="Where to write the weights the mask belongs to; those of --reinit, of a method that trains, or the folder of "
        "one with --text.",
    ),
]
ScopeName = Annotated[
    ScopeChoice | None,
    typer.Option(
        metavar="global|layer",
        help="Where the density holds; over the whole network, or in each layer, by default as the method has it.",
    ),
]


def _device_option(where: str) -> Any:
    return typer.Option(
        "--device",
        metavar="auto|cpu|cuda",
        autocompletion=lambda: [device.value for device in Device],
        help=f"{where}; of several GPUs cuda:1, and so on",
    )


DeviceName = Annotated[str, _device_option("Where scores are computed; auto takes a GPU when there is one")]
TrainDevice = Annotated[str, _device_option("Where to train; auto takes a GPU when there is one")]
EngineDevice = Annotated[
    str, _device_option("Where singular values are computed; auto takes a GPU where it is quicker")
]
DeviceMemory = Annotated[
    str | None,
    typer.Option(
        metavar="BYTES",
        help="Most of a GPU's memory, by default 80% of what is free; such as 8GB or 500MiB.",
    ),
]
_CONVENTION = typer.Option(
    "--convention",
    metavar="h23|f23",
    help="Which layers have gaps and subgraphs that count; h23, the default: mean degrees of 3 or more (ICLR 2023). f23: as "
    "the code of the full-spectrum paper has it (NeurIPS 2023).",
)
ConventionName = Annotated[Convention, _CONVENTION]
ConventionOrUsual = Annotated[Convention | None, _CONVENTION]
SolverName = Annotated[
    Solver,
    typer.Option(
        metavar="CHOICE",
        help="How singular values are found; auto: the quickest for each size. gram: all eigenvalues of the Gram matrix; "
        "power: block power iteration on it; matrix-free: on the matrix itself; direct: LAPACK on the matrix.",
    ),
]
Certify = Annotated[
    bool,
    typer.Option(
        "--certify",
        help="Prove sigma_2 to be the second at any size; past sides of 2048 that costs more than the value.",
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        readable=False,
        metavar="MASK",
        callback=written,
        help="Where to write the mask, - for standard output; by default CKPT-METHOD-DENSITY.safetensors here, METHOD-best "
        "from sample.",
    ),
]
NoCollapse = Annotated[bool, typer.Option("--no-collapse", help="Refuse a mask that leaves a layer without weights.")]
Effective = Annotated[
    bool,
    typer.Option(
        "--effective",
        help="Reach the density in weights on a path; from input to output, and keep those alone.",
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        "-j",
        min=1,
        metavar="N",
        help="Processes that work at once, by default one a core; with --cluster slurm, how many jobs to ask for.",
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS|slurm",
        help="Work on a Dask cluster; the address of its scheduler, such as tcp://head:8786, or slurm, which asks Slurm for "
        "--jobs jobs.",
    ),
]
StorePath = Annotated[
    Path | None,
    typer.Option(
        "--store",
        metavar="FILE",
        readable=False,
        help="Where finished work is kept and looked up; by default results.db in your cache folder.",
    ),
]
NoStore = Annotated[bool, typer.Option("--no-store", help="Look nothing up, keep nothing; do all work anew.")]


def check_header(kind: Format, *, no_header: bool) -> None:
    """Refuse --no-header where there is no header to leave out."""
    if no_header and kind not in (Format.CSV, Format.TSV):
        raise typer.BadParameter(f"--no-header: is of csv and tsv, and this is {kind.value}; leave it out")
