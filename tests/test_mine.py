"""`pai mine`: networks and lists of edges as graphs, overlap and chance, the consensus, the command."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import signal
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path

import copies
import numpy as np
import pytest
from conftest import Pai, random_mask, save_mask
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from workers import wait_until

from pai_cli.display import mining
from pai_cli.errors import EdgeListError, MaskMismatchError, TraceError
from pai_cli.files import edge_lists
from pai_cli.files.edge_lists import EdgeList, read_edge_list
from pai_cli.files.masks import MaskFile, MaskToWrite, write_mask
from pai_cli.files.numbered import Names
from pai_cli.mining import run
from pai_cli.mining.collection import Collection
from pai_cli.mining.graphs import collection_of_graphs
from pai_cli.mining.networks import collection_of_masks
from pai_cli.mining.overlap import chance_of, overlaps, shared_edges
from pai_cli.mining.parts import Part
from pai_cli.mining.search import Occurrence, Wanted
from pai_cli.mining.wiring import Wiring, named_wiring, traced_wiring
from pai_cli.spectral.layout import PLAIN, Layout

KNOWN = ("resnet20", "resnet20-1x1", "resnet18", "resnet50-3x3", "wrn-16-1", "lenet-5", "vgg11-bn", "mlp-24-16-12-10")


def same_vertices(one: Wiring, other: Wiring, names: list[str]) -> bool:
    """Whether two wirings draw the same units together, whatever their numbers."""
    left, right = (
        np.concatenate([ends[name] for name in names for ends in (wiring.outputs, wiring.inputs)])
        for wiring in (one, other)
    )
    pairs = len(np.unique(np.stack([left, right]), axis=1).T)
    return pairs == len(np.unique(left)) == len(np.unique(right))


@pytest.mark.parametrize("name", KNOWN)
def test_names_tell_the_wiring_that_following_the_network_finds(name: str) -> None:
    from pai_cli.models.network import init_network
    from pai_cli.models.trace import trace

    network = init_network(name, 10, 0)
    shapes = {layer.name: layer.shape for layer in network.layers}
    layouts = {layer.name: layer.layout for layer in network.layers}
    assert network.input_shape is not None
    small = (3, 8, 8) if "resnet" in name else network.input_shape  # whose wiring is that of images of any size
    followed = traced_wiring(trace(network.model, small))
    assert same_vertices(named_wiring(shapes, layouts), followed, list(shapes))


def wired(shapes: Mapping[str, tuple[int, ...]], layouts: Mapping[str, Layout] | None = None) -> Wiring:
    return named_wiring(shapes, dict.fromkeys(shapes, PLAIN) | dict(layouts or {}))


def test_a_chain_and_a_flatten() -> None:
    found = wired({"a": (4, 3, 3, 3), "b": (5, 4, 3, 3), "c": (2, 10)})
    assert (found.inputs["b"] == found.outputs["a"]).all()
    assert (found.inputs["c"] == np.repeat(found.outputs["b"], 2)).all()
    assert len(set(found.inputs["a"]) | set(found.outputs["a"])) == 7


def test_a_block_with_padded_shortcut() -> None:
    shapes = {"stem.weight": (2, 3, 3, 3), "s.0.conv1.weight": (6, 2, 3, 3), "s.0.conv2.weight": (6, 6, 3, 3)}
    found = wired(shapes)
    assert (found.outputs["s.0.conv2.weight"][2:4] == found.outputs["stem.weight"]).all()
    assert len(set(found.outputs["s.0.conv2.weight"])) == 6


@pytest.mark.parametrize(
    ("shapes", "layouts", "text"),
    [
        ({"a": (4, 3, 3, 3), "b": (5, 8, 3, 3)}, {}, "'b' reads 8 channels where 4 come before it, so the order"),
        ({"a": (4, 3), "b": (5, 6)}, {}, "'b' reads 6 channels where 4 come before it, so the order"),
        ({"a": (4, 3), "b": (5, 2)}, {}, "'b' reads 2 channels where 4 come before it, so the order"),
        ({"a": (4, 2, 3, 3)}, {"a": Layout(groups=2)}, "'a' is a grouped convolution, of which names do not tell"),
        (
            {"a": (4, 2), "b.0.conv1.weight": (2, 4, 3, 3), "b.0.conv2.weight": (2, 2, 3, 3)},
            {},
            "the block of 'b.0.conv1.weight' writes fewer",
        ),
        (
            {"a": (4, 2), "b.0.conv1.weight": (4, 4, 3, 3), "b.0.conv2.weight": (4, 4, 3, 3)}
            | {"b.0.shortcut.0.weight": (8, 4, 1, 1)},
            {},
            "'b.0.shortcut.0.weight' writes 8 channels, and its block 4",
        ),
    ],
)  # fmt: skip
def test_wiring_that_names_do_not_tell(
    shapes: dict[str, tuple[int, ...]], layouts: dict[str, Layout], text: str
) -> None:
    with pytest.raises(TraceError) as caught:
        wired(shapes, layouts)
    assert str(caught.value).startswith(text)
    assert str(caught.value).endswith("give weights=CKPT, by which the network is followed, or level=weight")


def masked(
    tmp_path: Path, arrays: list[dict[str, np.ndarray]], layouts: dict[str, Layout] | None = None
) -> list[MaskFile]:
    return [MaskFile(save_mask(tmp_path / f"{number}.safetensors", one, layouts)) for number, one in enumerate(arrays)]


def edges_with_names(collection: Collection) -> dict[str, tuple[int, int]]:
    every = np.arange(collection.edges)
    return dict(zip(collection.labels(every), map(tuple, collection.ends.tolist()), strict=True))


def test_edges_of_units(tmp_path: Path) -> None:
    """A kernel is an edge where any weight of it is kept, and columns of one channel are one kernel."""
    conv, head = np.zeros((2, 2, 3, 3), bool), np.zeros((3, 4), bool)
    conv[0, 1, 2, 0] = conv[0, 1, 1, 1] = conv[1, 0, 0, 0] = True
    head[2, 1] = head[2, 0] = head[0, 3] = True
    masks = masked(tmp_path, [{"a.weight": conv, "b.weight": head}, {"a.weight": ~conv, "b.weight": head & False}])
    wiring = named_wiring(masks[0].shapes, dict.fromkeys(masks[0].names, PLAIN))
    found = collection_of_masks(masks, wiring)
    ends = edges_with_names(found)
    first = {name for name, held in zip(ends, found.held_by(0), strict=True) if held}
    assert first == {"a.weight[0,1]", "a.weight[1,0]", "b.weight[0,2]", "b.weight[2,0]"}
    assert {name for name, held in zip(ends, found.held_by(1), strict=True) if held} == {
        f"a.weight[{a},{b}]" for a, b in product(range(2), repeat=2)
    }
    assert found.possible == (4, 6)
    assert ends["a.weight[0,1]"][0] == ends["b.weight[2,0]"][1]  # channel 0 is written, and read by columns 0 and 1
    assert ends["a.weight[1,0]"][0] == ends["b.weight[0,2]"][1]


@pytest.mark.parametrize(
    "layout", [PLAIN, Layout(groups=2), Layout(transposed=True), Layout(groups=2, transposed=True)]
)
def test_edges_of_weights_are_the_unrolled_matrix(tmp_path: Path, layout: Layout) -> None:
    from pai_cli.spectral.graph import unroll

    array = random_mask((4, 6, 2, 3), 0.4, 1)
    found = collection_of_masks(masked(tmp_path, [{"a": array}], {"a": layout}), None)
    matrix = np.asarray(unroll(array, layout))
    assert found.edges == array.sum() == matrix.sum()
    assert sorted(np.bincount(found.ends[:, 0], minlength=len(matrix))[: len(matrix)]) == sorted(matrix.sum(1))
    assert (np.bincount(found.ends[:, 1] - len(matrix), minlength=matrix.shape[1]) == matrix.sum(0)).all()
    assert found.ends[:, 0].max() < len(matrix)
    assert found.ends[:, 1].min() >= len(matrix)
    index = np.argwhere(array)
    assert found.labels(np.arange(found.edges)) == [f"a[{','.join(map(str, one))}]" for one in index]


def test_masks_of_two_networks(tmp_path: Path) -> None:
    masks = masked(tmp_path, [{"a": random_mask((2, 3))}, {"a": random_mask((3, 2))}])
    with pytest.raises(
        MaskMismatchError, match=r"masks other layers than .*0.safetensors \('a' differs\); mine the masks"
    ):
        collection_of_masks(masks, None)


LISTS = {
    "tabs": ("a b\tc d\nc d\te\n", {("a b", "c d"), ("c d", "e")}),
    "commas": ("a, b\nb,c,0.5\n", {("a", "b"), ("b", "c")}),
    "spaces": ("b a  0.1\n\n# a c\n% x y\n  b   c\n", {("a", "b"), ("b", "c")}),
    "twice": ("a b\nb a\na b\n", {("a", "b")}),
    "header": ("Source\tTarget\tweight\na\tb\t1\n", {("a", "b")}),
    "quotes": ('"from","to","w"\n"a, x","b",1\n"b", c\n', {("a, x", "b"), ("b", "c")}),
    "quotes and tabs": ('"a"\t"b ""2"""\n', {("a", 'b "2"')}),
    "quotes and spaces": ('"u" "v"\n "a x"   "b" 1 \n', {("a x", "b")}),
    "quotes within": ("5'\tb\"\nb 3'\"\n", {("5'", 'b"'), ("3'\"", "b")}),
    "other signs": ("é 名\n", {("é", "名")}),
    "header later": ("a b\nsource target\n", {("a", "b"), ("source", "target")}),
    "spaces alone": ("b a 0.1\nb c 1\nd d 1\n", {("a", "b"), ("b", "c")}),
    "a hundred columns": ("a\tb" + "\t1" * 98 + "\n", {("a", "b")}),
    "commas within": ("a,1\tb\nb\tc,2\n", {("a,1", "b"), ("b", "c,2")}),
    "no end of line": ("# x\n\n% y\na,b\nb,c", {("a", "b"), ("b", "c")}),
    "odd spaces": ("a\xa0b\tc\nd\t\u2003e\n\x1cf\tg\n", {("a\xa0b", "c"), ("d", "e"), ("f", "g")}),
    "an empty third": ("a\tb\t\nc\td\te f\n", {("a", "b"), ("c", "d")}),
    "bom and windows": ("\ufeffa b\r\nc d\r\n", {("a", "b"), ("c", "d")}),
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_of_edges(tmp_path: Path, name: str) -> None:
    text, edges = LISTS[name]
    (tmp_path / "g").write_text(text, encoding="utf-8", newline="")
    assert edges_of(read_edge_list(tmp_path / "g", Names())) == edges
    found = collection_of_graphs([read_edge_list(tmp_path / "g", Names())])
    assert found.labels(np.arange(found.edges)) == [f"{a}--{b}" for a, b in sorted(edges)]
    assert found.possible == (math.comb(len({name for edge in edges for name in edge}), 2),)


