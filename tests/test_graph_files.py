"""Graphs in files of their own: sparse matrices, arrays, lists of edges; measured as they are, refused where they lie."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp
from conftest import Pai
from graphs import biregular

import pai_cli as pai_
from pai_cli.analysis import device_study, engine
from pai_cli.analysis.many import analyze_masks
from pai_cli.analysis.masks import AnalysisRequest, MaskReport
from pai_cli.compute.device import ON_TORCH
from pai_cli.compute.pieces import Outcome
from pai_cli.errors import EdgeListError, MaskError
from pai_cli.files import numbered
from pai_cli.files.bipartite_lists import read_bipartite
from pai_cli.files.graph_files import GraphFile, matrix_in
from pai_cli.files.opening import open_mask
from pai_cli.spectral import inertia, solvers
from pai_cli.spectral.compiled import calls

RNG = np.random.default_rng(3)
MASK = RNG.random((30, 42)) < 0.2
WEIGHTS = np.round(RNG.standard_normal(MASK.shape), 3) * MASK


class Evil:
    def __init__(self, path: str):
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (Path(self.path),))


def written(kind: str, matrix: np.ndarray, path: Path) -> Path:
    """The matrix in a file of this kind."""
    sparse = sp.coo_array(matrix)
    if kind == "npy":
        np.save(path / "g.npy", matrix)
    elif kind == "by columns":
        np.save(path / "g.npy", np.asfortranarray(matrix))
        kind = "npy"
    elif kind == "mtx":
        scipy.io.mmwrite(path / "g.mtx", sparse)
    elif kind == "whole.mtx":
        scipy.io.mmwrite(path / "g.whole.mtx", matrix.astype(float))
    elif kind in ("txt", "csv", "tsv"):
        between = {"txt": " ", "csv": ",", "tsv": "\t"}[kind]
        binary = set(np.unique(matrix).tolist()) <= {0, 1}
        lines = [[str(a), f"x{b}"] for a, b in zip(sparse.row, sparse.col, strict=True)]
        numbers = sparse.data.tolist()
        text = [between.join(one if binary else [*one, str(v)]) for one, v in zip(lines, numbers, strict=True)]
        (path / f"g.{kind}").write_text("\n".join(text))
    else:
        sp.save_npz(path / "g.npz", sparse.asformat(kind))
        kind = "npz"
    return path / f"g.{kind}"


KINDS = ("npy", "by columns", "mtx", "whole.mtx", "txt", "csv", "tsv", "coo", "csr", "csc", "bsr", "dia")


@pytest.mark.filterwarnings("ignore:Constructing a DIA matrix")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_graph_is_measured_as_its_matrix_is(kind: str, weighted: bool, tmp_path: Path) -> None:
    matrix = WEIGHTS if weighted else MASK.astype(np.int8)
    path = written(kind, matrix, tmp_path)
    report = pai_.analyze(path, no_store=True)
    (name,) = report.layers
    assert name == path.stem
    layer = report.layers[name]
    there = matrix != 0
    known = pai_.analyze({"g": there}, {"g": matrix} if weighted else None, no_store=True).layers["g"]
    assert (layer.rows, layer.columns, layer.kept) == (known.rows, known.columns, known.kept)
    for metric in ("sigma_2", "dr", "dr_imdb", "narc", "components", "lambda", "l2"):
        if metric == "components":
            assert layer.components == known.components
        elif known[metric].value is None:
            assert layer[metric].value is None
        else:
            assert layer[metric].value == pytest.approx(known[metric].value, abs=1e-9)
    assert layer["l2_dense"].value is None
    signed = pai_.singular_values(path)
    assert signed.sigma_1 == pytest.approx(np.linalg.svd(matrix.astype(float), compute_uv=False)[0])
    if not weighted:
        assert pai_.ramanujan(path)["dr"].value == pytest.approx(layer["dr"].value)


def test_what_is_weights_is_told(tmp_path: Path, pai: Pai) -> None:
    for number, (matrix, told) in enumerate(
        [
            (MASK.astype(float), "its numbers are 0 and 1: a graph without weights"),
            (np.abs(WEIGHTS), "other numbers than 0 and 1 are taken for weights of edges; what is 0 is no edge"),
            (WEIGHTS, "are taken for weights of edges, signs left out; what is 0 is no edge"),
        ]
    ):
        np.save(tmp_path / f"{number}.npy", matrix)
        done = pai("analyze", tmp_path / f"{number}.npy", "--no-store", "--format", "csv")
        assert done.status == 0
        assert any(told in line for line in done.said), done.said


def test_what_is_stored_as_0_is_no_edge(tmp_path: Path) -> None:
    sparse = sp.csr_array(MASK.astype(float))
    sparse.data[:5] = 0
    sp.save_npz(tmp_path / "g.npz", sparse)
    report = pai_.analyze(tmp_path / "g.npz", no_store=True)
    assert report.layers["g"].kept == MASK.sum() - 5
    assert report.layers["g"]["lambda"].value is None


def test_a_report_that_was_kept_has_the_name_of_its_own_file(tmp_path: Path) -> None:
    for name in ("a.mtx", "b.mtx", "c.dat"):
        with (tmp_path / name).open("wb") as stream:
            scipy.io.mmwrite(stream, sp.coo_array(MASK))
        assert list(pai_.analyze(tmp_path / name, store=tmp_path / "s.db").layers) == [name[0]]


@pytest.mark.skipif(not calls.available(), reason="elimination is in the compiled part")
@pytest.mark.parametrize("summary", [False, True])
def test_what_cannot_be_certified_is_not_told_to_be(
    summary: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pai: Pai
) -> None:
    """Measured, and found in the store: the line is another than of what nobody asked to certify."""
    monkeypatch.setattr(solvers, "PROOF_SIDE", 40)
    scipy.io.mmwrite(tmp_path / "g.mtx", sp.coo_array(biregular(np.random.default_rng(1), 300, 300, 6)))
    words = ("analyze", tmp_path / "g.mtx", *(["--summary"] if summary else []))
    assert pai(*words, "--no-store").said[-1].endswith("pai analyze --certify proves it")
    monkeypatch.setattr(inertia, "MOST_REST", 50)
    monkeypatch.setattr(inertia, "LEAST_ENTRIES", 0)
    for _ in range(2):
        said = pai(*words, "--certify", "--store", tmp_path / "s.db").said
        assert [line for line in said if "--certify" in line] == []
        assert said[-1].endswith("as those of large random graphs do; what is not certified holds all the same")


def test_symmetric_files_are_both_halves(tmp_path: Path) -> None:
    (tmp_path / "s.mtx").write_text(
        "%%MatrixMarket matrix coordinate pattern symmetric\n% a comment\n3 3 3\n1 1\n2 1\n3 2\n"
    )
    graph = open_mask(tmp_path / "s.mtx")
    assert "an entry beside the diagonal stands for two" in graph.remark
    assert np.array_equal(graph.array("s"), [[1, 1, 0], [1, 0, 1], [0, 1, 0]])


def test_skew_symmetric_files_are_both_halves(tmp_path: Path) -> None:
    for kind, text in (("coordinate", "3 3 2\n2 1 1.5\n3 2 -2\n"), ("array", "3 3\n1.5\n0\n-2\n")):
        (tmp_path / "s.mtx").write_text(f"%%MatrixMarket matrix {kind} real skew-symmetric\n{text}")
        graph = open_mask(tmp_path / "s.mtx")
        assert "an entry stands for two, of opposite signs" in graph.remark
        assert np.array_equal(graph.array("s"), [[0, 1, 0], [1, 0, 1], [0, 1, 0]])


BANNER = "%%MatrixMarket matrix coordinate real general\n"
BAD_MARKETS = [
    ("truncated", BANNER + "3 3 3\n1 1 1\n2 2 1\n", r"m\.mtx: ends after 2 of 3 entries; copy it again$"),
    (
        "an array that ends too soon",
        BANNER.replace("coordinate", "array") + "2 2\n1\n2.5\n3\n",
        "ends after 3 of 4 entries; copy it again$",
    ),
    (
        "half of a symmetric array",
        BANNER.replace("coordinate", "array").replace("general", "symmetric") + "2 2\n1.5\n2.5\n",
        "ends after 2 of 3 entries; copy it again$",
    ),
    (
        "symmetric and not square",
        BANNER.replace("general", "symmetric") + "3 2 1\n1 1 1\n",
        "is symmetric, and 3 x 2: no such matrix is; write it again as general$",
    ),
    (
        "a fraction among whole numbers",
        BANNER.replace("real", "integer") + "% 1.5\n3 3 2\n1 1 1\n1 2 1.5\n",
        "line 5 is no whole number, as its banner says; write real in the banner$",
    ),
    (
        "Fortran's exponent",
        BANNER + "3 3 2\n1 1 1\n1 2 1.5D-03\n",
        "line 4 is not row, column and number; write it again$",
    ),
    ("a comma", BANNER + "3 3 2\n1 1 1,7\n1 2 1\n", "line 3 is not row, column and number; write it again$"),
    ("a word too many", BANNER + "3 3 2\n1 1 1 2.5\n1 2 1\n", "line 3 is not row, column and number; write it again$"),
    (
        "weights of a pattern",
        BANNER.replace("real", "pattern") + "3 3 2\n1 1 0.5\n1 2 0.25\n",
        "line 3 is not row and column; write it again$",
    ),
    ("too much", BANNER + "3 3 1\n1 1 1\n\n2 2 1\n", "line 5 comes after all 1 entries that its sizes tell"),
    ("no banner", "3 3 1\n1 1 1\n", "its first line is no banner of a matrix"),
    ("more than it has", BANNER + "3 3 1000000000000\n1 1 1\n", "tells of 1,000,000,000,000 numbers, more than its"),
    (
        "whole, too large",
        BANNER.replace("coordinate", "array") + "100000 100000\n1\n",
        "tells of 10,000,000,000 numbers",
    ),
    ("0 is no index", BANNER + "3 3 2\n0 1 1\n1 1 1\n", r"line 3 is at \(0, 1\), outside 3 x 3; write it again$"),
    ("past the last", BANNER + "3 3 2\n4 1 1\n1 1 1\n", r"line 3 is at \(4, 1\), outside 3 x 3; write it again$"),
    (
        "a diagonal that cannot be",
        BANNER.replace("general", "skew-symmetric") + "% of three\n3 3 3\n2 1 1\n3 3 0\n3 1 2\n",
        r"line 5 is at \(3, 3\), and a skew-symmetric matrix has no entry on its diagonal; write it again$",
    ),
    (
        "a pattern with signs",
        BANNER.replace("real general", "pattern skew-symmetric") + "3 3 1\n2 1\n",
        "is coordinate pattern skew-symmetric, and a pattern tells of places alone",
    ),
    (
        "a pattern without places",
        BANNER.replace("coordinate real", "array pattern") + "2 2\n1\n0\n1\n1\n",
        "is array pattern general, and a pattern tells of places alone",
    ),
    ("twice", BANNER + "3 3 2\n1 1 1\n1 1 1\n", r"has several entries at index \(0, 0\); keep each once"),
    ("complex", BANNER.replace("real", "complex") + "1 1 1\n1 1 1 1\n", "holds complex numbers"),
    ("hermitian", BANNER.replace("general", "hermitian") + "1 1 1\n1 1 1\n", "holds complex numbers"),
    (
        "a vector",
        BANNER.replace("matrix", "vector", 2).replace("Market vector", "Market matrix") + "x",
        "no line of sizes",
    ),
    ("another banner", "%%MatrixMarket graph coordinate real general\n1 1 1\n1 1 1\n", "is no banner of a matrix"),
    ("another symmetry", BANNER.replace("general", "odd") + "1 1 1\n1 1 1\n", "its symmetry is none of"),
    ("no sizes", BANNER + "% only\n", "no line of sizes after its banner"),
    ("not a number", BANNER + "1 1 1\n1 1 nan\n", "NaN"),
    ("text", BANNER + "1 1 1\nx y z\n", "line 3 is not row, column and number; write it again$"),
    ("too large", BANNER.replace("real", "integer") + f"1 1 1\n1 1 {10**30}\n", "no Matrix Market file that SciPy can"),
    ("too wide", BANNER + "3 99999999 1\n1 1 1\n", "a side of 99,999,999 vertices"),
    ("empty", BANNER + "0 0 0\n", "no entry"),
]


@pytest.mark.parametrize(("text", "line"), [row[1:] for row in BAD_MARKETS], ids=[row[0] for row in BAD_MARKETS])
def test_markets_that_lie_are_refused(text: str, line: str, tmp_path: Path, pai: Pai) -> None:
    (tmp_path / "m.mtx").write_text(text)
    done = pai("analyze", tmp_path / "m.mtx", "--no-store")
    assert done.status == 1
    assert len(done.said) == 1
    assert "m.mtx" in done.said[0]
    assert re.search(line, done.said[0]), done.said


def test_arrays_that_lie_are_refused(tmp_path: Path, pai: Pai) -> None:
    np.save(tmp_path / "whole.npy", MASK)
    whole = (tmp_path / "whole.npy").read_bytes()
    np.save(tmp_path / "objects.npy", np.array([[Evil(str(tmp_path / "ran"))]], dtype=object))
    np.save(tmp_path / "complex.npy", np.ones((2, 2), complex))
    np.save(tmp_path / "row.npy", np.ones(7))
    np.save(tmp_path / "none.npy", np.ones((0, 7)))
    (tmp_path / "cut.npy").write_bytes(whole[:-100])
    (tmp_path / "head.npy").write_bytes(whole[:40])
    (tmp_path / "huge.npy").write_bytes(whole.replace(b"(30, 42)", b"(30, 4242424242)", 1))
    for name, line in {
        "objects": "truncated, damaged, or no array of numbers; copy it again",
        "complex": "holds complex128, not real numbers",
        "row": r"an array of shape \(7,\) is no matrix",
        "none": "is no matrix of rows and columns",
        "cut": "truncated, damaged, or no array of numbers; copy it again",
        "head": "truncated, damaged, or no array of numbers; copy it again",
        "huge": "truncated, damaged, or no array of numbers; copy it again",
    }.items():
        done = pai("analyze", tmp_path / f"{name}.npy", "--no-store")
        assert (done.status, len(done.said)) == (1, 1), done.said
        assert re.search(line, done.said[0]), done.said
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        ({"indices": np.full(5, 99)}, "outside its shape"),
        ({"indices": np.full(5, -1)}, "outside its shape"),
        ({"indices": np.zeros(5, float)}, "has indices of shape"),
        ({"indices": np.zeros(4, int)}, "pointers that do not run"),
        ({"indptr": np.array([0, 2, 1, 5])}, "pointers that do not run"),
        ({"indices": np.array([0, 0, 1, 2, 0])}, "several entries at index"),
        ({"shape": np.array([3, 2**40])}, "a side of 1,099,511,627,776 vertices"),
        ({"shape": np.array([2**40, 3])}, "pointers of shape"),
        ({"shape": np.array([3, 3, 3])}, "is no matrix|3 dimensions"),
        ({"data": np.ones(5, complex)}, "holds complex128"),
        ({"data": np.array([1, 2, np.nan, 1, 1])}, "NaN"),
        ({"format": b"xyz"}, "of no sparse matrix of SciPy's"),
    ],
    ids=str,
)
def test_sparse_matrices_that_lie_are_refused(parts: dict[str, Any], line: str, tmp_path: Path) -> None:
    whole = sp.csr_array(np.array([[1, 1, 0], [0, 1, 1], [1, 0, 0]]))
    sp.save_npz(tmp_path / "m.npz", whole)
    with np.load(tmp_path / "m.npz") as held:
        np.savez(tmp_path / "m.npz", **({name: held[name] for name in held.files} | parts))
    with pytest.raises(MaskError, match=line) as told:
        open_mask(tmp_path / "m.npz")
    assert "m.npz" in str(told.value)


TEXT = "source\ttarget\na\t1\t0.5\nb\t1\t2e-1\na\tb\t-3\n"


@pytest.mark.parametrize("compiled", [True, False])
def test_names_of_both_columns_are_apart(compiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setattr(numbered, "compiled", None)
    path = tmp_path / "g.tsv"
    for text, values in (
        (TEXT, [0.5, 0.2, -3.0]),
        (TEXT.replace("\t0.5", "\thigh"), [1, 1, 1]),
        (TEXT.replace("0.5", "0x5"), [1, 1, 1]),
    ):
        path.write_text(text)
        graph = read_bipartite(path)
        assert graph.shape == (2, 2)
        assert sorted(graph.values) == sorted(values)
        whole = np.zeros(graph.shape)
        whole[graph.rows, graph.columns] = 1
        assert sorted(whole.sum(axis=1)) == [1, 2]
        assert "its first line" in graph.told
        assert ("not read" in graph.told) is (values == [1, 1, 1])
    path.write_text("a b\na b\nc b\n")
    graph = read_bipartite(path)
    assert len(graph.rows) == 2
    assert "1 lines tell an edge again" in graph.told
    path.write_text("a b 1\na b 2\n")
    with pytest.raises(EdgeListError, match=r"tells of one edge twice, with weights 1 and 2"):
        read_bipartite(path)
    for number in ("nan", "-inf", "Infinity", "1e999"):
        path.write_text(f"a b 1\na c {number}\n")
        with pytest.raises(EdgeListError, match=f"an edge has the weight {number}; give every edge a finite one"):
            read_bipartite(path)
    path.write_text("a b\nc\n")
    with pytest.raises(EdgeListError, match="line 2: 'c' is no edge"):
        read_bipartite(path)
    path.write_text("source,target\n")
    with pytest.raises(EdgeListError, match="holds no edge"):
        read_bipartite(path)


def test_compiled_and_not_the_same_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain text, and what only Python reads: quotes, other letters, comments between, spaces at the ends."""
    path = tmp_path / "g.csv"
    for text in (
        "a,b,1\nb,c,2\n",
        "a,b,1\r\nb,c,2\r\n",
        "\ufeffa,b\nb,a",
        '"a",b\n# between\nb,é\n',
        "% first\n\n a , b \nb,a\n",
        "a,b,1\nb,c\n",
        "1 2 3 4\n2 3 4 5\n",
        "b a\na c\na b\n",
    ):
        path.write_bytes(text.encode())
        found = read_bipartite(path)
        with monkeypatch.context() as patch:
            patch.setattr(numbered, "compiled", None)
            plain = read_bipartite(path)
        assert (found.shape, found.told) == (plain.shape, plain.told)
        for part in ("rows", "columns", "values"):
            assert np.array_equal(getattr(found, part), getattr(plain, part))


