"""`python -m pai_cli` and the `pai` script."""

from __future__ import annotations

import io
import os
import sys
import warnings
from pathlib import Path

from pai_cli.compute.stopping import INTERRUPTED, listen, status, status_of_last
from pai_cli.printable import reason_of


def main() -> None:
    """Run the command line; exits with its status."""
    listen()
    try:
        _run()
    except KeyboardInterrupt as interruption:  # while still starting; later the application sees to it
        if status(interruption) != INTERRUPTED:
            sys.exit(status(interruption))
        _end_interrupted()
    except SystemExit as leaving:
        if leaving.code != INTERRUPTED:
            raise
        if status_of_last() != INTERRUPTED:  # Typer takes each for Ctrl-C, until a command runs
            sys.exit(status_of_last())
        _end_interrupted()
    except OSError as error:  # help or the version, and nowhere to write them
        sys.stdout = None
        sys.exit(f"pai: error: standard output: {reason_of(error)}")


def _end_interrupted() -> None:
    """End by the interruption itself, in silence: a shell sees status 130 either way, and stops a loop only for this one."""
    sys.excepthook = lambda *_: None
    raise KeyboardInterrupt from None


def _run() -> None:
    if sys.stdout is None:  # closed, as `>&-` does
        sys.exit("pai: error: standard output is closed; send it to a file or to /dev/null")
    if sys.stderr is None:  # what is said to the person is not to end up in the data
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  open until the end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                errors="backslashreplace"
            )  # a name or a line that the encoding lacks is no reason to stop
    _settle_environment()
    from pai_cli.app import app
    from pai_cli.compute.threads import settle
    from pai_cli.display.console import warn_of

    warnings.showwarning = warn_of
    settle()
    try:
        app(prog_name="pai")
    finally:
        sys.stdout.flush()  # now, where a full disk can still be reported


def _settle_environment() -> None:
    """Forget what libraries would take for a number and fail at, each in its own way, or would take gigabytes for."""
    from pai_cli.spectral.parameters import from_digits

    for name, most in (("COLUMNS", 10_000), ("LINES", 10_000), ("SOURCE_DATE_EPOCH", 10**18)):
        number = from_digits(os.environ.get(name, "0"))
        if number is None or number > most:
            del os.environ[name]
    bash = os.environ.get("_PAI_COMPLETE") == "complete_bash"
    if bash and ("COMP_WORDS" not in os.environ or from_digits(os.environ.get("COMP_CWORD", "")) is None):
        del os.environ["_PAI_COMPLETE"]  # nothing to complete, as bash always says where it is


if __name__ == "__main__":
    main()
