"""What masks are ordered by: a metric, or arithmetic of several, read by a small grammar and never run as code.

    sum     = product (("+" | "-") product)*
    product = sign (("*" | "/") sign)*
    sign    = ("+" | "-") sign | part
    part    = number | metric | function "(" sum ("," sum)* ")" | "(" sum ")"

Functions are abs, sqrt and norm (the root of the sum of squares, of any number of parts). A composite is taken of the
networks' means, not layer by layer; its error bound covers those of its metrics and the rounding.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property

from pai_cli.errors import CompositeError, UnknownMetricError
from pai_cli.ranking.intervals import (
    Bounded,
    NoValueError,
    absolute,
    add,
    divide,
    multiply,
    negate,
    norm,
    root,
    subtract,
)
from pai_cli.spectral.catalogue import BETWEEN, PATHS, RANKED, Metric
from pai_cli.spectral.result import Measure
from pai_cli.spelling import option

LARGEST = 1e150  # of a value and its bound: differences and squares of such stay within float64
MOST_NESTED = 50  # parentheses within parentheses, signs before signs

Values = Mapping[str, Measure]
Term = Callable[[Values], Bounded]

_WORD = re.compile(r"[^\W\d]\w*")
_TOKEN = re.compile(
    rf"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>{_WORD.pattern})|(?P<sign>[-+*/(),]))"
)
_FUNCTIONS: dict[str, tuple[Callable[[list[Bounded]], Bounded], int | None]] = {
    "abs": (lambda parts: absolute(parts[0]), 1),
    "sqrt": (lambda parts: root(parts[0]), 1),
    "norm": (norm, None),
}


@dataclass(frozen=True)
class Score:
    """What orders masks. `name`: as it was typed; `metrics`: the names it is made of; `larger_is_better`: its direction."""

    name: str
    metrics: tuple[str, ...]
    larger_is_better: bool
    _term: Term | None = None

    @cached_property
    def composite(self) -> bool:
        """Whether it is arithmetic, not a metric by its name."""
        return self._term is not None

    def measure(self, values: Values) -> Measure:
        """Its value for a mask with these, or the reason why there is none."""
        if self._term is None:
            return value_of(self.metrics[0], values)
        try:
            return _comparable(self._term(values).measure())
        except NoValueError as missing:
            return Measure.missing(str(missing))

    @property
    def unit(self) -> str:
        """What it is a mean over: pairs of layers where all of it is between layers."""
        return "pairs" if all(metric in BETWEEN for metric in self.metrics) else "layers"

    def layers(self, counted: Mapping[str, int]) -> int | None:
        """Over how many layers, or pairs of them, it is a mean: the fewest of its metrics'; None where that is not known."""
        known = [counted[name] for name in self.metrics if name in counted]
        return min(known) if known else None


def value_of(name: str, values: Values) -> Measure:
    """The value of that name, or the reason why there is none."""
    return _comparable(values.get(name, Measure.missing("not measured")))


def score_of(text: str, known: Mapping[str, Metric]) -> Score:
    """The score that `text` names or spells. `known`: the metrics there are.

    Raises `UnknownMetricError` for a metric that there is not and `CompositeError` for what is not in the grammar.
    """
    name = text.strip()
    if name in known:
        return Score(name, (name,), known[name].larger_is_better)
    if name.isidentifier():
        raise UnknownMetricError(
            f"unknown metric {name!r}: {_hint(name, known)}{option('by')} takes {', '.join(known)}"
        )
    reader = _Reader(text, known)
    term = reader.whole()
    if not reader.used:
        raise CompositeError(f"{option('by', repr(text))}: names no metric, so it is the same for every mask")
    return Score(name, tuple(reader.used), True, term)


def words_in(text: str) -> set[str]:
    """What may be names of metrics in a text for `score_of`: all of it, and its words."""
    return {text.strip(), *_WORD.findall(text)}


def metric_score(name: str | None, *, weights: bool, network: bool) -> Score:
    """The score for masks: what `name` says, or l2 with weights and dr_imdb without.

    Raises as `score_of` does, and `UnknownMetricError` for a metric that needs weights, or the network, when there is none.
    """
    score = score_of(("l2" if weights else "dr_imdb") if name is None else name, RANKED)
    for metric in score.metrics:
        what = f"{option('by', repr(name))}: {metric}" if score.composite else f"{option('by', name)}:"
        if RANKED[metric].needs_weights and not weights:
            raise UnknownMetricError(f"{what} needs the weights; give {option('weights', 'CKPT')}")
        if RANKED[metric].needs_network and not network:
            raise UnknownMetricError(
                f"{what} needs the network; give {option('weights', 'CKPT')} or {option('model', 'NAME')}"
            )
    return score


def needs_network(scores: Iterable[Score]) -> bool:
    """Whether the network must be known for any of them."""
    return any(RANKED[metric].needs_network for score in scores for metric in score.metrics)


def needs_paths(scores: Iterable[Score]) -> bool:
    """Whether any of them is of the paths through the network."""
    return any(metric in PATHS for score in scores for metric in score.metrics)