def test_bytes_that_are_no_text_are_told(tmp_path: Path, pai: Pai) -> None:
    (tmp_path / "g.txt").write_bytes(b"a b\n\xff\xfe\x00 c\n")
    done = pai("analyze", tmp_path / "g.txt", "--no-store")
    assert (done.status, len(done.said)) == (1, 1)
    assert "a list of edges is plain text" in done.said[0]


def test_other_files_are_no_graphs(tmp_path: Path) -> None:
    (tmp_path / "net.dat").write_text("a b\n")
    with pytest.raises(MaskError, match="no matrix: give a Matrix Market file"):
        matrix_in(tmp_path / "net.dat")
    with pytest.raises(MaskError, match="no such file"):
        pai_.singular_values(tmp_path / "none.mtx")
    np.savez(tmp_path / "m.npz", w=MASK)
    assert not isinstance(open_mask(tmp_path / "m.npz"), GraphFile)


def test_a_large_sparse_graph_stays_sparse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million rows and columns: nothing of the size of the whole, which 10^12 bits would be, is made."""
    side, edges = 10**6, 3000
    rng = np.random.default_rng(0)
    places = rng.permutation(side)[:edges], rng.permutation(side)[:edges]
    sp.save_npz(tmp_path / "g.npz", sp.coo_array((np.ones(edges), places), shape=(side, side)))
    report = pai_.analyze(tmp_path / "g.npz", no_store=True)
    layer = report.layers["g"]
    assert (layer.rows, layer.columns, layer.kept, layer.components) == (side, side, edges, edges)
    assert layer["sigma_2"].value == 1.0
    with pytest.raises(MaskError, match="too large to be made whole"):
        open_mask(tmp_path / "g.npz").array("g")
    monkeypatch.setattr(engine, "WORTH_THREADS", 2**50)
    assert pai_.analyze(tmp_path / "g.npz", no_store=True).layers["g"].kept == edges


def plain(report: MaskReport) -> Any:
    """What is compared of a report: the layer's numbers."""
    assert report.report is not None, report.error
    (layer,) = report.report.layers
    return layer.name, layer.counts, dict(layer.measures)


