"""`info`: what a file is and holds."""

from __future__ import annotations

from pai_cli.api.inputs import AnyPath, file_of
from pai_cli.models.info import FileInfo


def info(file: AnyPath, *, trust: bool = False) -> FileInfo:
    """What a file is (a mask and of which tool, a checkpoint, a program, a graph, a folder) and what it holds.

    Gives its tensors with shapes, dtypes and, of a mask, how many entries are kept; what it tells of how it was made
    (method, density, seed, command, source with its digest); the architecture, where names and shapes tell it; its bytes and
    their SHA-256. Of a graph by itself its vertices on the left and the right, its edges, and whether they have
    weights. Of a folder that is no one model, the same of each mask, checkpoint and graph in it and in the folders below it.

    `file`: a path, "-" for a file on standard input. `trust`: a pickle or a program of `torch.export` may run the code in
    it; a program that is not trusted is told to be one and not looked into. Nothing is changed. Raises `MaskError`,
    `CheckpointError` or `EdgeListError` for what is none of these, or is damaged, and `UntrustedPickleError`.
    """
    from pai_cli.models.info import info_of

    return info_of(file_of(file), trust=trust)
