"""What a pickle would do, found out from its instructions without carrying them out.

A pickle is a program for a machine with a stack. Its instructions are followed here with weights in the place of values, so
that what would take time or memory out of proportion to the bytes is refused before an unpickler starts: a key that is built
of itself sixty times over takes 2^60 steps to hash, an index of the memo reserves that many places, a call makes bytes by
number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from pai_cli.files.budget import BudgetError, told

CALLS_ALWAYS, CALLS_FACTOR = 2**20, 16
"""What the calls of a pickle are given may weigh so much, and so many times its bytes: values, and characters of text."""

HEAVIEST = 2**62  # weights end here, where a structure that holds itself would pass any number
HEAVIEST_KEY = 2**12
DEEPEST_TUPLE = 100  # tuples are hashed and written by functions that call themselves
LARGEST_KEY = 2**61  # whole numbers from here on can be chosen so that a dict compares each with all others
LONGEST_NAME = 64
LONGEST_INDEX = 19  # digits

BUILDERS = re.compile(r"torch\.([\w.]*\.)?\w*(Tensor|Storage)|torch\._utils\._rebuild_\w+|torch\._tensor\._rebuild\w+")
"""What of torch makes tensors."""

PLAIN_BUILDERS = frozenset((
    *("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_qtensor", "_rebuild_sparse_tensor"),
    *("_rebuild_parameter", "_rebuild_parameter_with_state", "_rebuild_meta_tensor_no_storage", "_rebuild_from_type_v2"),
))  # fmt: skip
"""Those that a state dict needs; they take no memory but that of storages, which are checked."""

CALLED = re.compile(r"(torch|collections|builtins|__builtin__|_codecs|numpy)\b.*")
"""What unpicklers here would call, or act out; they refuse all other names themselves."""

FIXED = {b"K": 1, b"M": 2, b"J": 4, b"G": 8, b"\x82": 1, b"\x83": 2, b"\x84": 4, b"\x80": 1, b"\x95": 8}
"""Instructions that are followed by so many bytes."""

COUNTED = {
    **{b"U": 1, b"T": 4, b"C": 1, b"B": 4, b"\x8e": 8, b"\x96": 8},
    **{b"\x8c": 1, b"X": 4, b"\x8d": 8, b"\x8a": 1, b"\x8b": 4},
}
"""Instructions that are followed by a length of so many bytes, and then by so many bytes of text or of a number."""

LINES = {b"I": 1, b"L": 1, b"F": 1, b"S": 1, b"V": 1, b"P": 1, b"g": 1, b"p": 1, b"c": 2, b"i": 2}
"""Instructions that are followed by so many lines."""

NUMBERS = (b"K", b"M", b"J", b"\x8a", b"\x8b")


class NonsenseError(ValueError):
    """Instructions that no unpickler can follow."""


ITEM_BYTES = {
    "torch.DoubleStorage": 8, "torch.FloatStorage": 4, "torch.HalfStorage": 2, "torch.BFloat16Storage": 2,
    "torch.LongStorage": 8, "torch.IntStorage": 4, "torch.ShortStorage": 2,
    "torch.ComplexDoubleStorage": 16, "torch.ComplexFloatStorage": 8,
}  # fmt: skip
"""Bytes of one number in torch's kinds of storage; 1 in those that are not listed."""


class _Thing:
    """A value on the stack: how much there is of it, the number that it is, its text or name, and what a tuple holds."""

    __slots__ = ("count", "depth", "items", "name", "number", "weight")

    def __init__(self, weight: int = 1, number: int = 0, name: str = "", items: Sequence[_Thing] = ()):
        self.weight, self.number, self.name, self.items, self.count = weight, number, name, items, len(items)
        self.depth: int = 1 + max(one.depth for one in items) if items else 0

    def add(self, things: Sequence[_Thing]) -> None:
        """Put these into the container."""
        self.weight = min(HEAVIEST, self.weight + sum(one.weight for one in things))
        self.count += len(things)


_SOMETHING = _Thing()  # that nothing is ever put into


def scan(data: Any, begin: int = 0, *, storages: dict[str, int] | None = None) -> int:
    """Follow the pickle that begins there, and give where it ends. `data`: bytes, or a file mapped to memory.

    `storages`: the bytes that it tells of torch's storages are put there, by key. Raises `BudgetError` for a pickle that
    would make more than its bytes allow, `NonsenseError` for one that cannot be followed.
    """
    run = _Run(data, begin, storages)
    try:
        return run.to_its_end()
    except (IndexError, KeyError, UnicodeDecodeError) as e:  # of a stack or memo that lacks what is asked for
        raise NonsenseError("its pickle stream makes no sense") from e