def edges_of(graph: EdgeList) -> set[tuple[str, str]]:
    """By name, each from the smaller to the larger."""
    a, b = ([graph.names[k] for k in side] for side in graph.ends.T.tolist())
    return {(min(edge), max(edge)) for edge in zip(a, b, strict=True)}


@given(st.data())
def test_a_table_is_read_at_once_as_it_is_line_by_line(data: st.DataObject) -> None:
    sign = data.draw(st.sampled_from("\t, "))
    some = st.text(st.sampled_from("aB1é#%\"'.\t, \xa0\x0b\n\udc80"), max_size=3)
    cell = data.draw(st.sampled_from([st.text("abé", min_size=1, max_size=2), some]))
    rows = data.draw(st.lists(st.lists(cell, min_size=2, max_size=3), min_size=1, max_size=4))
    text = data.draw(st.sampled_from(["", "source target\n", "\n# x\n"])) + "\n".join(map(sign.join, rows))
    at_once = edge_lists.table(text)
    if at_once is not None:
        assert at_once == edge_lists.line_by_line(Path("g"), text)


def test_loops_are_counted_and_left_out(tmp_path: Path) -> None:
    (tmp_path / "g").write_text("a a\na b 3\nb b\n")
    found = read_edge_list(tmp_path / "g", Names())
    assert (edges_of(found), found.loops, found.columns) == ({("a", "b")}, 2, 3)
    (tmp_path / "h").write_text("a b\nb a\nc c\n")  # c is no vertex
    found = read_edge_list(tmp_path / "h", Names())
    assert (edges_of(found), found.loops, found.columns) == ({("a", "b")}, 1, 2)
    assert collection_of_graphs([found]).possible == (1,)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"a b\n\n# c\nd\n", "line 4: 'd' is no edge; give two names, with a tab between"),
        (b"a\t\n", "line 1: 'a\\t' is no edge; give two names, with a tab between"),
        (b",b\n", "line 1: ',b' is no edge; give two names, with a tab between"),
        (b"x" * 100, f"line 1: '{'x' * 39}…' is no edge; give two names, with a tab between"),
        (b"", "holds no edge; give two names a line, with a tab between"),
        (b"a a\n", "holds no edge; give two names a line, with a tab between"),
        (b"a b\n\xff\xfe\n", "line 2: no UTF-8 text; a list of edges is plain text"),
        (b'a,"b\n', "line 1: 'a,\"b' is no edge; give two names, with a tab between"),
        (None, "no such file"),
    ],
)
def test_what_is_no_list_of_edges(tmp_path: Path, data: bytes | None, text: str) -> None:
    path = tmp_path / "g"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(EdgeListError) as caught:
        read_edge_list(path, Names())
    assert str(caught.value) == f"{path}: {text}"


