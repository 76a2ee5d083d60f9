"""Graphs by themselves as whole files: told from prose and tables, ranked with each other, told of by `pai info`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from conftest import SAMPLES, Pai

import pai_cli as pai_
from pai_cli.display.info import records_of
from pai_cli.errors import EdgeListError
from pai_cli.files.graph_files import GraphFile
from pai_cli.models.info import GraphInfo

TABLES = {
    "prose": ("a.txt", "It was the best\nof times it was\n", "'It was the best' is a line of words, no edge"),
    "one line": ("a.txt", "The quick brown fox jumps\n", "'The quick brown fox jumps' is a line of words, no edge"),
    "three words": ("a.txt", "Hello dear world", "'Hello dear world' is a line of words, no edge"),
    "the last line": ("a.txt", "Hello world\nand all who live in it", "is a line of words, no edge"),
    "sentences": ("a.txt", "Dear all, see below.\nBest wishes, the team, and others\n", "is a line of words, no edge"),
    "accuracies": ("a.csv", "mask,accuracy\na,0.5\nb,0.6\n", "'mask,accuracy', names the columns of a table"),
    "a log": ("a.csv", "epoch,loss\n1,0.5\n2,0.25\n", "'epoch,loss', names the columns of a table"),
    "tabs": ("a.tsv", "gene\tcount\nBRCA1\t17\nTP53\t4\n", "names the columns of a table, not of edges"),
    "points": ("a.csv", "0.5,1.25\n0.25,3.5\n", "column 1 holds numbers with fractions (0.5), not names of vertices"),
}


@pytest.mark.parametrize("which", TABLES)
def test_prose_and_tables_are_no_graphs(which: str, tmp_path: Path, pai: Pai) -> None:
    name, text, told = TABLES[which]
    path = tmp_path / name
    path.write_text(text)
    for command in ("analyze", "info"):
        done = pai(command, path)
        assert (done.status, len(done.said), done.out) == (1, 1, "")
        assert done.said[0].startswith(f"pai: error: {path}: ")
        assert told in done.said[0]
    with pytest.raises(EdgeListError):
        pai_.singular_values(path)
    path.rename(path.with_suffix(".edges"))  # which says what it is
    if which not in ("sentences",):
        assert pai("info", path.with_suffix(".edges"), "--format", "json").json()[0]["kind"] == "graph"


@pytest.mark.parametrize(
    ("name", "text", "edges"),
    [
        ("a.txt", "a b\na c\nb c\n", 3),
        ("a.txt", "1 2\n3 4\n", 2),
        ("a.txt", "1 2 0.5\n3 4 1e-3\n", 2),
        ("a.csv", "source,target\na,1\nb,2\n", 2),
        ("a.csv", "source,target,weight\na,b,1\nb,c,2\n", 2),
        ("a.tsv", "TP53\tMDM2\tbinds strongly\nTP53\tBRCA1\tbinds\n", 2),
        ("a.csv", "ann lee,bob\nann lee,carl\n", 2),
        ("a.txt", "# a comment of many words, and more\na b\n", 1),
        ("a.csv", "1,2\n3,4\n", 2),
    ],
)
def test_lists_of_edges_are_graphs(name: str, text: str, edges: int, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    found = pai_.info(tmp_path / name)
    assert (found.kind, found.format) == ("graph", "list of edges")
    assert found.graph is not None
    assert found.graph.edges == edges


def test_graphs_are_ranked_as_whole_files(tmp_path: Path, pai: Pai) -> None:
    """Their one layer is called as the file is; that, and how the file is written, separates nothing."""
    random = np.random.default_rng(3)
    one, two = (random.permutation(np.repeat([True, False], [600, 600])).reshape(30, 40) for _ in range(2))
    np.save(tmp_path / "one.npy", one)
    scipy.io.mmwrite(tmp_path / "two.mtx", scipy.sparse.coo_matrix(two.astype(float)))
    wide = random.permutation(np.repeat([True, False], [700, 700])).reshape(35, 40)
    scipy.sparse.save_npz(tmp_path / "three.npz", scipy.sparse.csr_matrix(wide))
    files = [tmp_path / name for name in ("one.npy", "two.mtx", "three.npz")]
    for _ in range(2):  # the second time from the store
        done = pai("rank", *files, "--by", "dr", "--format", "json")
        assert done.status == 0
        rows = done.json()
        assert sorted(row["rank"] for row in rows) == [1, 2, 3]
        assert {row["setting"] for row in rows} <= {"", None}
        assert not any("do not compare" in line for line in done.said)
    values = {row["mask"]: row["value"] for row in rows}
    for path, matrix in zip(files, (one, two, wide), strict=True):
        assert values[str(path)] == pytest.approx(pai_.ramanujan(matrix)["dr"].value, abs=1e-9)
    mixed = pai("rank", *files, SAMPLES / "erk-0.05.safetensors", "--by", "dr")
    assert any("masks of 2 settings do not compare" in line for line in mixed.said)


def test_what_info_tells_of_a_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of one that is too large to be made whole."""
    places = np.arange(1000, dtype=np.int64)
    values = np.ones(1000)
    values[:10] = [0, 2, *[1] * 8]
    large = scipy.sparse.coo_matrix((values, (places, places * 900)), shape=(10**6, 10**6))
    scipy.sparse.save_npz(tmp_path / "g.npz", large)
    monkeypatch.setattr(GraphFile, "array", None)
    found = pai_.info(tmp_path / "g.npz")
    assert (found.kind, found.format, found.tensors, found.total, found.kept) == ("graph", "scipy.sparse", (), 0, None)
    assert found.graph == GraphInfo(10**6, 10**6, 999, weighted=True)
    assert found.graph.density == 999 / 10**12
    [row] = records_of(found)
    assert (row["left"], row["right"], row["edges"], row["weighted"]) == (10**6, 10**6, 999, True)
    assert (row["tensors"], row["total"], row["kept"]) == (None, None, None)
