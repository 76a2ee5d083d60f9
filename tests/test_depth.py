"""From `pai analyze` to the compiled part: few functions stand between what is asked and what computes it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

import pytest
from conftest import ROOT, Pai

from pai_cli.spectral.compiled import calls

MOST_FUNCTIONS = 10
COMMAND = "pai_cli/commands/analyze.py:analyze"


def functions_of(frame: FrameType | None) -> list[str]:
    """Ours that are under way, the outermost first."""
    found = []
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT / "pai_cli"):
            found.append(f"{path.relative_to(ROOT).as_posix()}:{frame.f_code.co_name}")
        frame = frame.f_back
    return found[::-1]


@pytest.mark.skipif(not calls.available(), reason="the compiled part is not there")
@pytest.mark.parametrize("weighted", [False, True], ids=["mask", "weights"])
def test_ten_functions_from_the_command_to_the_compiled_part(
    pai: Pai, samples: Path, resnet: Path, tmp_path: Path, weighted: bool
) -> None:
    """Of packing a mask's bits, which is the first call, and of every solver: each where it is called first."""
    first: dict[str, list[str]] = {}

    def seen(frame: FrameType, event: str, function: object) -> None:
        if event == "c_call" and getattr(function, "__self__", None) is calls.kernel:
            first.setdefault(function.__name__, functions_of(frame))  # type: ignore[attr-defined]

    more = ("--weights", resnet, "--report", tmp_path / "page.html") if weighted else ()
    sys.setprofile(seen)
    try:
        result = pai("analyze", samples / "erk-0.05.safetensors", "--no-store", *more)
    finally:
        sys.setprofile(None)
    assert result.status == 0, result.stderr
    assert next(iter(first)) == "pack"
    wanted = {"pack", "queue", "work"}
    assert wanted <= first.keys()
    for name in wanted:
        between = first[name][first[name].index(COMMAND) :]
        assert len(between) <= MOST_FUNCTIONS, f"{name}: {' -> '.join(between)}"
        assert between[-1].startswith("pai_cli/spectral/compiled/calls.py:")
