"""The command line: names the commands, turns what goes wrong into one line and an exit status. Imports nothing heavy."""

from __future__ import annotations

import os
import pkgutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from pai_cli import __version__, commands
from pai_cli.commands.panels import PANEL_OF
from pai_cli.compute import stopping
from pai_cli.display.console import fail_line, note, show_line, show_lines, show_traceback, warn
from pai_cli.display.help import help_text
from pai_cli.display.misuse import wrong_value
from pai_cli.errors import PaiError
from pai_cli.files.provenance import typed_as
from pai_cli.printable import reason_of
from pai_cli.telling import heard_by
from pai_cli.training.ranks import first_here


@dataclass(frozen=True)
class Invocation:
    """What was typed after `pai`, and whether tracebacks are wanted."""

    arguments: tuple[str, ...]
    debug: bool


class PaiCommand(TyperCommand):
    """One command, whose help is a line an option."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, as `pai COMMAND --help` shows it."""
        formatter.write(help_text(ctx, PANEL_OF))


class PaiGroup(TyperGroup):
    """The `pai` command itself: everything that goes wrong below comes through here."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, as `pai --help` shows it."""
        formatter.write(help_text(ctx, PANEL_OF))

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Take --debug from wherever it stands, so that it can be added to the end of a line that failed."""
        typed = tuple(args)
        end = args.index("--") if "--" in args else len(args)  # what follows is never an option
        args = [arg for arg in args[:end] if arg != "--debug"] + args[end:]
        debug = len(args) < len(typed)  # now: what follows takes `--` out of the list
        with _usage_in_one_line():
            context = super().make_context(info_name, args, parent, **extra)
        context.obj = Invocation(typed, debug=debug)
        return context

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an error becomes one line on standard error."""
        try:
            with _usage_in_one_line(), heard_by(note, warn), typed_as(ctx.obj.arguments):
                result = super().invoke(ctx)
            sys.stdout.flush()  # now, where a full disk can still be reported
            return result
        except BrokenPipeError:  # the reader has gone, as `head` does: nothing to say, nobody to say it to
            _settle_stdout()
            raise typer.Exit(1) from None
        except KeyboardInterrupt as interruption:
            raise _interrupted(interruption) from None
        except Exception as error:
            if hasattr(error, "exit_code"):  # the command line library's own: wrong usage, exit
                raise
            if cause := stopping.behind(error):
                raise _interrupted(cause) from None
            if ctx.obj.debug:
                show_traceback()
            fail_line(_one_line(error, ctx.invoked_subcommand))
            _settle_stdout()
            raise typer.Exit(error.status if isinstance(error, PaiError) else 1) from None


def _interrupted(interruption: KeyboardInterrupt) -> typer.Exit:
    """The end of a command that was interrupted, when that is said."""
    status = stopping.status(interruption)
    if first_here():
        note(stopping.told(interruption))
    _leave_threads(status)
    return typer.Exit(status)


@contextmanager
def _usage_in_one_line() -> Iterator[None]:
    """What the command line library says of wrong usage, as every other error is said; its status is 2."""
    try:
        yield
    except Exception as error:
        if getattr(error, "exit_code", None) != 2 or not hasattr(error, "format_message"):
            raise
        text, context = str(error.format_message()), getattr(error, "ctx", None)
        if text.startswith("Usage: "):  # nothing was typed, and that is the help
            show_lines(text, wrong=True)
        else:
            where = "pai" if context is None else context.command_path
            told = wrong_value(error) or f"{text[:1].lower()}{text[1:].rstrip('.')}"
            fail_line(f"{told}; {where} --help lists what it takes")
        raise typer.Exit(2) from None


LESS_MEMORY = {
    "train": "give a smaller --batch-size, or train a smaller network",
    "analyze": "measure fewer layers with --layers",
    "mine": "raise --support, or mine fewer masks or graphs",
}
"""What takes less of it, by command."""


def _one_line(error: Exception, command: str | None) -> str:
    if isinstance(error, PaiError):
        return error.in_shell
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _out_of_memory(str(error))):
        return f"out of memory; {LESS_MEMORY.get(command or '', 'a smaller network takes less')}"
    if isinstance(error, OSError):
        return f"{error.filename or 'standard output'}: {reason_of(error)}"
    text = " ".join(str(error).split())  # all of it: this is a fault of ours
    return f"unexpected {type(error).__name__}: {text}; --debug shows where, and is what a report of this needs"


def _out_of_memory(text: str) -> bool:
    """Whether torch says so; it has no exception of its own for it on a CPU."""
    return "can't allocate memory" in text or "out of memory" in text.lower() or "Storage size" in text


def _leave_threads(status: int) -> None:
    """End now if threads are at work: Python would wait for them, and a large layer takes its time. All that was finished
    is written, and half-written files are gone, by the time the interruption arrives here.
    """
    from pai_cli.compute.threads import still_working

    if still_working():
        stopping.tidy_up()
        _settle_stdout()
        sys.stderr.flush()
        if status != stopping.INTERRUPTED:
            os._exit(status)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)  # as Python itself ends when it is interrupted: a shell then stops its loop


def _settle_stdout() -> None:
    """Write out what is buffered, or where that fails drop it: Python would try again at exit, and complain."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


app = typer.Typer(
    cls=PaiGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: pai analyze sample_masks/synflow-0.05.safetensors",
)


def _version(wanted: bool) -> None:
    if wanted:
        from pai_cli.spectral.compiled.calls import available

        show_line(
            f"pai {__version__} (engine {'compiled' if available() else 'on NumPy: no C compiler at installation'})"
        )
        raise typer.Exit


@app.callback()
def pai(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere on the line.")
    ] = False,
) -> None:
    """Prune neural networks at initialisation: make masks, measure how well connected they are, rank them, find better.

    Data goes to standard output, everything else to standard error. Exit status: 0 done, 1 could not be done,
    2 wrong usage, 130 interrupted (143 by SIGTERM, 129 by SIGHUP), with what was finished kept.
    """


ORDER = (
    "init",
    "prune",
    "analyze",
    "rank",
    "sample",
    "convert",
    "compact",
    "train",
    "mine",
    "info",
    "methods",
    "metrics",
    "models",
)
"""In which help lists the commands; those that are added follow, and `help` itself is last."""


def _commands() -> dict[str, tuple[Any, str]]:
    """The commands of every file in `commands`, each with its example."""
    found: dict[str, tuple[Any, str]] = {}
    for file in pkgutil.iter_modules(commands.__path__):
        found |= getattr(import_module(f"{commands.__name__}.{file.name}"), "COMMANDS", {})
    places = {name: place for place, name in enumerate((*ORDER, *sorted(found.keys() - {*ORDER, "help"}), "help"))}
    return dict(sorted(found.items(), key=lambda one: places[one[0]]))


for _name, (_function, _example) in _commands().items():
    app.command(_name, cls=PaiCommand, epilog=f"Example: {_example}")(_function)