def needs_pairs(scores: Iterable[Score]) -> bool:
    """Whether any of them is of what is between layers."""
    return any(metric in BETWEEN for score in scores for metric in score.metrics)


def _comparable(measure: Measure) -> Measure:
    if max(abs(measure.value or 0.0), measure.error or 0.0) > LARGEST:
        return Measure.missing(f"too large to compare: past {LARGEST:g}")
    return measure


def _hint(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]}? " if close else ""


class _Reader:
    """Reads an expression from left to right, keeping the place for messages."""

    def __init__(self, text: str, known: Mapping[str, Metric]):
        self._text, self._known = text, known
        self._tokens = list(self._split())
        self._at = 0
        self._depth = 0
        self.used: dict[str, None] = {}

    def whole(self) -> Term:
        """The term of the whole text."""
        term = self._sum()
        kind, token, _ = self._tokens[self._at]
        if kind != "end":
            raise self._error(f"{token!r} where an operator or the end is expected")
        return term

    def _split(self) -> Iterable[tuple[str, str, int]]:
        place = 0
        end = len(self._text.rstrip())
        while place < end:
            match = _TOKEN.match(self._text, place)
            if match is None:
                place += len(self._text[place:]) - len(self._text[place:].lstrip())
                raise CompositeError(
                    f"{option('by', repr(self._text))}: character {place + 1}: {self._text[place]!r} means nothing here"
                )
            assert match.lastgroup is not None
            yield match.lastgroup, match[match.lastgroup], match.start(match.lastgroup)
            place = match.end()
        yield "end", "the end", end

    def _error(self, what: str) -> CompositeError:
        return CompositeError(f"{option('by', repr(self._text))}: character {self._tokens[self._at][2] + 1}: {what}")

    def _next(self) -> tuple[str, str]:
        kind, token, _ = self._tokens[self._at]
        self._at += kind != "end"
        return kind, token

    def _took(self, *signs: str) -> str | None:
        """The sign that comes next, if it is one of these."""
        kind, token, _ = self._tokens[self._at]
        if kind != "sign" or token not in signs:
            return None
        self._at += 1
        return token

    def _sum(self) -> Term:
        return self._chain(self._product, {"+": add, "-": subtract})

    def _product(self) -> Term:
        return self._chain(self._sign, {"*": multiply, "/": divide})

    def _chain(self, part: Callable[[], Term], operations: dict[str, Callable[[Bounded, Bounded], Bounded]]) -> Term:
        first = part()
        rest: list[tuple[Callable[[Bounded, Bounded], Bounded], Term]] = []
        while sign := self._took(*operations):
            rest.append((operations[sign], part()))
        if not rest:
            return first

        def term(values: Values) -> Bounded:
            found = first(values)
            for operation, other in rest:
                found = operation(found, other(values))
            return found

        return term

    def _sign(self) -> Term:
        self._depth += 1
        if self._depth > MOST_NESTED:
            raise self._error(f"nested more than {MOST_NESTED} deep")
        sign = self._took("+", "-")
        part = self._sign() if sign else self._part()
        self._depth -= 1
        return (lambda values: negate(part(values))) if sign == "-" else part

    def _part(self) -> Term:
        if self._took("("):
            inner = self._sum()
            self._close()
            return inner
        kind, token = self._tokens[self._at][:2]
        if kind == "number":
            return self._number()
        if kind != "name":
            raise self._error(f"{token if kind == 'end' else repr(token)} where a metric, a number or ( is expected")
        after = self._tokens[self._at + 1]
        return self._call() if after[1] == "(" else self._metric()

    def _number(self) -> Term:
        value = float(self._tokens[self._at][1])
        if value == float("inf"):
            raise self._error("a number past the range of float64")
        self._next()
        constant = Bounded(value, value, value)
        return lambda _: constant

    def _metric(self) -> Term:
        name = self._tokens[self._at][1]
        if name not in self._known:
            raise UnknownMetricError(
                f"{self._error(f'unknown metric {name!r}').text}: {_hint(name, self._known)}{option('by')} takes "
                f"{', '.join(self._known)}"
            )
        self._next()
        self.used[name] = None

        def term(values: Values) -> Bounded:
            measure = values.get(name, Measure.missing("not measured"))
            if measure.reason is not None:
                raise NoValueError(f"no {name}: {measure.reason}")
            return Bounded.of(measure)

        return term

    def _call(self) -> Term:
        name = self._tokens[self._at][1]
        if name not in _FUNCTIONS:
            raise self._error(f"unknown function {name!r}; there are {', '.join(_FUNCTIONS)}")
        function, arity = _FUNCTIONS[name]
        self._at += 2
        parts = [self._sum()]
        while self._took(","):
            if arity == len(parts):
                self._at -= 1
                raise self._error(f"{name} takes one part")
            parts.append(self._sum())
        self._close()
        return lambda values: function([part(values) for part in parts])

    def _close(self) -> None:
        if not self._took(")"):
            kind, token, _ = self._tokens[self._at]
            raise self._error(f"{token if kind == 'end' else repr(token)} where ) is expected")
