"""`pai` as a process of its own, many runs for one start: each is a fork of a process that has imported it already."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PATIENCE = 300.0


@dataclass(frozen=True)
class Call:
    """A command line: its words, its streams' encoding as PYTHONIOENCODING has it, what it reads, where its data go."""

    words: tuple[str, ...]
    encoding: str = "utf-8"
    stdin: str = os.devnull
    stdout: str | None = None  # a file that is there, to be added to
    stderr_is_closed: bool = False


@dataclass(frozen=True)
class Ended:
    """The exit status and both streams, as bytes."""

    status: int
    out: bytes
    err: bytes


def run_each(folder: Path, *runs: Call) -> list[Ended]:
    """Each command line in a process of its own, in the folder where this process is; `folder` is for what they tell."""
    asked = [asdict(run) | {"stdout": run.stdout or str(folder / f"out-{at}")} for at, run in enumerate(runs)]
    given = json.dumps([one | {"stderr": str(folder / f"err-{at}")} for at, one in enumerate(asked)])
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, __file__]
    done = subprocess.run(
        command, env=environment, input=given, stdout=subprocess.PIPE, text=True, timeout=PATIENCE, check=True
    )
    told = zip(json.loads(done.stdout), asked, strict=True)
    return [
        Ended(status, Path(one["stdout"]).read_bytes(), (folder / f"err-{at}").read_bytes())
        for at, (status, one) in enumerate(told)
    ]


def main() -> None:
    """Call what standard input lists; print the statuses."""
    from pai_cli.app import app

    with contextlib.redirect_stdout(io.StringIO()):  # a first run, so that none after it has anything to import
        app(["analyze", str(ROOT / "sample_masks" / "erk-0.05.safetensors"), "--no-store"], standalone_mode=False)
    assert threading.active_count() == 1  # or a fork would lack the others

    runs, statuses = json.load(sys.stdin), []
    for run in runs:
        child = os.fork()
        if not child:
            become(run)
            return
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(json.dumps(statuses))


def become(run: dict[str, str]) -> None:
    """Be `python -m pai_cli` with these words and streams, whose files Python opens when it starts."""
    added = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    for descriptor, path, mode in (
        (0, run["stdin"], os.O_RDONLY),
        (1, run["stdout"], added),
        (2, run["stderr"], added),
    ):
        opened = os.open(path, mode)
        os.dup2(opened, descriptor)
        os.close(opened)
    encoding, _, handled = run["encoding"].partition(":")
    sys.stdin = os.fdopen(0, encoding=encoding, errors=handled or "strict", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding=encoding, errors=handled or "strict", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding=encoding, errors="backslashreplace", closefd=False)
    if run["stderr_is_closed"]:
        os.close(2)
        sys.stderr = None  # type: ignore[assignment]
    sys.argv = ["pai", *run["words"]]
    import pai_cli.__main__

    try:
        pai_cli.__main__.main()
    except SystemExit as leaving:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        os._exit(leaving.code if isinstance(leaving.code, int) else bool(leaving.code))


if __name__ == "__main__":
    main()