def test_a_folder_is_no_list_of_edges(tmp_path: Path, pai: Pai) -> None:
    assert pai("mine", "--graphs", tmp_path).said == [f"pai: error: {tmp_path}: Is a directory"]


def test_shared_edges_by_hand(tmp_path: Path) -> None:
    arrays = [{"a": random_mask((5, 7), 0.5, seed), "b": random_mask((3, 5), 0.7, seed + 9)} for seed in range(3)]
    found = collection_of_masks(masked(tmp_path, arrays), None)
    table = shared_edges(found)
    for group, name in enumerate("ab"):
        for one, other in product(range(3), repeat=2):
            assert table[group, one, other] == (arrays[one][name] & arrays[other][name]).sum()
    for pair in overlaps(found):
        one, other = (np.concatenate([arrays[n][name].ravel() for name in "ab"]) for n in (pair.first, pair.second))
        assert (pair.shared, pair.union) == ((one & other).sum(), (one | other).sum())
        assert pair.jaccard == pair.shared / pair.union


def test_chance_is_the_sum_of_hypergeometric_variables() -> None:
    """Against counting every way to draw; two groups of 6 and 5 edges."""

    def ways(size: int, a: int, b: int) -> dict[int, float]:
        every = math.comb(size, b)
        return {
            x: math.comb(a, x) * math.comb(size - a, b - x) / every for x in range(max(0, a + b - size), min(a, b) + 1)
        }

    first, second = ways(6, 3, 4), ways(5, 2, 2)
    sums = [(x + y, p * q) for (x, p), (y, q) in product(first.items(), second.items())]
    mean = sum(value * p for value, p in sums)
    for shared in range(8):
        found = chance_of(shared, (6, 5), [(3, 4), (2, 2)])
        assert found.p == pytest.approx(sum(p for value, p in sums if value >= shared), abs=found.error)
        assert found.mean == pytest.approx(mean)
        assert found.deviation == pytest.approx(math.sqrt(sum(p * (value - mean) ** 2 for value, p in sums)))


