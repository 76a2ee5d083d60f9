"""The kinds of data that are known. Imports nothing heavy: help reads this."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from pai_cli.data import layouts
from pai_cli.data.base import no_need
from pai_cli.errors import DataError
from pai_cli.files.first_bytes import check_readable, hint_at, looks_like
from pai_cli.printable import reason_of
from pai_cli.spelling import option

if TYPE_CHECKING:
    from pai_cli.data.base import Dataset

DIGITS = "digits"


@dataclass(frozen=True)
class Kind:
    """A kind of data.

    `opener` is "module:function", which takes the path and `train`; `fits` gives something of a path of this kind. `floats`:
    its values may be floats, and the opener takes `normalise` too.
    """

    opener: str
    fits: Callable[[Path], object]
    floats: bool = False


KINDS: dict[str, Kind] = {
    DIGITS: Kind("pai_cli.data.digits:open_digits", lambda _: False),
    "cifar-python": Kind("pai_cli.data.cifar:open_python", layouts.cifar_python),
    "cifar-binary": Kind("pai_cli.data.cifar:open_binary", layouts.cifar_binary),
    "idx": Kind("pai_cli.data.idx:open_idx", layouts.idx_sets),
    "npz": Kind("pai_cli.data.npz:open_npz", layouts.is_npz, floats=True),
    "hf": Kind("pai_cli.data.huggingface:open_saved", layouts.is_saved_hf),
    "images": Kind("pai_cli.data.folder:open_tree", layouts.is_image_tree),
}
"""Every kind by name, in the order in which a path is compared with them."""

TAKES = (
    f"{option('data')} takes digits, a CIFAR or MNIST (IDX) folder, an .npz file, a saved Hugging Face data set or a folder "
    "of class folders"
)


def open_dataset(spec: str, *, train: bool = True, normalise: bool = False) -> Dataset:
    """The training part, or the test part, of the data that `spec` names: `digits` or a path.

    `normalise`: standardise values that are floats, which are taken as they are otherwise; others are standardised all the
    same, and it is refused.

    Raises `DataError` when there is none, it is of no known kind, it is damaged, it has no test part, or a package is
    missing. Images in files are read when they are asked for.
    """
    path = Path(spec).expanduser()
    try:
        kind, path = (KINDS[DIGITS], path) if spec == DIGITS else _recognise(path)
        if normalise and not kind.floats:
            raise no_need(spec)
        own = {"normalise": True} if normalise else {}
        module, _, function = kind.opener.partition(":")
        dataset: Dataset = getattr(import_module(module), function)(path, train=train, **own)
    except OSError as e:
        raise DataError(f"{e.filename or spec}: cannot be read: {reason_of(e)}") from e
    return dataset


def _recognise(path: Path) -> tuple[Kind, Path]:
    if not path.exists():
        raise DataError(f"{path}: no such file or folder{hint_at(path)}; {TAKES}")
    inside = layouts.cifar_folders(path)
    if len(inside) > 1:
        names = ", ".join(one.name for one in inside)
        raise DataError(f"{path}: holds several data sets ({names}); give the path of one")
    if inside:
        path = inside[0]
    for kind in KINDS.values():
        if kind.fits(path):
            return kind, path
    if path.suffix.lower() in (".gz", ".tar", ".tgz", ".zip"):
        raise DataError(f"{path}: an archive; unpack it and give the folder")
    what = f": it looks like {looks_like(check_readable(path, DataError))}" if path.is_file() else ""
    raise DataError(f"{path}: no data of a known kind{what}; {TAKES}")
