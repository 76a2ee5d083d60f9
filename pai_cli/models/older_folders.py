"""Folders that older versions of transformers wrote: names without a prefix, and tables that the network makes itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pai_cli.files.checkpoints import Checkpoint
from pai_cli.files.messages import some_names
from pai_cli.models.base import Shapes
from pai_cli.models.experts import Joined, joined
from pai_cli.printable import as_line
from pai_cli.telling import note

PREFIXES = {
    "gpt2": ("GPT2LMHeadModel", "transformer."),
    "bloom": ("BloomForCausalLM", "transformer."),
    "opt": ("OPTForCausalLM", "model."),
}
"""Of model types whose folders may have the tensors of the network without its head: the network, and its name for that."""

HEAD = "lm_head."

_TABLES = {
    1: re.compile(r"(.*\.)?rotary_emb\.inv_freq"),
    4: re.compile(r"(.*\.)?attn(\.attention)?\.(bias|causal_mask)"),
}
"""By their dimensions: frequencies of rotary positions, and causal masks. The network has them from its configuration."""


def names_now(shapes: Shapes, config: Mapping[str, Any]) -> dict[str, str]:
    """The network's name of each tensor of a folder, by the folder's; tables that the network makes itself have none."""
    kept = [name for name, shape in shapes.items() if not is_table(name, len(shape))]
    network, prefix = PREFIXES.get(str(config.get("model_type")), ("", ""))
    if config.get("architectures") != [network] or any(name.startswith(prefix) for name in kept):
        prefix = ""
    return {name: name if name.startswith(HEAD) else f"{prefix}{name}" for name in kept}


def is_table(name: str, dimensions: int) -> bool:
    """Whether a tensor is a table that networks once stored, and now make."""
    return dimensions in _TABLES and _TABLES[dimensions].fullmatch(name) is not None


def as_the_network(checkpoint: Checkpoint) -> Joined:
    """A folder's tensors as the network has them; says which tables are not read."""
    config = checkpoint.config or {}
    names = names_now(checkpoint.shapes, config)
    stored = {now: name for name, now in names.items()}
    whole = joined(
        {now: checkpoint.shapes[name] for now, name in stored.items()}, config.get("model_type"), checkpoint.stacks
    )
    if tables := [as_line(name) for name in checkpoint.shapes if name not in names]:
        note(f"{checkpoint.path}: not read, for the network makes them itself: {some_names(tables)}")
    parts = {own: tuple(replace(part, name=stored[part.name]) for part in some) for own, some in whole.parts.items()}
    return Joined(parts, whole.shapes)