class _Run:
    """A pickle that is being followed, from `at` on."""

    def __init__(self, data: Any, begin: int, storages: dict[str, int] | None):
        self.data, self.begin, self.at = data, begin, begin
        self.storages = storages
        self.stack: list[_Thing] = []
        self.marks: list[list[_Thing]] = []
        self.memo: dict[int, _Thing] = {}
        self.given = 0  # weight of what calls were given

    def to_its_end(self) -> int:
        """The position after its last instruction."""
        data, size = self.data, len(self.data)
        while self.at < size:
            code = data[self.at : self.at + 1]
            self.at += 1
            if code == b".":
                return self.at
            if code in COUNTED:
                self._counted(code)
            elif code in FIXED:
                raw = self._take(FIXED[code])
                if code in NUMBERS or code == b"G":
                    self.stack.append(_Thing(number=_number(code, raw)))
                elif code not in (b"\x80", b"\x95"):
                    raise NonsenseError("its pickle stream names registered extensions")
            elif code in LINES:
                self._lines(code, [self._line() for _ in range(LINES[code])])
            else:
                handler = _HANDLERS.get(code)
                if handler is None:
                    raise NonsenseError("its pickle stream makes no sense")
                handler(self)
        raise NonsenseError("its pickle stream has no end")

    def _take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise NonsenseError(f"its pickle tells of {count:,} bytes where {len(self.data) - self.at:,} follow")
        self.at += count
        raw: bytes = self.data[self.at - count : self.at]
        return raw

    def _line(self) -> bytes:
        end = self.data.find(b"\n", self.at)
        if end < 0:
            raise NonsenseError("its pickle stream makes no sense")
        return self._take(end + 1 - self.at)[:-1]

    def _counted(self, code: bytes) -> None:
        count = int.from_bytes(self._take(COUNTED[code]), "little")
        if code in NUMBERS:
            self.stack.append(_Thing(number=_number(code, self._take(count))))
        elif count <= LONGEST_NAME:
            self.stack.append(_Thing(1 + count, name=self._take(count).decode("utf-8", "replace")))
        elif count > len(self.data) - self.at:
            self._take(count)
        else:
            self.at += count
            self.stack.append(_Thing(1 + count))

    def _lines(self, code: bytes, lines: list[bytes]) -> None:
        first = lines[0]
        if code == b"g":
            self.stack.append(self.memo[_index(first)])
        elif code == b"p":
            self.remember(_index(first))
        elif code in (b"c", b"i"):
            named = _Thing(name=b".".join(lines).decode("utf-8", "replace"))
            if code == b"i":
                self._call(named, _Thing(items=self.pop_mark()))
            else:
                self.stack.append(named)
        elif code in (b"I", b"L"):
            digits = first.rstrip(b"L").lstrip(b"-")
            self.stack.append(
                _Thing(number=int(digits) if digits.isdigit() and len(digits) <= LONGEST_INDEX else HEAVIEST)
            )
        else:
            self.stack.append(_Thing(1 + len(first)))

    def remember(self, index: int) -> None:
        """Give the thing at the top of the stack a number."""
        if not 0 <= index <= self.at:
            raise BudgetError(f"its pickle numbers a thing {index:,}, and has {self.at - self.begin:,} instructions")
        self.memo[index] = self.stack[-1]

    def number(self, count: int) -> int:
        """The number that the next bytes spell."""
        return int.from_bytes(self._take(count), "little")

    def recall(self, count: int) -> None:
        """Push the thing of that number again."""
        self.stack.append(self.memo[self.number(count)])

    def pop_mark(self) -> list[_Thing]:
        """What stands above the last mark."""
        things, self.stack = self.stack, self.marks.pop()
        return things

    def drop_mark(self) -> None:
        """Leave out what stands above the last mark."""
        self.stack = self.marks.pop()

    def tuple_of(self, items: Sequence[_Thing]) -> None:
        """Push a tuple of these."""
        made = _Thing(min(HEAVIEST, 1 + sum(one.weight for one in items)), items=items)
        if made.depth > DEEPEST_TUPLE:
            raise BudgetError(f"its pickle nests tuples more than {DEEPEST_TUPLE} deep")
        self.stack.append(made)

    def put(self, things: Sequence[_Thing], *, keys: Sequence[_Thing] = ()) -> None:
        """Put things into the container at the top of the stack."""
        for key in keys:
            if (key.items and key.weight > HEAVIEST_KEY) or abs(key.number) >= LARGEST_KEY:
                raise BudgetError("its pickle has a key that is built of too many things, or too large a number")
        self.stack[-1].add(things)

    def _call(self, function: _Thing, arguments: _Thing) -> None:
        """Charge a call for what it is given; its result is taken to hold all that."""
        name = function.name
        if BUILDERS.fullmatch(name) and name.rpartition(".")[2] not in PLAIN_BUILDERS:
            raise BudgetError(f"its pickle makes a tensor by {name}, which no state dict needs")
        if name == "torch._tensor._rebuild_from_type_v2" and arguments.items:
            self._call(arguments.items[0], arguments.items[2] if len(arguments.items) > 2 else _SOMETHING)
            self.stack.pop()
        elif CALLED.fullmatch(name):
            by_number = name.endswith((".bytearray", ".bytes"))
            self._charge(arguments.weight + (sum(abs(one.number) for one in arguments.items) if by_number else 0))
        self.stack.append(_Thing(min(HEAVIEST, 1 + arguments.weight)))

    def _charge(self, weight: int) -> None:
        self.given += weight
        limit = CALLS_ALWAYS + CALLS_FACTOR * (self.at - self.begin)
        if self.given > limit:
            raise BudgetError(f"its pickle's calls are given {told(self.given)} values, more than {limit:,}")

    def reduce(self) -> None:
        """Call what stands below the arguments."""
        arguments = self.stack.pop()
        self._call(self.stack.pop(), arguments)

    def new_with_words(self) -> None:
        """Call with positional arguments and named ones."""
        words, arguments = self.stack.pop(), self.stack.pop()
        arguments = _Thing(min(HEAVIEST, words.weight + arguments.weight), items=arguments.items)
        self._call(self.stack.pop(), arguments)

    def new_of_marked(self) -> None:
        """Call the first above the mark with the others."""
        things = self.pop_mark()
        self._call(things[0], _Thing(min(HEAVIEST, sum(one.weight for one in things)), items=things[1:]))

    def build(self) -> None:
        """Give a thing its state, which takes as long as the state has entries, whatever they hold."""
        state = self.stack.pop()
        self._charge(state.count)
        self.stack[-1].weight += 1

    def storage(self) -> None:
        """One of torch's storages by its key: what it says of its length is noted."""
        items = self.stack.pop().items
        if self.storages is not None and len(items) > 4:
            kind, key, count = items[1].name, items[2].name, items[4].number
            self.storages[key] = max(count * ITEM_BYTES.get(kind, 1), self.storages.get(key, 0))
        self.stack.append(_Thing())