@pytest.mark.parametrize("shared", [200, 245, 250, 260, 300])
def test_chance_in_a_layer_as_large_as_are_cut(shared: int) -> None:
    from scipy.stats import hypergeom

    found = chance_of(shared, (100_000,), [(5_000, 5_000)])
    assert found.p == pytest.approx(hypergeom.sf(shared - 1, 100_000, 5_000, 5_000), abs=found.error)
    assert found.error < 2e-11


def test_chance_of_layers_too_large_to_convolve_term_by_term() -> None:
    """Normal to within the error of that: a few of the 20,000 standard errors that it has at such sizes."""
    found = chance_of(2_503_000, (10**7, 10**7), [(5 * 10**6, 2_500_000)] * 2)
    assert found.mean == 2_500_000
    assert found.p == pytest.approx(math.erfc((2_999.5) / found.deviation / math.sqrt(2)) / 2, rel=1e-3)
    halves = chance_of(50_000, (10**5,), [(10**5 - 1, 50_001)])  # P(X = 50,000) is 0.50001, else 50,001
    assert chance_of(50_001, (10**5,), [(10**5 - 1, 50_001)]).p == pytest.approx(0.49999, abs=1e-11)
    assert halves.p == pytest.approx(1.0, abs=1e-11)


@pytest.mark.parametrize(("kept", "p"), [([(0, 3)], 1.0), ([(5, 5)], 1.0), ([(0, 0)], 1.0)])
def test_chance_that_leaves_nothing_open(kept: list[tuple[int, int]], p: float) -> None:
    shared = min(kept[0])
    found = chance_of(shared, (5,), kept)
    assert (found.p, found.mean, found.deviation) == (p, shared, 0.0)


def agreeing(folder: Path) -> list[Path]:
    """Five masks of a network of two layers: all keep a path of three kernels, the first three a fourth beside it."""
    folder.mkdir(exist_ok=True)
    paths = []
    for number in range(5):
        conv, head = np.zeros((6, 3, 3, 3), bool), np.zeros((4, 6), bool)
        conv[0, 0, number % 3, 0] = conv[0, 1, 1, 1] = head[2, 0] = True
        if number < 3:
            head[3, 0] = True
        conv[5, 2, 0, 0] = number == 4
        layers = {"conv.weight": conv, "fc.weight": head}
        paths.append(save_mask(folder / f"m{number}.safetensors", layers, method="by hand"))
    return paths


NOTE = (
    "pai: who reads whom is taken from the order and the names of the layers, a chain with residual blocks; "
    "--weights CKPT follows the network itself"
)