@pytest.mark.parametrize("matrix", [MASK, WEIGHTS], ids=["mask", "weights"])
def test_a_graph_is_measured_on_the_cores_wherever_masks_are(matrix: np.ndarray, tmp_path: Path) -> None:
    path = written("mtx", matrix, tmp_path)
    (usual,) = analyze_masks([path], AnalysisRequest())
    request = AnalysisRequest(device=ON_TORCH)
    (found,) = device_study.measured_masks([path], request, lambda *_: None)
    assert plain(found.get()) == plain(usual)
    assert found.get().remark == f"{usual.remark}; a graph by itself is measured on the cores"


class Elsewhere:
    """A pool whose workers see no files: what they get was pickled."""

    workers, shares_files = 2, False

    def map(self, function, common, items):  # type: ignore[no-untyped-def]
        for item in items:
            yield Outcome(function(common, pickle.loads(pickle.dumps(item))))


@pytest.mark.parametrize("kind", ["mtx", "npy", "txt"])
def test_a_graph_travels_with_its_weights(kind: str, tmp_path: Path) -> None:
    """To workers that share no files, and as a mask that a program holds."""
    path = written(kind, WEIGHTS, tmp_path)
    (usual,) = analyze_masks([path], AnalysisRequest())
    assert plain(usual)[2]["lambda"].present
    (found,) = analyze_masks([path], AnalysisRequest(), pool=Elsewhere())
    assert plain(found) == plain(usual)
    held = pai_.analyze(pai_.Mask.load(path), no_store=True)
    assert plain(held.measured) == plain(usual)