def _index(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > LONGEST_INDEX:
        raise NonsenseError("its pickle stream makes no sense")
    return int(digits)


def _number(code: bytes, raw: bytes) -> int:
    return 1 if code == b"G" else int.from_bytes(raw, "little", signed=code not in (b"K", b"M"))


_Handler = Callable[[_Run], None]


def _mark(run: _Run) -> None:
    run.marks.append(run.stack)
    run.stack = []


def _fixed_tuple(count: int) -> _Handler:
    def made(run: _Run) -> None:
        if len(run.stack) < count:
            raise NonsenseError("its pickle stream makes no sense")
        items = run.stack[-count:]
        del run.stack[-count:]
        run.tuple_of(items)

    return made


def _append(run: _Run) -> None:
    thing = run.stack.pop()
    run.put((thing,))


def _set_item(run: _Run) -> None:
    value, key = run.stack.pop(), run.stack.pop()
    run.put((key, value), keys=(key,))


def _set_items(run: _Run) -> None:
    things = run.pop_mark()
    run.put(things, keys=things[::2])


def _add_items(run: _Run) -> None:
    things = run.pop_mark()
    run.put(things, keys=things)


def _made_of_marked(run: _Run, *, every: int) -> None:
    things = run.pop_mark()
    run.stack.append(_Thing())
    run.put(things, keys=things[::every] if every else ())


def _global_of_stack(run: _Run) -> None:
    name, module = run.stack.pop(), run.stack.pop()
    run.stack.append(_Thing(name=f"{module.name}.{name.name}"))


def _pop(run: _Run) -> None:
    if run.stack:
        run.stack.pop()
    else:
        run.pop_mark()


_HANDLERS: dict[bytes, _Handler] = {
    **dict.fromkeys((b"N", b"\x88", b"\x89"), lambda run: run.stack.append(_SOMETHING)),
    **dict.fromkeys((b"]", b"}", b")", b"\x8f"), lambda run: run.stack.append(_Thing())),
    b"(": _mark,
    b"0": _pop,
    b"1": _Run.drop_mark,
    b"2": lambda run: run.stack.append(run.stack[-1]),
    b"t": lambda run: run.tuple_of(run.pop_mark()),
    **{code: _fixed_tuple(count) for code, count in ((b"\x85", 1), (b"\x86", 2), (b"\x87", 3))},
    b"l": lambda run: _made_of_marked(run, every=0),
    b"d": lambda run: _made_of_marked(run, every=2),
    b"\x91": lambda run: _made_of_marked(run, every=1),
    b"a": _append,
    b"e": lambda run: run.put(run.pop_mark()),
    b"s": _set_item,
    b"u": _set_items,
    b"\x90": _add_items,
    b"R": _Run.reduce,
    b"\x81": _Run.reduce,
    b"\x92": _Run.new_with_words,
    b"o": _Run.new_of_marked,
    b"b": _Run.build,
    b"Q": _Run.storage,
    b"\x93": _global_of_stack,
    b"h": lambda run: run.recall(1),
    b"j": lambda run: run.recall(4),
    b"q": lambda run: run.remember(run.number(1)),
    b"r": lambda run: run.remember(run.number(4)),
    b"\x94": lambda run: run.remember(len(run.memo)),
}
