"""NNI's masks: `{module: {"weight": mask, "bias": mask}}`, as `export_model(mask_path=...)` of NNI 1 and 2 saves them (None
where a module has no bias) and as `compress()` of NNI 3 gives them, there also for activations, under names of their own.
"""

from __future__ import annotations

from pai_cli.errors import MaskError
from pai_cli.files.foreign.base import Content, Masks, Names, as_mask
from pai_cli.files.masks import is_binary
from pai_cli.files.stored_names import stripped_names

ACTIVATIONS = ("_input_", "_output_")


def recognises(content: Content) -> bool:
    """Whether there is a dict of 0s and 1s a module, and one of them for a weight."""
    targets = [target for module in content.modules.values() for target in module]
    if "weight" not in targets or any("." in target for target in targets):
        return False
    return all(is_binary(stored.read()) for module in content.modules.values() for stored in module.values())


def masks(content: Content, _names: Names | None) -> Masks:
    """The masks of parameters, by state-dict name."""
    found = {
        f"{module}.{target}" if module else target: as_mask(content.path, stored)
        for module, targets in content.modules.items()
        for target, stored in targets.items()
        if not target.startswith(ACTIVATIONS)
    }
    if not found:
        raise MaskError(f"{content.path}: has no dict of masks a module, as NNI saves them")
    stored_names, _ = stripped_names(content.path, found)
    return {name: found[stored] for name, stored in stored_names.items()}
