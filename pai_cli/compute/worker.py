"""The other end of `processes`: what a worker process does. Imports nothing heavy, so that it is quick to start."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread
from typing import Any

from pai_cli.compute.pieces import Outcome, attempt
from pai_cli.compute.stopping import STOPPING
from pai_cli.compute.threads import settle

Message = tuple[bool, bytes]  # whether it is the function with what is common, and that or an item, pickled


def serve(connection: Connection) -> None:
    """Do the pieces that come, one after the other, until the parent is gone or has no more."""
    for number in STOPPING:  # Ctrl-C, and a terminal's end, reach all its processes; the parent sees to them
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # whatever was inherited
    os.dup2(2, 1)  # standard output is the parent's data
    settle()
    messages: SimpleQueue[Message] = SimpleQueue()
    Thread(target=_receive, args=(connection, messages), daemon=True).start()
    function: Callable[[Any, Any], Any] = _nothing
    common: Any = None
    while True:
        is_common, message = messages.get()
        if is_common:
            function, common = unpickled(message)
            continue
        answer = answered(function, common, message)
        try:
            connection.send_bytes(answer)
        except OSError:  # the parent is gone
            os._exit(1)


def _receive(connection: Connection, messages: SimpleQueue[Message]) -> None:
    """Read ahead, so that the parent never waits for a worker that is busy; and end with the parent, whatever it died of."""
    try:
        while True:
            message = connection.recv_bytes()
            messages.put((message[:1] == COMMON, message[1:]))
    except (EOFError, OSError):
        os._exit(0)


COMMON, ITEM = b"c", b"i"  # a message begins with what it is


def unpickled(message: bytes) -> tuple[Callable[[Any, Any], Any], Any]:
    """The function and what is common; where they cannot be had, a function that raises why."""
    try:
        function, common = pickle.loads(message)
    except Exception as error:
        return _raise, error
    return function, common


def answered(function: Callable[[Any, Any], Any], common: Any, message: bytes) -> bytes:
    """The outcome of one piece, pickled, as its item came; an error that cannot be pickled is told in words."""
    try:
        outcome = attempt(function, common, pickle.loads(message))
    except Exception as error:  # of an item that cannot be had
        outcome = Outcome(None, error)
    try:
        answer = pickle.dumps(outcome, pickle.HIGHEST_PROTOCOL)
        if outcome.error is not None:
            pickle.loads(answer)  # many an exception can be written and not read
    except Exception as error:
        told = outcome.error or error
        answer = pickle.dumps(Outcome(None, RuntimeError(f"{type(told).__name__}: {told}")), pickle.HIGHEST_PROTOCOL)
    return answer


def _nothing(_common: Any, _item: Any) -> Any:
    raise RuntimeError("an item came before the function")


def _raise(error: Exception, _item: Any) -> Any:
    raise error
