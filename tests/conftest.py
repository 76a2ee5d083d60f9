"""What several test modules need: a `pai` that runs in this process, a small checkpoint, the files that ship."""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from itertools import count
from pathlib import Path
from typing import Any

# Before NumPy and torch are loaded: on networks as small as a test's, threads spend their time waiting for each other,
# above all where several tests run at once. `pai` itself finds two cores, whatever the machine has.
os.environ.update(OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1", OMP_NUM_THREADS="2")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what is to run in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

import numpy as np
import pytest
import typer.testing
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from pai_cli.app import app
from pai_cli.files.masks import MaskToWrite, write_mask
from pai_cli.methods import plugins
from pai_cli.pruning.streaming import search
from pai_cli.spectral import solvers
from pai_cli.spectral.compiled import calls
from pai_cli.spectral.layout import Layout

ROOT = Path(__file__).parents[1]
CACHES = Path(tempfile.mkdtemp(prefix="pai-tests-"))
os.environ["PAI_CACHE_DIR"] = str(CACHES)  # never the user's own; for fixtures of a whole session
atexit.register(shutil.rmtree, CACHES, ignore_errors=True)
SAMPLES = ROOT / "sample_masks"
NUMBERS = count()  # of folders that tests are given

# Laws are tried on the same few examples each time; HYPOTHESIS_PROFILE=fuzz tries new ones. Neither judges by the clock.
ANY_MACHINE = settings(
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],  # an engine is set up once
)
settings.register_profile("few", ANY_MACHINE, derandomize=True, max_examples=25)
settings.register_profile("fuzz", ANY_MACHINE, derandomize=False, max_examples=200, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "few"))

# A process makes the commands out of their functions once; thousands of runs in one process need not make them anew,
# which takes several times as long as most of what they do.
typer.testing._get_command = cache(typer.testing._get_command)  # type: ignore[attr-defined]

UNSPELLED = re.compile(r"[\ue000-\ue002]|\\ue00[0-2]")  # as it is, or as a control character is spelled out
# All of `st.text()`, which encodes every character there is to find those that it may take: the others are surrogates.
CHARACTERS = st.characters(exclude_categories=("Cs",))

SMALL = "mlp-24-16-12-10"  # 696 prunable weights in three layers


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--engine", choices=("compiled", "arrays"), help="arrays: as if installed without a C compiler")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--engine") == "arrays":
        calls.kernel = search.compiled = None


@dataclass(frozen=True)
class Done:
    """What a command left: its exit status and both streams."""

    status: int
    out: str
    err: str

    @property
    def said(self) -> list[str]:
        """Standard error, line by line."""
        return self.err.splitlines()

    @property
    def words(self) -> str:
        """Standard error without boxes and line breaks, as wrong usage is drawn in a box."""
        return " ".join(self.err.translate(dict.fromkeys(map(ord, "│╭╮╰╯─"), " ")).split())

    def json(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.out)


Pai = Callable[..., Done]


def run_pai(*arguments: object, stdin: str | bytes | None = None) -> Done:
    """Run `pai` with these arguments in this process."""
    result = typer.testing.CliRunner().invoke(app, [str(a) for a in arguments], input=stdin, prog_name="pai")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert not UNSPELLED.search(result.stdout + result.stderr), "a parameter that nobody spelled"
    return Done(result.exit_code, result.stdout, result.stderr)


@pytest.fixture(autouse=True)
def cache_folder(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test's own place for what `pai` keeps of finished work, made when something is kept."""
    folder = CACHES / str(next(NUMBERS))
    monkeypatch.setenv("PAI_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One place for all tests that ask for it: what they measure of the masks that ship is measured by the first.

    And by this very process, as many masks would be by others on more than one core.
    """
    monkeypatch.setenv("PAI_CACHE_DIR", str(CACHES / "measured"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder, as pytest's own: that looks through all there are for a number, and links to the last."""
    folder = tmp_path_factory.getbasetemp() / f"test-{next(NUMBERS)}"
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True, scope="session")
def metadata_is_read_once() -> Iterator[None]:
    """A process reads what other distributions bring once or twice; thousands of runs in one need not, on one path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugins, "entry_points", lambda group: entry_points(group, tuple(sys.path)))
        yield


@cache
def entry_points(group: str, path: tuple[str, ...]) -> metadata.EntryPoints:
    return metadata.entry_points(group=group)


@pytest.fixture(autouse=True, scope="session")
def no_waiting_for_the_disk() -> Iterator[None]:
    """What a test writes need not outlive a power cut; that it would is tested where `os.fsync` is watched."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def pai() -> Pai:
    """`pai("analyze", path, ...)`."""
    return run_pai


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of masks that ships."""
    return SAMPLES


@pytest.fixture(scope="session")
def resnet() -> Path:
    """The checkpoint those masks are of."""
    return SAMPLES / "resnet20.safetensors"


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small MLP's checkpoint; only to be read."""
    path = tmp_path_factory.mktemp("small") / "small.safetensors"
    assert run_pai("init", SMALL, "-o", path).status == 0
    return path


@pytest.fixture
def here(tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder but for `small.safetensors`, so that commands are as a person types them."""
    shutil.copy(small, tmp_path / "small.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def random_mask(shape: tuple[int, ...], density: float = 0.5, seed: int = 0) -> np.ndarray:
    """A boolean array, each element true with probability `density`."""
    return np.random.default_rng(seed).random(shape) < density


def save_mask(
    path: Path,
    masks: dict[str, np.ndarray],
    layouts: dict[str, Layout] | None = None,
    *,
    packed: bool = False,
    **metadata: str,
) -> Path:
    """Write a mask file of `pai`'s own; gives the path back."""
    write_mask(path, MaskToWrite(masks, layouts or {}, metadata), packed=packed, force=True)
    return path


@pytest.fixture(params=["compiled", "arrays"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both engines in turn: the compiled part, and what runs where the package was installed without a compiler."""
    name: str = request.param
    if name == "arrays":
        monkeypatch.setattr(calls, "kernel", None)
    elif not calls.available():
        pytest.skip("the compiled part of the engine is not built: the package was installed without a C compiler")
    return name


@pytest.fixture
def iterate_from_33(monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy arrays of side 33 are iterated too, as the compiled engine does, so that tests need no large matrices."""
    monkeypatch.setattr(solvers, "ARRAY_DIRECT_SIDE", solvers.COMPILED_DIRECT_SIDE)
