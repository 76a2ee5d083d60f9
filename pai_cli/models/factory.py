"""Networks from the user's own code: `package.module:factory` or `file.py:factory`."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from pai_cli.errors import ModelFactoryError
from pai_cli.files.first_bytes import check_readable
from pai_cli.files.messages import one_line
from pai_cli.files.pickles import importable
from pai_cli.models.copies import copyable
from pai_cli.models.factory_spec import parts_of
from pai_cli.spelling import option


def load_factory(spec: str) -> nn.Module:
    """The network that the factory named by `spec` returns.

    `spec` is `package.module:factory`, looked for in the current folder too, or `file.py:factory`, whose folder can be
    imported from; with arguments where they follow, `file.py:factory(width=8, depth=3)`, which are literals: nothing in
    them is run. The global random numbers are left as they were.

    Raises `ModelFactoryError` when there is no such factory, it fails, or it returns no `nn.Module`.
    """
    parts = parts_of(spec)
    folder = Path.cwd() if parts.file is None else parts.file.resolve().parent
    with importable(folder):
        module = _import_module(spec, parts.where) if parts.file is None else _import_file(spec, parts.file)
        factory = _attribute(spec, module, parts.attribute)
        with torch.random.fork_rng(devices=[]):
            network = _call(spec, functools.partial(factory, *parts.positional, **parts.named), bare=parts.call is None)
    if any(nn.parameter.is_lazy(tensor) for tensor in (*network.parameters(), *network.buffers())):
        raise ModelFactoryError(
            f"{option('model', spec)}: the network has lazy parameters; run a batch through it inside the factory"
        )
    return copyable(network)


def _import_module(spec: str, name: str) -> ModuleType:
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as e:
        raise ModelFactoryError(
            f"{option('model', spec)}: module {name!r} cannot be imported: {one_line(e)}; "
            "run from the folder it is in, or give file.py:factory"
        ) from e


def _import_file(spec: str, path: Path) -> ModuleType:
    if not path.is_file():
        raise ModelFactoryError(f"{option('model', spec)}: no such file: {path}; correct the path before the colon")
    check_readable(path, ModelFactoryError)
    # A name of its own, so that a user's `torch.py` or `models.py` hides no module of that name.
    name = f"_pai_factory_{path.stem}"
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise ModelFactoryError(f"{option('model', spec)}: {path} cannot be imported; give a .py file")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # dataclasses and pickling look their module up there
    try:
        found.loader.exec_module(module)
    except (Exception, SystemExit) as e:
        del sys.modules[name]
        raise ModelFactoryError(
            f"{option('model', spec)}: {path} cannot be imported: {one_line(e)}; correct the file"
        ) from e
    return module


def _attribute(spec: str, module: ModuleType, attribute: str) -> Any:
    try:
        factory = functools.reduce(getattr, attribute.split("."), module)
    except AttributeError as e:
        raise ModelFactoryError(
            f"{option('model', spec)}: no {attribute!r} there; name a function or class that stands in it"
        ) from e
    if not callable(factory):
        raise ModelFactoryError(
            f"{option('model', spec)}: {attribute!r} is of type {type(factory).__name__}, not callable; name a function"
        )
    return factory


def _call(spec: str, factory: Any, *, bare: bool) -> nn.Module:
    try:
        network = factory()
    except (Exception, SystemExit) as e:
        how = "without arguments, which may follow it in brackets" if bare else "with the arguments in brackets"
        raise ModelFactoryError(
            f"{option('model', spec)}: the factory failed: {one_line(e)}; it is called {how}"
        ) from e
    if not isinstance(network, nn.Module):
        raise ModelFactoryError(
            f"{option('model', spec)}: the factory returned {type(network).__name__}; it must return a torch.nn.Module"
        )
    return network
