"""SIGTERM and SIGHUP taken as Ctrl-C: at once for what is in no loop of its own, later for what must not be cut in two."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from conftest import ROOT, SAMPLES, Pai

from pai_cli import __main__ as program
from pai_cli.compute import stopping
from pai_cli.display.progress import progress_bar

ALL = [
    (signal.SIGINT, 130, "interrupted"),
    (signal.SIGTERM, 143, "interrupted by SIGTERM"),
]
HAS_SIGHUP = hasattr(signal, "SIGHUP")  # Windows has not
if HAS_SIGHUP:
    ALL.append((signal.SIGHUP, 129, "interrupted by SIGHUP"))

TWICE = """
import os, signal, sys, time
from pai_cli.compute import stopping
stopping.ECHO = float(sys.argv[1])
stopping.listen()
stopping.at_the_end(lambda: print("last", flush=True))
try:
    os.kill(os.getpid(), signal.SIGTERM)
except KeyboardInterrupt as interruption:
    os.kill(os.getpid(), signal.SIGHUP)
    print("tidied up", stopping.status(interruption), flush=True)
"""


CLEARING = """
import os, signal, sys, time
from pai_cli.compute import stopping
stopping.listen()

class Clearing:
    def __init__(self, number):
        self.number = number
    def __del__(self):
        if not self.number:
            raise ValueError("heard")
        os.kill(os.getpid(), self.number)

Clearing(0)
try:
    Clearing(int(sys.argv[1]))  # the interruption cannot be raised
    print("goes on", file=sys.stderr, flush=True)
    Clearing(0)
    time.sleep(100)
except KeyboardInterrupt as interruption:
    print(stopping.told(interruption))
"""


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in stopping.STOPPING}
    for number in stopping.TERMINATING:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(stopping, "_signals", stopping._Signals())
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    stopping.listen()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("listening")
@pytest.mark.parametrize(("number", "status", "told"), ALL)
def test_it_interrupts(number: signal.Signals, status: int, told: str) -> None:
    with pytest.raises(KeyboardInterrupt) as said:
        os.kill(os.getpid(), number)
    assert (stopping.status(said.value), stopping.told(said.value)) == (status, told)


@pytest.mark.usefixtures("listening")
@pytest.mark.parametrize(("number", "status"), [(number, status) for number, status, _ in ALL])
def test_what_a_library_swallows_is_raised_once_more(
    number: signal.Signals, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress_bar("working") as progress:
        progress(0, 9)
        with contextlib.suppress(KeyboardInterrupt):  # as a C library does that clears what a look-up raised
            os.kill(os.getpid(), number)
        progress(1, 9)  # it may be on its way still
        monkeypatch.setattr(stopping, "LOST", 0.0)
        with pytest.raises(KeyboardInterrupt) as said:
            progress(2, 9)
        assert stopping.status(said.value) == status
        progress(3, 9)
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers")
@pytest.mark.parametrize(("number", "told"), [(number, told) for number, _, told in ALL])
def test_where_it_cannot_be_raised_nothing_is_said_and_it_is_raised_later(number: signal.Signals, told: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CLEARING, str(int(number))],
        check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, f"{told}\n")
    before, after = done.stderr.split("goes on\n")
    assert before.startswith("Exception ignored in: ")
    assert before.endswith("ValueError: heard\n")
    assert after == ""


@pytest.mark.usefixtures("listening")
@pytest.mark.parametrize(("number", "status", "told"), ALL)
def test_what_python_makes_another_error_of_is_an_interruption(
    number: signal.Signals, status: int, told: str, pai: Pai, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As before Python 3.12 of one that comes while a class is made, in the midst of an import."""

    def make(*_: object, **__: object) -> None:
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt as interruption:
            raise RuntimeError("Error calling __set_name__") from interruption

    monkeypatch.setattr("pai_cli.api.info.info", make)
    done = pai("info", SAMPLES / "resnet20.safetensors")
    assert (done.status, done.said) == (status, [f"pai: {told}"])
    assert stopping.behind(RuntimeError()) is None


@pytest.mark.usefixtures("listening")
@pytest.mark.parametrize(("number", "status"), [(number, status) for number, status, _ in ALL])
def test_what_typer_takes_for_ctrl_c_ends_as_what_it_was(
    number: signal.Signals, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> None:
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:
            raise SystemExit(130) from None

    monkeypatch.setattr(program, "_run", run)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises((SystemExit, KeyboardInterrupt)) as ended:
        program.main()
    assert getattr(ended.value, "code", 130) == status


@pytest.mark.usefixtures("listening")
def test_it_is_not_lost_with_an_error() -> None:
    def fail() -> None:
        with contextlib.suppress(FileExistsError), stopping.undisturbed():
            os.kill(os.getpid(), signal.SIGINT)
            raise FileExistsError

    with pytest.raises(KeyboardInterrupt):
        fail()


@pytest.mark.parametrize(
    ("echo", "status", "said"), [(60, 0, "tidied up 143\nlast\n"), (0, 129, "last\n")], ids=["echo", "later"]
)
def test_a_second_one_ends_at_once_unless_it_is_an_echo(echo: int, status: int, said: str) -> None:
    command = [sys.executable, "-c", TWICE, str(echo)]
    done = subprocess.run(
        command, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (status, said, "")


@pytest.mark.usefixtures("listening")
@pytest.mark.parametrize("number", stopping.STOPPING)
def test_it_waits_for_the_end_of_what_is_not_to_be_disturbed(number: signal.Signals) -> None:
    handler = signal.getsignal(number)
    done = []

    def work() -> None:
        with stopping.undisturbed():
            os.kill(os.getpid(), number)
            time.sleep(0.001)
            done.append(True)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done
    assert signal.getsignal(number) is handler


@pytest.mark.parametrize("number", stopping.STOPPING)
def test_who_ignores_it_goes_on_ignoring_it(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `nohup` has SIGHUP ignored, and a shell Ctrl-C of what runs in the background."""
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    before = {one: signal.getsignal(one) for one in stopping.STOPPING}
    signal.signal(number, signal.SIG_IGN)
    try:
        stopping.listen()
        for inside in (stopping.undisturbed, stopping.interruptible):
            with inside():
                assert signal.getsignal(number) is signal.SIG_IGN
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@pytest.mark.skipif(not HAS_SIGHUP, reason="no SIGHUP")
def test_a_program_that_hears_sighup_itself_goes_on_hearing_it() -> None:
    """To many it says to read their settings anew; SIGTERM says the same to all."""
    came: list[int] = []
    before = {one: signal.signal(one, lambda number, _: came.append(number)) for one in stopping.TERMINATING}
    try:
        with stopping.interruptible() as interruption:
            os.kill(os.getpid(), signal.SIGHUP)
            assert (came, interruption.asked) == ([signal.SIGHUP], False)
            os.kill(os.getpid(), signal.SIGTERM)
            assert (came, interruption.asked) == ([signal.SIGHUP], True)
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@pytest.mark.usefixtures("listening")
def test_a_training_hears_what_the_command_line_listens_to() -> None:
    for number in stopping.STOPPING:
        with stopping.interruptible() as interruption:
            os.kill(os.getpid(), number)
            assert interruption.asked


def test_handlers_that_a_library_sets_are_undone() -> None:
    before = [signal.getsignal(number) for number in stopping.STOPPING]
    with stopping.handlers_kept():
        for number in stopping.STOPPING:
            signal.signal(number, signal.SIG_IGN)
    assert [signal.getsignal(number) for number in stopping.STOPPING] == before
