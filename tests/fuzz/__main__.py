"""`make fuzz`: new cases of every kind until FUZZ_SECONDS are over; `make fuzz FUZZ="KIND SEED"` runs one again.

A kind is a module beside this one with `case(seed, folder)`: it makes one input from the seed, in an empty folder, and
raises when what must hold does not. Each case runs in a worker, so that one that crashes, hangs or takes the machine's
memory is a failure like any other, told with its seed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from fuzz.running import KINDS, fuzz, run_again  # noqa: E402  found on the path above


def main() -> int:
    """The exit status: 1 when any case failed."""
    asked = sys.argv[1:]
    wrong = [kind for kind in asked[:1] if kind not in KINDS]
    if wrong or len(asked) > 2 or not all(seed.isdecimal() for seed in asked[1:]):
        print(f"give nothing, or KIND, or KIND SEED; kinds: {', '.join(KINDS)}", file=sys.stderr)
        return 2
    if len(asked) == 2:
        return run_again(asked[0], int(asked[1]))
    seconds = float(os.environ.get("FUZZ_SECONDS", "600"))
    return fuzz(asked or list(KINDS), seconds, jobs=int(os.environ.get("FUZZ_JOBS", str(os.cpu_count() or 1))))


if __name__ == "__main__":
    sys.exit(main())