def test_the_table(tmp_path: Path, pai: Pai, monkeypatch: pytest.MonkeyPatch) -> None:
    agreeing(tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    done = pai("mine", "m")
    assert done.status == 0
    tables = [" ".join(line.split()) for line in done.out.splitlines()]
    assert "5 m/m4.safetensors 4" in tables
    assert "1 3 4 5 conv to fc (2) 1-5" in tables
    assert "1 1 1 0.75 0.6" in tables
    assert done.said == [
        NOTE,
        "pai: Jaccard 0.6 to 1, by chance at each layer's own density 0.0456 to 0.0566: "
        "10 of 10 pairs share more than chance has it (5% over all pairs)",
        "pai: 1 maximal connected subgraph of 3 edges or more that 4 of 5 hold",
    ]


def test_records(tmp_path: Path, pai: Pai) -> None:
    paths = [str(path) for path in agreeing(tmp_path / "m")]
    expected = {
        "subgraph": 1,
        "edges": 4,
        "vertices": 5,
        "support": 3,
        "share": 0.6,
        "layers": ["conv.weight", "fc.weight"],
        "masks": paths[:3],
        "edge_list": ["conv.weight[0,0]", "conv.weight[0,1]", "fc.weight[2,0]", "fc.weight[3,0]"],
    }
    words = ("mine", *paths, "--support", "3", "--format")
    assert pai(*words, "json").json() == [expected]
    assert json.loads(pai(*words, "jsonl").out) == expected
    (row,) = csv.DictReader(io.StringIO(pai(*words, "csv").out))
    assert row["masks"].split(" ") == paths[:3]
    assert row["edge_list"].split(" ") == expected["edge_list"]
    assert (row["edges"], row["share"]) == ("4", "0.6")
    assert pai(*words, "tsv", "--no-header").out.startswith("1\t4\t5\t3\t0.6\tconv.weight fc.weight\t")


def test_columns_and_an_order_of_subgraphs(tmp_path: Path, pai: Pai, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mining, "KEPT", 25)
    for number in range(8):
        save_mask(tmp_path / f"{number}.safetensors", {"a.weight": random_mask((12, 12), 0.6, number)})
    words = ("mine", tmp_path, "--support", "4", "--format")
    every = pai(*words, "json").json()
    assert len(every) == 90  # more than are held at once for the table
    by_vertices = sorted(every, key=lambda one: -one["vertices"])  # of equal ones the first found
    chosen = ("--columns", "sub*,edges,masks", "--sort=-vertices")
    wanted = [{name: one[name] for name in ("subgraph", "edges", "masks")} for one in by_vertices]
    assert pai(*words, "json", *chosen).json() == wanted
    rows = list(csv.reader(io.StringIO(pai(*words, "csv", *chosen).out)))
    assert rows == [
        ["subgraph", "edges", "masks"],
        *([str(one["subgraph"]), str(one["edges"]), " ".join(one["masks"])] for one in wanted),
    ]
    done = pai(*words, "markdown", *chosen)
    table = [[cell.strip() for cell in line.split("|")[1:3]] for line in done.out.strip().splitlines()]
    assert table[0] == ["subgraph", "edges"]  # and no other table
    assert table[2:] == [row[:2] for row in rows[1:21]]
    assert done.said[-2] == "pai: the first 20 in that order are shown; --format jsonl writes all"
    usual = pai(*words, "markdown", "--sort", "vertices").out.strip().splitlines()
    places = [line.split("|") for line in usual[-20:]]
    assert [int(place[3]) for place in places] == sorted(one["vertices"] for one in every)[:20]


def test_columns_and_an_order_of_pairs(tmp_path: Path, pai: Pai, monkeypatch: pytest.MonkeyPatch) -> None:
    agreeing(tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    words = ("mine", "m", "--overlap", "--sort=-other_mask", "--format")
    records = pai(*words, "json", "--columns", "mask,other_mask,shared").json()
    assert [list(one) for one in records] == [["mask", "other_mask", "shared"]] * 10
    assert [one["other_mask"][-13] for one in records] == list("4444333221")
    done = pai(*words, "markdown", "--columns", "mask,other_mask,shared").out.strip().splitlines()
    assert [line.split()[1:4:2] for line in done[2:]] == [[one["mask"], one["other_mask"]] for one in records]
    usual = pai(*words, "markdown").out.strip().splitlines()
    assert [line.split()[3] for line in usual[-10:]] == list("5555444332")  # numbers of the table of masks before it


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--columns", "mask"), "--columns mask: no such column; did you mean masks? there are subgraph, edges"),
        (("--overlap", "--columns", "vertices"), "--columns vertices: no such column; "),
        (
            ("--overlap", "--sort", "jacard"),
            "--sort jacard: no such column; did you mean jaccard? there are mask, other",
        ),
        (("--sort", "held by"), "--sort held by: no such column; "),
    ],
)
def test_columns_that_are_not_there(tmp_path: Path, pai: Pai, flags: tuple[str, ...], words: str) -> None:
    done = pai("mine", tmp_path / "no such mask", *flags)
    assert (done.status, done.out, len(done.said)) == (2, "", 1)
    assert words in done.said[0]


def test_at_the_level_of_weights(tmp_path: Path, pai: Pai) -> None:
    """Layers stand by themselves, and kernels that are kept by other weights are not the same edge."""
    agreeing(tmp_path / "m")
    done = pai("mine", tmp_path / "m", "--level", "weight", "--min-edges", 1, "--format", "json")
    assert [one["edge_list"] for one in done.json()] == [["conv.weight[0,1,1,1]"], ["fc.weight[2,0]"]]
    assert done.said == ["pai: 2 maximal connected subgraphs of 1 edge or more that 4 of 5 hold"]


def test_with_weights_the_network_is_followed(tmp_path: Path, pai: Pai, samples: Path, resnet: Path) -> None:
    words = (
        "mine",
        samples / "erk-0.02.safetensors",
        samples / "synflow-0.02.safetensors",
        "--support",
        "1.0",
        "--format",
        "json",
    )
    followed, named = pai(*words, "--weights", resnet), pai(*words)
    assert NOTE in named.said
    assert NOTE not in followed.said
    assert followed.json() == named.json() != []


def test_nothing_to_agree_on(tmp_path: Path, pai: Pai) -> None:
    for number, seed in enumerate((1, 2)):
        array = np.zeros((4, 4), bool)
        array[number] = True
        save_mask(tmp_path / f"{seed}.safetensors", {"a.weight": array})
    done = pai("mine", tmp_path, "--support", "1.0", "--format", "json")
    assert (done.status, done.out) == (0, "[]\n")
    assert done.said[-1] == (
        "pai: no connected subgraph of 3 edges or more that 2 of 2 hold; lower --support or --min-edges"
    )


def test_masks_whose_layouts_differ(tmp_path: Path, pai: Pai) -> None:
    """What one mask tells of groups holds for those that do not tell, wherever it stands; two that differ are refused."""
    kept = {"a.weight": np.ones((4, 2, 3, 3), np.bool_)}
    np.savez(tmp_path / "untold.npz", **kept)
    for groups in (1, 2):
        layouts = {"a.weight": Layout(groups, False)}
        write_mask(tmp_path / f"{groups}.safetensors", MaskToWrite(kept, layouts, {}), packed=False, force=False)
    untold, plain, grouped = (tmp_path / name for name in ("untold.npz", "1.safetensors", "2.safetensors"))
    words = ("--level", "weight", "--format", "json")
    for order in ((untold, grouped), (grouped, untold)):
        done = pai("mine", *order, *words)
        assert [one["vertices"] for one in done.json()] == [2 + 18] * 2  # two groups, each its own subgraph
        assert done.said[0] == f"pai: {untold}: does not tell groups and transposition; both are taken from {grouped}"
    assert [one["vertices"] for one in pai("mine", plain, untold, *words).json()] == [4 + 18]
    done = pai("mine", plain, untold, grouped, *words)
    assert (done.status, done.said) == (
        1,
        [
            f"pai: error: {grouped}: tells other groups or transposition of 'a.weight' than {plain}; "
            "mine the masks of one network at a time"
        ],
    )


