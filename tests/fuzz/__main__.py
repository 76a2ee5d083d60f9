"""`make fuzz`: new cases of every kind, or of those named, until FUZZ_SECONDS are over; FUZZ="KIND SEED" runs one again.

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
    again = len(asked) == 2 and asked[1].isdecimal()
    if not all(kind in KINDS for kind in (asked[:1] if again else asked)):
        print(f"give nothing, or KIND ..., or KIND SEED; kinds: {', '.join(KINDS)}", file=sys.stderr)
        return 2
    if again:
        return run_again(asked[0], int(asked[1]))
    seconds = float(os.environ.get("FUZZ_SECONDS", "600"))
    return fuzz(asked or list(KINDS), seconds, jobs=int(os.environ.get("FUZZ_JOBS", str(os.cpu_count() or 1))))


if __name__ == "__main__":
    sys.exit(main())
