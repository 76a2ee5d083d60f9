"""The compiled reader of lists of edges: it reads as Python does, whatever the names, and refuses wrong arguments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from threading import Thread

import numpy as np
import pytest

from pai_cli.errors import EdgeListError
from pai_cli.files import numbered
from pai_cli.files.bipartite_lists import read_bipartite
from pai_cli.files.edge_lists import line_by_line, text_of
from pai_cli.files.numbered import Names
from pai_cli.mining.collection import Collection
from pai_cli.mining.opening import graph_collection

compiled = pytest.mark.skipif(numbered.compiled is None, reason="the compiled reader is not built")


def by_python(call: Callable[[], Collection]) -> Collection:
    """As where the package was installed without a compiler."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numbered, "compiled", None)
        return call()


NAMES = [letter * length for letter in "ab" for length in (1, 7, 8, 9, 15, 16, 17, 40)] + [
    "1",
    "b#",
    "source",
    "target",
]
ODD = ["", '"', "#a", "a b", "a,b", "a\tb", "a\0", "\x7f", "\x0b", "a\rb", "a\nb", "\xa0", "é", "名", "\udc80"]


@compiled
@pytest.mark.parametrize("seed", range(100))
def test_what_is_taken_is_read_as_line_by_line(seed: int) -> None:
    """Texts that are read together; the names of one that is left to Python half-way change nothing."""
    draw, known = Random(seed), Names()
    for _ in range(5):
        sign, columns, names = draw.choice("\t, "), draw.choice((2, 3)), draw.choice((NAMES, NAMES, NAMES + ODD))
        cells = [[draw.choice(names) for _ in range(columns)] for _ in range(draw.randint(1, 9))]
        raw = "".join(f"{sign.join(row)}\n" for row in cells).encode("utf-8", "surrogateescape")
        found = numbered.numbered(raw, known)
        if found is not None:
            wanted = line_by_line(Path("g"), text_of(raw))
            assert [found.names[k] for k in found.ends.ravel().tolist()] == wanted.names
            assert (found.most, found.heading) == (wanted.most, wanted.heading)
        else:
            assert not {name for row in cells for name in row} <= set(NAMES)


LONG = "x" * 2**20
TOGETHER = [
    b"a b\nb c\nc d\nd d\n",
    b"a\tb\nb\tc\n",
    b"e,f\nf,f\nb,a\n",
    b'a b\nnobody "b c"\n',  # left to Python at its second line
    "a\u00a0b\tc\nna\u00efve\t\u540d\u524d\n".encode(),
    b"a\0x b\nb \0\n",
    f"{LONG} {LONG}y\n{LONG}y b\n".encode(),
    b"source target\nb a\n",
    b"# a z\nb\ta\nz\tz\n",
]