def test_one_mask(tmp_path: Path, pai: Pai) -> None:
    save_mask(tmp_path / "a.safetensors", {"a.weight": np.eye(3, dtype=bool)})
    done = pai("mine", tmp_path / "a.safetensors", "--min-edges", 1)
    assert done.status == 0
    assert done.said[-1] == "pai: 3 maximal connected subgraphs of 1 edge or more that 1 of 1 holds"


def test_a_mask_that_does_not_tell_the_groups_of_the_network(tmp_path: Path, pai: Pai) -> None:
    """By the first group alone, edges of the others would be between the wrong units."""
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\ndef grouped():\n    return nn.Sequential(nn.Conv2d(4, 4, 3, groups=2, bias=False))\n"
    )
    save_file({"0.weight": np.ones((4, 2, 3, 3), np.float32)}, tmp_path / "c.safetensors")
    np.savez(tmp_path / "untold.npz", **{"0.weight": np.ones((4, 2, 3, 3), np.bool_)})
    given = (
        "--weights",
        tmp_path / "c.safetensors",
        "--model",
        f"{tmp_path / 'net.py'}:grouped",
        "--input-shape",
        "4,5,5",
    )
    done = pai("mine", tmp_path / "untold.npz", *given)
    assert (done.status, done.said[-1]) == (
        1,
        f"pai: error: {tmp_path}/untold.npz: does not tell how '0.weight' is grouped or transposed, as "
        f"{tmp_path}/c.safetensors has it; give a mask that does, as `pai prune` writes it, or --level weight",
    )


def test_one_mask_by_two_names_counts_once(tmp_path: Path, pai: Pai) -> None:
    one = save_mask(tmp_path / "one.safetensors", {"a.weight": random_mask((3, 4), 0.9)})
    other = save_mask(tmp_path / "other.safetensors", {"a.weight": random_mask((3, 4), 0.9, 1)})
    link = tmp_path / "link.safetensors"
    link.symlink_to(one)
    done = pai("mine", one, link, other, "--overlap", "--format", "json")
    assert [(pair["mask"], pair["other_mask"]) for pair in done.json()] == [(str(one), str(other))]
    assert done.said[0] == f"pai: {link}: is {one} by another name, and counts once"


def test_masks_that_keep_nothing(tmp_path: Path, pai: Pai) -> None:
    for number in range(2):
        save_mask(tmp_path / f"{number}.safetensors", {"a.weight": np.zeros((3, 3), bool)})
    done = pai("mine", tmp_path)
    assert done.status == 0
    assert done.said[-2] == "pai: nothing is kept, so there is no overlap"


def test_overlap_of_pairs(tmp_path: Path, pai: Pai) -> None:
    paths = agreeing(tmp_path / "m")
    rows = list(csv.DictReader(io.StringIO(pai("mine", *paths, "--overlap", "--format", "csv").out)))
    assert len(rows) == 10
    assert (rows[0]["mask"], rows[0]["other_mask"]) == (str(paths[0]), str(paths[1]))
    assert (rows[0]["edges"], rows[0]["shared"], rows[0]["jaccard"]) == ("4", "4", "1.0")
    assert float(rows[0]["expected_shared"]) == pytest.approx(2 * 2 / 18 + 2 * 2 / 24)
    assert 0 < float(rows[0]["p"]) < 0.01
    table = pai("mine", *paths, "--overlap")
    assert " ".join(table.out.splitlines()[-3].split()).startswith("3 5 3 0.6 ")


