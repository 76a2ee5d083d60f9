"""Text of any origin as a person can be shown it.

Names of tensors, files and classes, metadata, arguments and other libraries' messages are written by whoever made the
file. Shown as they are they could move the cursor, recolour or retitle a terminal, reverse the line, or fill the screen.
Errors, notes, tables, progress, pictures and pages all come through here.
"""

from __future__ import annotations

import re

LONGEST_WORD = 200  # characters without a space or a slash between them: a longer one is no name that a person reads
SHORT_WORD = 160  # what is left of one; less, so that what is put around it later does not shorten it again
LONGEST_LINE = 1000

LONGEST_MESSAGE = 200  # characters of another library's message

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LONG_WORD = re.compile(rf"[^ /]{{{LONGEST_WORD + 1},}}")
_ENOUGH = 10 * LONGEST_LINE  # characters from either end that a line can be made of


def printable(text: str) -> str:
    """The text with what has no shape of its own spelled out: control characters, line breaks, marks that turn the
    direction of writing, surrogates.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shortened(text: str, longest: int) -> str:
    """The text with its middle left out, where it has more than `longest` characters."""
    if len(text) <= longest:
        return text
    tail = longest // 2
    return f"{text[: longest - tail - 1]}…{text[-tail:]}"


def as_line(text: str) -> str:
    """The text as one printable line that can be read: long words are shortened, then the line, each in its middle.

    A message begins with what is wrong and ends with the remedy, and keeps both. A line stays as it is.
    """
    if len(text) <= LONGEST_WORD and text.isprintable():
        return text
    text = printable(shortened(text, 2 * _ENOUGH + 1))
    return shortened(_LONG_WORD.sub(lambda found: shortened(found[0], SHORT_WORD), text), LONGEST_LINE)


def reason_of(e: BaseException) -> str:
    """What another library, or the system, says of a failure, in one line without the exception's class."""
    return first_line(getattr(e, "strerror", None) or str(e)) or type(e).__name__


def first_line(text: str) -> str:
    """The first line of another library's message, printable, short and without the full stop: names of a file may stand
    in it.
    """
    text = _COLOUR.sub("", text).strip()  # some libraries colour their messages
    return shortened(as_line(text.splitlines()[0]), LONGEST_MESSAGE).rstrip(". ") if text else ""