def test_files_of_any_names_are_one_collection(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.txt" for number in range(len(TOGETHER))]
    for path, text in zip(paths, TOGETHER, strict=True):
        path.write_bytes(text)
    told: list[str] = []
    found = graph_collection(paths, told.append)
    again: list[str] = []
    plain = by_python(lambda: graph_collection(paths, again.append))
    assert told == again
    every = np.arange(found.edges)
    labels = found.labels(every)
    assert labels == plain.labels(every)
    assert (found.ends == plain.ends).all()
    assert (found.holders == plain.holders).all()
    vertices = {
        "a",
        "b",
        "c",
        "d",
        "e",
        "f",
        "b c",
        "nobody",
        "a\xa0b",
        "na\xefve",
        "名前",
        "a\0x",
        "\0",
        LONG,
        LONG + "y",
    }
    assert found.possible == plain.possible == (len(vertices) * (len(vertices) - 1) // 2,)
    held = [{label for label, there in zip(labels, found.held_by(k), strict=True) if there} for k in range(len(paths))]
    assert held[:4] == [{"a--b", "b--c", "c--d"}, {"a--b", "b--c"}, {"e--f", "a--b"}, {"a--b", "b c--nobody"}]
    assert held[4:6] == [{"a\xa0b--c", "na\xefve--名前"}, {"a\0x--b", "\0--b"}]
    assert held[6] == {f"{LONG}--{LONG}y", f"b--{LONG}y"}
    assert held[7:] == [{"a--b"}] * 2


@pytest.mark.parametrize(
    "raw",
    [
        *(b"a b\n\xff b\n", b"a b\nc \xc3\n", b"a b\nc\n", b'a b\n"c d\n', b"a,b\n,c\n", b"a a\n"),
        *(b"source\ttarget\t\xff\na\tb\t1\n", b'source\ttarget\t"w\na\tb\t1\n'),
    ],
)
def test_faults_are_told_alike(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "g").write_bytes(raw)
    told = []
    for read in (lambda call: call(), by_python):
        with pytest.raises(EdgeListError) as caught:
            read(lambda: graph_collection([tmp_path / "g"], lambda _: None))
        told.append(str(caught.value))
    assert told[0] == told[1]


@pytest.mark.parametrize(
    "first", [b"# \xe9\n", b"a b\n# \xe9\n", b"#\n" * 2**20, b"\n" * 2**20, b'a b\n"b" c\n' + b"#\n" * 2**20]
)
def test_comments_are_passed_over_whatever_they_are(first: bytes, tmp_path: Path) -> None:
    """Those that are no UTF-8 as well, and a million of them."""
    (tmp_path / "g").write_bytes(first + b"a c\n")
    for read in (lambda call: call(), by_python):
        found = read(lambda: graph_collection([tmp_path / "g"], lambda _: None))
        assert found.labels(np.arange(found.edges))[-1:] == ["b--c" if b'"' in first else "a--c"]
    shapes = [read_bipartite(tmp_path / "g").shape]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numbered, "compiled", None)
        shapes.append(read_bipartite(tmp_path / "g").shape)
    assert shapes[0] == shapes[1]


def texts(text: str, *, apart: int = 0, table: object = None) -> tuple[object, np.ndarray]:
    """What the compiled part says of a text with blanks, and the numbers."""
    ends = np.empty((text.count("\n"), 2), np.int32)
    table = table or numbered.compiled.table()
    raw = np.frombuffer(text.encode(), np.uint8)
    return numbered.compiled.number(raw, ends, np.empty(0), table, 2, ord(" "), apart), ends


@compiled
def test_lists_with_many_names(tmp_path: Path) -> None:
    """Names that share beginnings, lengths and words of eight letters are told apart; the table of names grows."""
    names = [f"{'x' * (k % 20)}{k}" for k in range(5000)]
    text = "".join(f"{name} {names[(7 * k) % 5000]}\n" for k, name in enumerate(names))
    count, ends = texts(text)
    assert count == 5000
    table = numbered.compiled.table()
    assert texts(text, table=table)[0] == texts(text, table=table)[0] == 5000
    listed = numbered.compiled.names(table, 0).decode().split()
    assert [listed[k] for k in ends.ravel()] == text.split()
    assert numbered.compiled.names(table, 4999).decode().split() == listed[4999:]
    assert numbered.compiled.names(table, 5000) == b""
    assert texts(text, apart=1)[0] == 10_000
    (tmp_path / "g.txt").write_text(text)
    assert read_bipartite(tmp_path / "g.txt").shape == (5000, 5000)


@compiled
def test_names_of_one_hash_are_told_apart() -> None:
    """Among so many names a few pairs have the same 32 bits."""
    count, ends = texts("".join(f"{k} n{k}\n" for k in range(150_000)))
    assert count == 300_000
    assert (ends.ravel() == np.arange(300_000)).all()


@compiled
def test_wrong_arguments_end_before_the_reader() -> None:
    text = np.frombuffer(b"a b\n", np.uint8)
    numbers, values, table = np.empty((1, 2), np.int32), np.empty(0), numbered.compiled.table()
    number, names = numbered.compiled.number, numbered.compiled.names
    assert number(text, numbers, values, table, 2, 32, 0) == 2
    for arguments in (
        (text[:3], numbers, values, table, 2, 32, 0),
        (text[:0], numbers, values, table, 2, 32, 0),
        (text, np.empty((2, 1), np.int32), values, table, 2, 32, 0),
        (text, numbers, np.empty(1), table, 2, 32, 0),
        (text, numbers, np.empty(2), table, 3, 32, 0),
        (text, numbers, values, None, 2, 32, 0),
        (text, numbers, values, numbers, 2, 32, 0),
        (text, numbers, values, table, 1, 32, 0),
        (text, numbers, values, table, 2, 0, 0),
        (text, numbers, values, table, 2, 32, 2),
    ):
        with pytest.raises(ValueError):  # noqa: PT011  each of its own text
            number(*arguments)
    for wrong in ((None, 0), (table, -1), (table, 3)):
        with pytest.raises(ValueError):  # noqa: PT011
            names(*wrong)
    for short in ((table,), (table, 0, 0)):
        with pytest.raises(TypeError):
            names(*short)
    for lines in (0, 2, 7):  # fewer or more than the text has
        assert number(text, np.empty((lines, 2), np.int32), values, table, 2, 32, 0) is None
    for odd in ('"a b\n', "a  b\n", "#a b\n", "a b c\n", "a\n", "é b\n", "a b\n\n", " a b\n", "a b \n", "a\0 b\n"):
        assert texts(odd)[0] is None
    assert names(table, 0).split() == [b"a", b"b"]


@compiled
def test_a_table_is_of_one_thread_at_a_time() -> None:
    table, text = numbered.compiled.table(), "a b\n" * 2**18
    for _ in range(100):
        thread = Thread(target=texts, args=(text,), kwargs={"table": table})
        thread.start()
        told = said_while(thread, lambda: numbered.compiled.names(table, 0))
        thread.join()
        if told:
            break
    assert told == "table: another thread is at it"


def said_while(thread: Thread, call: Callable[[], object]) -> str:
    """What a call says that is made again and again until it is refused; "" where the thread has ended before."""
    while thread.is_alive():
        try:
            call()
        except ValueError as error:
            return str(error)
    return ""
