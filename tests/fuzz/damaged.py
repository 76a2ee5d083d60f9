"""Files of every kind that `pai` reads, damaged at random: a command tells one line or reads them, and never stumbles."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import torch
from conftest import SAMPLES, run_pai


def case(seed: int, folder: Path) -> None:
    """A mask file with bytes changed, removed, repeated or cut off, given to `pai analyze`."""
    rng = random.Random(seed)
    whole = _a_file(rng, folder)
    path = folder / f"damaged{whole.suffix}"
    path.write_bytes(damage(whole.read_bytes(), rng))
    done = run_pai("analyze", path, "--summary", "--no-store", "--jobs", 1)
    errors = [line for line in done.said if line.startswith("pai: error:")]
    assert done.status in (0, 1), done
    assert "error: unexpected " not in done.err, done.err
    assert "Traceback" not in done.err + done.out, done.err
    assert len(errors) <= 1, done.err


def damage(data: bytes, rng: random.Random) -> bytes:
    """The bytes with one to four things done to them."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        # Near the beginning stand headers, near the end a zip file's directory.
        spread = rng.choice((len(changed), min(len(changed), 2_000)))
        at = rng.randrange(spread) if rng.random() < 0.7 else max(0, len(changed) - 1 - rng.randrange(spread))
        kind = rng.randrange(5)
        if kind == 0:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[at] = rng.choice((0, 1, 9, 0x1B, 0x22, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            del changed[at : at + rng.choice((1, 4, 100))]
        elif kind == 3:
            changed[at:at] = changed[at : at + rng.choice((1, 8, 300))]
        else:
            del changed[at:]
        if not changed:
            break
    return bytes(changed)


def _a_file(rng: random.Random, folder: Path) -> Path:
    source = rng.choice(sorted(SAMPLES.glob("*-0.02.safetensors")))
    target = rng.choice(("pai", "npz", "torch-prune", "packed", "sparse"))
    if target == "pai":
        return source
    if target == "sparse":
        mask = torch.rand(12, 8, generator=torch.Generator().manual_seed(rng.randrange(99))) < 0.4
        form = rng.choice((mask.to_sparse, mask.to_sparse_csr, mask.to_sparse_csc, lambda: mask.to_sparse_bsr((2, 2))))
        torch.save({"fc.weight": form()}, folder / "a.pt")
        return folder / "a.pt"
    if target == "packed":
        path = folder / "whole.safetensors"
        done = run_pai("convert", source, "--packed", "-o", path)
    elif target == "npz":
        path = folder / "whole.npz"
        done = run_pai("convert", source, "--to", "npz", "-o", path)
    else:
        path = folder / "whole.pt"
        done = run_pai("convert", source, "--to", target, "--weights", SAMPLES / "resnet20.safetensors", "-o", path)
    assert done.status == 0, done.err
    return shutil.move(path, folder / f"a{path.suffix}")
