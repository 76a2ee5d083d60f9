"""Masks as a program gives them: paths, folders, `-`, arrays by name, one or several."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Mapping
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pai_cli.errors import ParameterError, UsageError
from pai_cli.files.standard_input import is_standard_input
from pai_cli.spectral.parameters import shown
from pai_cli.spelling import option
from pai_cli.telling import note

if TYPE_CHECKING:
    from pai_cli.files.masks import Mask as Stored
    from pai_cli.spectral.layout import Layout


def is_one(masks: Any) -> bool:
    """Whether one mask was given, and not several: a file's path, or a mapping of names to arrays."""
    if isinstance(masks, str | PathLike):
        from pai_cli.files.folders import is_model

        return not is_standard_input(masks) and (not Path(masks).is_dir() or is_model(Path(masks)))
    return isinstance(masks, Mapping) and not _by_name(masks)


def _by_name(masks: Mapping[Any, Any]) -> bool:
    """Whether a mapping is of masks, and not of a mask's arrays, which are not read for it."""
    from pai_cli.api.masks import Mask

    return not isinstance(masks, Mask) and bool(masks) and all(isinstance(one, Mapping) for one in masks.values())


def listed(masks: Any) -> list[Any]:
    """What was given, as a list; of a mapping of masks, each under its key.

    Raises `ParameterError` for what is neither a mask nor several.
    """

    if isinstance(masks, Mapping) and _by_name(masks):
        return [_called(one, Path(str(name)), own_name=False) for name, one in masks.items()]
    every = [masks] if isinstance(masks, str | PathLike | Mapping) else masks
    array, network = hasattr(every, "dtype") or isinstance(every, bytes), hasattr(every, "state_dict")
    if array or network or not isinstance(every, Iterable):
        kind = "an array is one matrix, and a mask has names: " if array else ""
        if network:
            kind = "a network is no mask, pai.Mask.of(model) is that of its zeros; or "
        raise ParameterError(
            f"masks={shown(masks)}: {kind}give a path, a mapping of names to arrays, or several of them"
        )
    found = list(every)
    wrong = next((one for one in found if not isinstance(one, str | PathLike | Mapping)), None)
    if wrong is not None:
        raise ParameterError(f"masks={shown(wrong)}: is neither a path nor a mapping of names to arrays")
    return [str(one) if isinstance(one, str | PathLike) else one for one in found]


def named(masks: list[Any]) -> list[str]:
    """Those of the masks that are told by a path."""
    return [one for one in masks if isinstance(one, str)]


def opened(masks: list[Any], model: Any, *, one: bool, trust: bool) -> list[Path | Stored]:
    """The mask files that paths and folders mean, and masks in memory, in order.

    `model`: the network they are of, where that is one in memory: it knows which of its layers are grouped. Raises
    `MaskError`, also where paths mean no mask.
    """
    from pai_cli.files.paths import mask_paths

    stdin = sys.stdin or io.StringIO()
    if all(isinstance(mask, str) for mask in masks):
        return list(mask_paths(masks, stdin, note, trust=trust))
    found: list[Path | Stored] = []
    for number, mask in enumerate(masks):
        if isinstance(mask, str):
            found += mask_paths([mask], stdin, note, trust=trust)
        else:
            found.append(_given(mask, Path("the mask" if one else f"masks[{number}]"), model))
    return found


def tell_twice(masks: Iterable[Path | Stored]) -> None:
    """Say which files were given by two names, each of which counts."""
    files: dict[Path, Path] = {}
    for one in masks:
        if isinstance(one, Path) and (first := files.setdefault(one.resolve(), one)) != one:
            note(f"{one}: is {first} by another name, and is measured under both")


def _given(mask: Mapping[str, Any] | _Called, path: Path, model: Any) -> Stored:
    from pai_cli.api.masks import Mask

    if isinstance(mask, _Called):
        return mask
    return _called(mask if isinstance(mask, Mask) else Mask(mask, layouts=_layouts(mask, model)), path)


def _called(mask: Mapping[str, Any], path: Path, *, own_name: bool = True) -> _Called:
    """A mask that a program holds as those of files are; it is called by its file's `own_name`, or by this one."""
    from pai_cli.api.masks import Mask

    held = mask if isinstance(mask, Mask) else Mask(mask)
    return _Called(held.stored, (own_name and held.path) or path)


def open_given(mask: Any, *, trust: bool) -> Stored:
    """The one mask that the parameter `mask` gives, opened where it is a path.

    Raises `UsageError` for what is none, and what `open_mask` raises.
    """
    from pai_cli.files.opening import open_mask

    if isinstance(mask, str | PathLike):
        return open_mask(Path(mask), trust=trust)
    if isinstance(mask, Mapping):
        return _called(mask, Path("the mask"))
    raise UsageError(f"{option('mask')}: give a path or a mask, not {type(mask).__name__}")


class _Called:
    """A mask under the name that messages call it by. See `files.masks.Mask`."""

    def __init__(self, mask: Stored, path: Path):
        from pai_cli.files.graph_files import graph_of
        from pai_cli.files.masks import span_of

        self.path = path
        self.metadata, self.names, self.shapes = mask.metadata, mask.names, mask.shapes
        self.remark, self.layout, self.array = mask.remark, mask.layout, mask.array
        self.span, self.graph = partial(span_of, mask), graph_of(mask)


def _layouts(names: Iterable[str], model: Any) -> Mapping[str, Layout] | None:
    """Groups and transposition of the layers, as the network's own modules have them; None without a network."""
    from pai_cli.spectral.layout import Layout

    if not hasattr(model, "named_modules"):
        return None
    modules = dict(model.named_modules())
    found = {}
    for name in names:
        module = modules.get(str(name).rpartition(".")[0])
        if module is not None:
            found[name] = Layout(int(getattr(module, "groups", 1)), bool(getattr(module, "transposed", False)))
    return found