def test_the_consensus_mask(tmp_path: Path, pai: Pai, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = agreeing(tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    done = pai("mine", "m", "--support", "3", "-o", "c.safetensors", "--packed")
    assert done.status == 0
    assert done.said[1] == "pai: wrote c.safetensors: the 3 of 186 weights that 3 of 5 masks keep, density 0.016129"
    found = MaskFile(tmp_path / "c.safetensors")
    for name in found.names:
        count = sum(MaskFile(path).array(name).astype(int) for path in paths)
        assert (found.array(name) == (count >= 3)).all()
    assert found.names == ("conv.weight", "fc.weight")
    told = {key: found.metadata[key] for key in ("method", "support", "masks", "command")}
    assert told == {
        "method": "consensus",
        "support": "3",
        "masks": "5",
        "command": "pai mine m --support 3 -o c.safetensors --packed",
    }
    assert pai("analyze", "c.safetensors").status == 0
    again = pai("mine", "m", "--support", "3", "-o", "c.safetensors")
    assert (again.status, again.said) == (1, ["pai: error: c.safetensors: exists already; --force replaces it"])
    assert pai("mine", "m", "-o", "no/c.safetensors").status == 1


def test_a_consensus_without_a_layer_is_told(tmp_path: Path, pai: Pai) -> None:
    agreeing(tmp_path / "m")
    one = np.zeros((6, 3, 3, 3), bool)
    one[1, 1] = True
    save_mask(tmp_path / "m" / "m5.safetensors", {"conv.weight": one, "fc.weight": np.zeros((4, 6), bool)})
    done = pai("mine", tmp_path / "m", "--support", "1.0", "-o", tmp_path / "c.safetensors")
    assert done.status == 0
    assert "pai: warning: layer collapse: conv.weight, fc.weight kept no weight; lower --support" in done.said


def test_a_heat_map(tmp_path: Path, pai: Pai) -> None:
    agreeing(tmp_path / "m")
    done = pai("mine", tmp_path / "m", "--plot", tmp_path / "o.svg")
    assert done.status == 0
    assert f"pai: wrote {tmp_path / 'o.svg'}: the Jaccard index of 10 pairs" in done.said
    text = (tmp_path / "o.svg").read_text()
    assert {text.count(">0.60<"), text.count(">m4<"), text.count("Jaccard 0.6 to 1, by chance")} == {6, 2, 1}
    before = (tmp_path / "o.svg").read_bytes()
    assert pai("mine", tmp_path / "m", "--plot", tmp_path / "o.svg", "--force", "--overlap").status == 0
    assert (tmp_path / "o.svg").read_bytes() == before
    assert pai("mine", tmp_path / "m", "--plot", tmp_path / "o.gif").said == [
        f"pai: error: {tmp_path / 'o.gif'}: --plot writes .svg, .png or .pdf; end the file's name in one of those"
    ]


def test_the_map_of_one_mask(tmp_path: Path, pai: Pai) -> None:
    path = save_mask(tmp_path / "a.safetensors", {"a.weight": np.eye(3, dtype=bool)})
    assert pai("mine", path, "--plot", tmp_path / "o.svg").status == 0
    assert "one alone has nothing to overlap with" in (tmp_path / "o.svg").read_text()


def test_a_consensus_to_standard_output_is_alone_there(tmp_path: Path) -> None:
    agreeing(tmp_path / "m")
    reading, writing = os.pipe()  # which holds so small a mask
    done = copies.run(["mine", tmp_path / "m", "-o", "/dev/stdout"], into=(writing, None))
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        (tmp_path / "c.safetensors").write_bytes(pipe.read())
    assert done.status == 0, done.err
    assert MaskFile(tmp_path / "c.safetensors").metadata["method"] == "consensus"


def test_graphs(tmp_path: Path, pai: Pai, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("1.tsv").write_text("a\tb\t0.9\nb\tc\t0.5\nc\td\t.2\nc\tc\t1\n")
    Path("2.tsv").write_text("# b a first\nb a\nb c\nc d\nd e\n")
    done = pai("mine", "--graphs", "1.tsv", "2.tsv", "--format", "json")
    assert done.json() == [
        {"subgraph": 1, "edges": 3, "vertices": 4, "support": 2, "share": 1.0, "layers": ["graph"],
         "masks": ["1.tsv", "2.tsv"], "edge_list": ["a--b", "b--c", "c--d"]}
    ]  # fmt: skip
    assert done.said[:2] == [
        "pai: edges from a vertex to itself join nothing and are left out: 1",
        "pai: columns past the second are not read: an edge that is listed is there, whatever its weight",
    ]
    table = pai("mine", "--graphs", "1.tsv", "2.tsv")
    assert "layers spanned" not in table.out
    assert "does" not in table.said[-1]
    assert table.said[2].startswith(
        "pai: Jaccard 0.75 to 0.75, by chance at their own densities 0.207 to 0.207: the pair"
    )
    Path("3.tsv").write_text("a b\nwrong\n")
    bad = pai("mine", "--graphs", "1.tsv", "3.tsv")
    assert (bad.status, bad.said) == (
        1,
        ["pai: error: 3.tsv: line 2: 'wrong' is no edge; give two names, with a tab between"],
    )
    twice = pai("mine", "--graphs", "1.tsv", "1.tsv")
    assert twice.said == ["pai: error: 1.tsv: is given twice, and would count twice; give each graph once"]
    again = pai("mine", "--graphs", "1.tsv", tmp_path / "1.tsv")
    assert again.said == [f"pai: error: {tmp_path}/1.tsv: is given twice, and would count twice; give each graph once"]
    Path("4.tsv").write_text("u v\nv w\n")
    headed = pai("mine", "--graphs", "4.tsv", "--min-edges", 1)
    assert headed.said[0] == (
        "pai: 4.tsv: its first line, 'u v', is taken for the names of the columns, not for an edge"
    )


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--graphs", "--level", "unit"), "--level: is about masks, and --graphs reads lists of edges; leave one out"),
        (("--graphs", "-o", "c"), "-o: is about masks, and --graphs reads lists of edges; leave one out"),
        (("--model", "resnet20"), "--model: says how --weights is followed; give --weights CKPT too"),
        (("--input-shape", "3,32,32"), "--input-shape: says how --weights is followed; give --weights CKPT too"),
        (("--weights", "c", "--level", "weight"), "--weights: at --level weight layers stand by themselves; leave it out"),
        (("--overlap", "--timeout", "3"), "--timeout: is about the search, and --overlap makes none; leave one out"),
        (("--overlap", "--min-edges", "3"), "--min-edges: is about the search, and --overlap makes none; leave one out"),
        (("--overlap", "--support", "1"), "--support: is about the search, and --overlap makes none; leave one out"),
        (("--packed",), "--packed: is about the mask that -o writes; give -o MASK too"),
        (("--no-header",), "--no-header: is of csv and tsv, and this is table; leave it out"),
    ],
)  # fmt: skip
def test_wrong_usage(pai: Pai, flags: tuple[str, ...], words: str) -> None:
    done = pai("mine", "m", *flags)
    assert done.status == 2
    assert words in done.words


def test_limits_are_told(tmp_path: Path, pai: Pai) -> None:
    for number in range(8):
        save_mask(tmp_path / f"{number}.safetensors", {"a.weight": random_mask((12, 12), 0.6, number)})
    done = pai("mine", tmp_path, "--support", "4", "--max-results", 7, "--format", "jsonl")
    assert (done.status, len(done.out.splitlines())) == (0, 7)
    assert done.said[-1] == (
        "pai: stopped by --max-results 7: 7 subgraphs of 3 edges or more that 4 of 8 hold so far; "
        "there may be more, also larger ones"
    )
    assert "stopped by --timeout 0: 0 subgraphs" in pai("mine", tmp_path, "--timeout", 0).said[-1]
    assert (
        pai("mine", tmp_path, "--support", "4").said[-2] == "pai: the 20 largest are shown; --format jsonl writes all"
    )


def test_faults_of_files(tmp_path: Path, pai: Pai, samples: Path, resnet: Path) -> None:
    whole = samples / "erk-0.05.safetensors"
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole.read_bytes()[:3000])
    done = pai("mine", whole, cut)
    assert (done.status, done.out) == (1, "")
    assert done.said[-1].startswith(f"pai: error: {cut}: truncated:")
    other = save_mask(tmp_path / "other.safetensors", {"a.weight": random_mask((3, 3))})
    assert "mine the masks of one network at a time" in pai("mine", whole, other).said[-1]
    assert "which " + str(resnet) + " does not have" in pai("mine", other, "--weights", resnet).said[-1]
    line = save_mask(tmp_path / "line.safetensors", {"a.bias": random_mask((3,))})
    assert pai("mine", line).said[-1].endswith("no tensor has rows and columns; a graph needs the mask of a weight")
    assert pai("mine", whole, "--support", "2").said[-1] == (
        "pai: error: --support 2: of 1 that are given, so many cannot agree; give 1 or less"
    )


