"""Every fuzzer holds on a few fixed seeds, and a case that fails, crashes or hangs is told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz import laws, running, whole
from workers import PATIENCE

# Of kinds whose cases take seconds, those that take least: a law that needs no torch, a network of 8 layers, one lot of
# graphs, configurations that are refused before transformers is imported (test_plain_config.py has others).
SEEDS = {
    "laws": [at for at, law in enumerate(laws.laws()) if law.endswith("::test_any_text_is_read_or_refused")],
    "whole": [at for at, (_, name) in enumerate(whole.CHECKS) if name == "resnet8"],
    "subgraphs": [0],
    "configs": [0, 1],
}


@pytest.mark.parametrize(
    ("kind", "seed"), [(kind, seed) for kind in running.KINDS for seed in SEEDS.get(kind, range(3))]
)
def test_cases_hold(kind: str, seed: int) -> None:
    running.run_case(kind, seed)


def test_every_kind_says_what_it_tries() -> None:
    assert running.KINDS
    assert all(len(seeds) > 0 for seeds in SEEDS.values())
    for kind in running.KINDS:
        assert (Path(running.__file__).parent / f"{kind}.py").read_text().startswith('"""')


FAILING = '''"""Cases that fail, the first two each in its way."""
import os
from pathlib import Path
def case(seed, folder):
    if seed == 2:
        return
    if seed != 3:
        try:
            Path(__file__).with_suffix(".begun").touch(exist_ok=False)
        except FileExistsError:
            os._exit(7)
    raise AssertionError("does not hold")
'''


def test_a_failure_is_told_with_what_repeats_it(tmp_path: Path) -> None:
    copy = tmp_path / "tests"
    shutil.copytree(Path(running.__file__).parent, copy / "fuzz", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (copy / "fuzz").glob("*.py"):
        if path.stem not in running.HELPERS:
            path.unlink()
    (copy / "fuzz" / "failing.py").write_text(FAILING)
    environment = os.environ | {"FUZZ_SECONDS": "0", "FUZZ_JOBS": "2"}
    command = [sys.executable, str(copy / "fuzz")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=PATIENCE, check=False)
    assert done.returncode == 1
    assert 'make fuzz FUZZ="failing ' in done.stdout
    assert "does not hold" in done.stdout
    assert "the process died with exit code 7" in done.stdout
    again = subprocess.run([*command, "failing", "3"], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert "AssertionError: does not hold" in again.stderr
    assert (
        subprocess.run([*command, "failing", "2"], timeout=PATIENCE, check=False, capture_output=True).returncode == 0
    )
    assert subprocess.run([*command, "unheard-of"], timeout=PATIENCE, check=False, capture_output=True).returncode == 2
