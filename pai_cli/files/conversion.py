"""What `pai convert` reads and writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pai_cli.files.checkpoints import Checkpoint
from pai_cli.files.foreign.base import Names
from pai_cli.files.foreign.registry import OURS
from pai_cli.files.foreign.write import Target, Weights, write_folder, write_npz, write_weights
from pai_cli.files.layer_names import layout_by_name
from pai_cli.files.masks import MaskFile, MaskToWrite, write_mask
from pai_cli.files.matching import called_there, spread, story_of, told_aliases
from pai_cli.files.messages import some_names
from pai_cli.files.opening import ForeignMask, open_as
from pai_cli.files.provenance import provenance
from pai_cli.files.whole import Whole, told_whole
from pai_cli.progress import Progress, silent
from pai_cli.spectral.layout import Layout

if TYPE_CHECKING:
    import numpy as np

OF_THE_FORMAT = ("format", "format_version", "layers", "shapes")


@dataclass(frozen=True)
class Converted:
    """A mask read whole: arrays and layouts by name in order, its kind, and the metadata that goes on with it.

    It is a `files.masks.Mask` too. `remark`: what a person should know of how it was read.
    """

    path: Path
    kind: str
    masks: Mapping[str, np.ndarray]
    layouts: Mapping[str, Layout]
    metadata: Mapping[str, str]
    remark: str

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every masked parameter."""
        return {name: mask.shape for name, mask in self.masks.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """The masked parameters, in order."""
        return tuple(self.masks)

    def layout(self, name: str) -> Layout:
        """Groups and transposition of a layer, as far as they are known."""
        return self.layouts.get(name) or layout_by_name(name, self.masks[name].shape)

    def array(self, name: str) -> np.ndarray:
        """One parameter's mask, boolean."""
        return self.masks[name]


def read_any(
    path: Path, kind: str | None, names: Names | None, *, trust: bool, progress: Progress = silent
) -> Converted:
    """Read a mask of any kind; raises as `open_as` does.

    A mask of `pai`'s own keeps its story. Of any other nothing is known but what it was read from: `converted_from` is
    the kind, `source_sha256` the digest of the file.
    """
    mask = open_as(path, kind, names, trust=trust)
    called = called_there(mask.names, names.shapes if names else mask.shapes)
    own = {there: name for name, there in called.items()}
    masks: dict[str, np.ndarray] = {}
    for name in dict.fromkeys((*(name for name in (names.prunable if names else ()) if name in own), *own)):
        masks[name] = mask.array(own[name])
        progress(len(masks), len(own), name)
    known = names.layouts if names is not None else {}
    layouts = {name: known.get(name) or mask.layout(own[name]) for name in masks}
    renamed = [f"{there} (here {name})" for name, there in called.items() if name != there]
    told = f"names are those of {names.path}: {some_names(renamed)}" if names and renamed else ""
    if isinstance(mask, MaskFile) and mask.is_ours:
        story = {key: value for key, value in mask.metadata.items() if key not in OF_THE_FORMAT}
        if names and renamed:
            story |= _told_there(mask.metadata, called, names)
        return Converted(path, OURS, masks, layouts, story, told)
    found = mask.kind if isinstance(mask, ForeignMask) else OURS
    story = {"converted_from": found, "source_sha256": mask.sha256}
    return Converted(path, found, masks, layouts, story, "; ".join(filter(None, (mask.remark, told))))


def _told_there(metadata: Mapping[str, str], called: Mapping[str, str], names: Names) -> dict[str, str]:
    """What a mask file tells of tensors, by the names that those have in the checkpoint. `called`: what its masks have."""
    one = next(iter(called))

    def there(name: str) -> str:
        return called.get(name) or called_there([one, name], names.shapes)[name]

    aliases = {there(name): tuple(map(there, others)) for name, others in told_aliases(metadata).items()}
    return story_of(aliases) | Whole({there(name): reason for name, reason in told_whole(metadata).items()}).story


def under_all_names(mask: Converted, checkpoint: Checkpoint) -> tuple[dict[str, np.ndarray], dict[str, Layout]]:
    """The masks, and their layouts, under every name that the checkpoint has for their parameters.

    A copy of a masked weight, value by value, under a name that has no mask is the same tensor, stored twice.
    """
    layouts = {name: mask.layout(name) for name in mask.names}
    masks = spread(mask.masks, mask.metadata, checkpoint.shapes, checkpoint.aliases)
    copies = _copies(masks, checkpoint)
    known = checkpoint.aliases, {copy: (name,) for copy, name in copies.items()}
    return (
        spread(mask.masks, mask.metadata, checkpoint.shapes, *known),
        spread(layouts, mask.metadata, checkpoint.shapes, *known),
    )


def _copies(masks: Mapping[str, np.ndarray], checkpoint: Checkpoint) -> dict[str, str]:
    """Weights without a mask whose values are those of a masked one, each with the name of that."""
    import numpy as np

    found: dict[str, str] = {}
    for name in (name for name in masks if name in checkpoint.shapes and len(checkpoint.shapes[name]) > 1):
        for other, shape in checkpoint.shapes.items():
            if other in masks or other in found or shape != checkpoint.shapes[name]:
                continue
            values = checkpoint.array(name)
            if np.array_equal(values, checkpoint.array(other)) and values.size > 1 and values.min() < values.max():
                found[other] = name
    return found


@dataclass(frozen=True)
class Output:
    """Where a mask goes, and as what. `arguments`: what was typed after `pai`; `checkpoint`: for targets with weights;
    `folder`: whether its whole folder is written.
    """

    path: Path
    target: Target
    arguments: Sequence[str]
    checkpoint: Checkpoint | None = None
    packed: bool = False
    force: bool = False
    folder: bool = False


def write_any(mask: Converted, output: Output) -> None:
    """Write it, whole or not at all. Raises `OutputError`, and what reading the checkpoint raises."""
    metadata = {**mask.metadata, **provenance(output.arguments)}
    if output.target is Target.PAI:
        made = MaskToWrite(mask.masks, mask.layouts, metadata)
        write_mask(output.path, made, packed=output.packed, force=output.force)
    elif output.target is Target.NPZ:
        write_npz(output.path, mask.masks, force=output.force)
    else:
        assert output.checkpoint is not None
        weights = Weights(output.checkpoint, *under_all_names(mask, output.checkpoint))
        if output.folder:
            told = {"source_sha256": output.checkpoint.sha256, **provenance(output.arguments)}
            write_folder(output.path, weights, told, force=output.force)
            return
        write_weights(output.path, weights, output.target, metadata, force=output.force)