@pytest.mark.parametrize(("kind", "how"), [("jsonl", signal.SIGINT), ("json", signal.SIGTERM)])
def test_interrupted_it_has_written_what_it_found(tmp_path: Path, kind: str, how: signal.Signals) -> None:
    """24 masks of independent weights: millions of subgraphs, of which some are found when Ctrl-C comes."""
    for number in range(24):
        save_mask(tmp_path / f"{number}.safetensors", {"a.weight": random_mask((12, 12), 0.85, number)})
    words = ["mine", str(tmp_path), "--support", "12", "--format", kind]
    with (
        (tmp_path / "out").open("w") as out,
        copies.begin(words, into=(out.fileno(), None)) as process,
    ):
        wait_until(lambda: (tmp_path / "out").stat().st_size > 0)
        process.signal(how)
        status, _, err = process.finish()
    assert status == copies.STOPPED[how][0], err
    assert err.splitlines()[-1] == copies.STOPPED[how][1]
    assert err.splitlines()[-2].startswith("pai: interrupted: ")
    text = (tmp_path / "out").read_text()
    found = json.loads(text) if kind == "json" else [json.loads(line) for line in text.splitlines()]
    assert f" {len(found):,} subgraphs of 3 edges or more that 12 of 24 hold so far" in err
    assert all(one["support"] >= 12 for one in found)


def test_interrupted_the_table_has_the_largest_so_far(
    tmp_path: Path, pai: Pai, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        save_mask(tmp_path / f"{number}.safetensors", {"a.weight": random_mask((12, 12), 0.6, number)})
    every = pai("mine", tmp_path, "--support", "4", "--format", "json").json()
    search = run.maximal

    def until_the_tenth(part: Part, wanted: Wanted) -> Iterator[Occurrence | None]:
        for count, one in enumerate(found for found in search(part, wanted) if found is not None):
            if count == 10:
                raise KeyboardInterrupt
            yield one

    monkeypatch.setattr(run, "maximal", until_the_tenth)
    done = pai("mine", tmp_path, "--support", "4")
    assert done.status == 130
    assert done.said[-2:] == [
        "pai: interrupted: 10 subgraphs of 3 edges or more that 4 of 8 hold so far; there may be more, also larger ones",
        "pai: interrupted",
    ]
    rows = [line.split() for line in done.out.splitlines() if len(line.split()) > 4][-10:]
    sizes = sorted((one["edges"] for one in every[:10]), reverse=True)
    assert [int(row[1]) for row in rows] == sizes
    done = pai("mine", tmp_path, "--support", "4", "--format", "json", "--sort=-edges", "--columns", "edges")
    assert (done.status, done.json()) == (130, [{"edges": size} for size in sizes])
