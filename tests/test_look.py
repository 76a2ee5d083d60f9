"""Which columns a table has, what orders its rows, and what it is for a paper: in every command, and in the library."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from conftest import SAMPLES, Pai

import pai_cli as pai_library
from pai_cli.display.look import Look
from pai_cli.display.papers import in_latex, in_markdown, paper_lines
from pai_cli.errors import ParameterError, UsageError
from pai_cli.files.tables import Format

pytestmark = pytest.mark.usefixtures("measured_once")

FIELDS = ("mask", "layer", "shape", "dr", "dr_error", "reason")
MASKS = [SAMPLES / f"{method}-0.05.safetensors" for method in ("erk", "random", "synflow")]


def look(columns: str | None = None, sort: str | None = None, kind: Format = Format.TABLE) -> Look:
    return Look.of(kind, FIELDS, columns, sort)


@pytest.mark.parametrize(
    ("given", "columns"),
    [
        ("dr,mask", ("dr", "mask")),
        ("dr*", ("dr", "dr_error")),
        (" layer , d? ", ("layer", "dr")),
        ("dr_error,dr*,dr", ("dr_error", "dr")),
        ("*", FIELDS),
    ],
)
def test_columns_are_names_and_globs(given: str, columns: tuple[str, ...]) -> None:
    assert look(given).columns == columns
    assert Look.of(Format.CSV, FIELDS, given.split(","), None).columns == columns


@pytest.mark.parametrize(
    ("columns", "sort", "told"),
    [
        (
            "mask,dr_eror",
            None,
            "columns=dr_eror: no such column; did you mean dr_error? there are mask, layer, shape",
        ),
        ("zzz*", None, "columns=zzz*: no such column; there are mask, layer, shape, dr, dr_error, reason"),
        ("mask,", None, "columns=: no such column; there are mask"),
        (None, "-layers", "sort=-layers: no such column; did you mean layer? there are mask"),
        (None, "dr*", "sort=dr*: no such column; did you mean dr? there are mask"),
    ],
)
def test_what_names_no_column_is_refused(columns: str | None, sort: str | None, told: str) -> None:
    with pytest.raises(UsageError) as error:
        look(columns, sort)
    assert str(error.value).startswith(told)
    assert error.value.status == 2


def rows(*values: object) -> list[dict[str, object]]:
    return [dict.fromkeys(FIELDS) | {"mask": f"m{at}", "dr": value} for at, value in enumerate(values)]


def test_rows_are_ordered_and_those_without_a_value_are_last() -> None:
    found = rows(0.5, None, -3, 2.25, None, 0.5)
    names = lambda sort, total=False: [one["mask"] for one in look(sort=sort).ordered(found, total=total)]  # noqa: E731
    assert names("dr") == ["m2", "m0", "m5", "m3", "m1", "m4"]
    assert names("-dr") == ["m3", "m0", "m5", "m2", "m1", "m4"]
    assert names("dr", total=True) == ["m2", "m0", "m3", "m1", "m4", "m5"]
    assert names(None) == ["m0", "m1", "m2", "m3", "m4", "m5"]


def test_texts_are_ordered_as_a_person_has_them_and_shapes_by_their_sides() -> None:
    found = rows("layers.10", "layers.2", "layers.1")
    assert [one["dr"] for one in look(sort="dr").ordered(found)] == ["layers.1", "layers.2", "layers.10"]
    shapes = rows([16, 3], [4, 100], [16, 2, 9])
    assert [one["dr"] for one in look(sort="-dr").ordered(shapes)] == [[16, 3], [16, 2, 9], [4, 100]]


# --- for papers


def cells_of_markdown(line: str) -> list[str]:
    """The cells of a line as GitHub's Markdown has them: split at bars without a backslash, and unescaped."""
    inner = re.split(r"(?<!\\)(?:\\\\)*\|", line.strip())[1:-1]
    return [re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", cell.strip()) for cell in inner]


HOSTILE = [
    "a|b",
    r"back\slash",
    "**bold** `code` <b>",
    "[link](x) _em_ a_b",
    "$x$ & ~ #1 100% {y} ^2",
    '"quoted" -- [0]',
]


def test_markdown_shows_every_text_as_it_is() -> None:
    lines = paper_lines(
        Format.MARKDOWN, {"na|me": HOSTILE, "dr": ["1", "-", "2", "3", "-4", "5"]}, ["na|me"], total=False
    )
    assert cells_of_markdown(lines[0]) == ["na|me", "dr"]
    assert re.fullmatch(r"\| -+ \| -+: \|", lines[1])
    assert [cells_of_markdown(line)[0] for line in lines[2:]] == HOSTILE
    assert len({len(line) for line in lines}) == 1
    assert in_markdown("dr_imdb") == "dr_imdb"
    assert in_markdown("_dr_") == r"\_dr\_"


def test_latex_prints_every_text_as_it_is() -> None:
    assert in_latex("a_b & c% #1 $x$ {y}") == r"a\_b \& c\% \#1 \$x\$ \{y\}"
    assert in_latex("\\~^<>|`") == (
        r"\textbackslash{}\textasciitilde{}\textasciicircum{}\textless{}\textgreater{}\textbar{}\textasciigrave{}"
    )
    assert in_latex('a---b --flag "x"') == r"a-{}-{}-b -{}-flag \char34{}x\char34{}"
    for text in HOSTILE:
        bare = re.sub(r"\\(?:text[a-z]+|char34)\{\}|\\[{}$&#_%]|\{\[\}|\{\*\}|-\{\}", "", in_latex(text))
        assert not set(bare) & set('\\{}$&#_%~^<>|`"[*'), text


def test_every_negative_number_in_latex_has_a_minus() -> None:
    """Not a hyphen, also within an interval; a hyphen within a word, and the dash of what is missing, stay."""
    cells = {"a-1": ["-0.5", "-0.05 (-0.56 to 0.39)", "(0.1 to -2)", "-", "x-1"]}
    found = [line.removesuffix(" \\\\") for line in paper_lines(Format.LATEX, cells, (), total=False)[5:10]]
    assert found == ["$-0.5$", "$-$0.05 ($-$0.56 to 0.39)", "(0.1 to $-$2)", "--", "x-1"]


def test_a_table_in_latex_has_the_rules_of_booktabs() -> None:
    cells = {"layer": ["a_1", "mean"], "dr": ["-1.5", "2.5e-13"], "ds": ["-", "1,234"]}
    assert paper_lines(Format.LATEX, cells, ["layer"], total=True) == [
        r"% \usepackage{booktabs}",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"layer & dr & ds \\",
        r"\midrule",
        r"a\_1 & $-1.5$ & -- \\",
        r"\midrule",
        r"mean & $2.5 \times 10^{-13}$ & 1,234 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


# --- the commands


def test_a_papers_table_is_one_command(pai: Pai) -> None:
    words = ("analyze", *MASKS, "--summary", "--columns", "method,density,dr_imdb", "--sort")
    head, rule, *lines = pai(*words, "-dr_imdb", "--format", "markdown").out.strip().splitlines()
    assert cells_of_markdown(head) == ["method", "density", "dr_imdb"]
    assert rule.count("-:") == 2
    assert [cells_of_markdown(line)[0] for line in lines] == ["synflow", "erk", "random"]
    values = [float(cells_of_markdown(line)[2]) for line in lines]
    assert values == sorted(values, reverse=True)
    latex = pai(*words, "method", "--format", "latex").out
    names = [line.split(" & ")[0] for line in latex.splitlines() if line.endswith("\\\\")]
    assert names == ["method", "erk", "random", "synflow"]


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl"])
def test_programs_get_the_same_columns_and_order(pai: Pai, kind: str) -> None:
    out = pai("analyze", MASKS[0], "--columns", "layer,shape,dr", "--sort", "-dr", "--format", kind).out
    if kind == "json":
        records = json.loads(out)
    elif kind == "jsonl":
        records = [json.loads(line) for line in out.splitlines()]
    else:
        records = list(csv.DictReader(io.StringIO(out), delimiter="\t" if kind == "tsv" else ","))
    assert {tuple(one) for one in records} == {("layer", "shape", "dr")}
    values = [float(one["dr"]) for one in records[:-1] if one["dr"] not in ("", None)]
    assert len(values) > 1
    assert values == sorted(values, reverse=True)
    assert records[-1]["layer"] in ("", None)  # the network stays last
    first = next(one for one in records if one["layer"] == "conv1.weight")
    assert first["shape"] == ("16x3x3x3" if kind in ("csv", "tsv") else [16, 3, 3, 3])


def test_columns_that_were_asked_for_are_all_there_however_wide(pai: Pai, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    done = pai("analyze", MASKS[0], "--columns", "layer,dr*,outcome", "--sort", "layer")
    head = done.out.splitlines()[2].split()
    assert head[0] == "layer"
    assert {"dr", "dr_error", "dr_imdb_norm_layers", "outcome"} <= set(head)
    assert done.err == ""


def test_an_order_is_sorted_within_its_groups(pai: Pai) -> None:
    masks = [
        SAMPLES / f"{method}-{density}.safetensors" for method in ("erk", "synflow") for density in ("0.02", "0.05")
    ]
    rows = pai("rank", *masks, "--columns", "density_group,method,rank", "--sort", "method", "--format", "json").json()
    assert rows == [
        {"density_group": 0, "method": "erk", "rank": 2},
        {"density_group": 0, "method": "synflow", "rank": 1},
        {"density_group": 1, "method": "erk", "rank": 2},
        {"density_group": 1, "method": "synflow", "rank": 1},
    ]


def test_the_column_that_decides_is_called_as_what_decides(pai: Pai) -> None:
    words = ("rank", *MASKS, "--by", "dr", "--sort=-dr", "--format")
    assert pai(*words, "csv", "--columns", "rank,dr").out == pai(*words, "csv", "--columns", "rank,value").out
    assert pai(*words, "markdown", "--columns", "rank,dr").out.splitlines()[0].split() == ["|", "rank", "|", "dr", "|"]
    assert pai("rank", *MASKS, "--format", "csv", "--columns", "dr_imdb").status == 0  # the usual one
    assert pai("rank", *MASKS, "--format", "csv", "--columns", "dr").status == 2
    found = pai_library.rank(MASKS, by="dr")
    assert pai_library.to_text(found, "csv", columns="rank,dr") == pai_library.to_text(
        found, "csv", columns="rank,value"
    )


def test_correlations_have_columns_and_an_order(pai: Pai, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("mask,a,b,c,accuracy\n" + "".join(f"m{k},{k},{-k},{(k * 7) % 11},0.{k + 20}\n" for k in range(10)))
    flags = ("--table", table, "--columns", "metric,tau,n", "--sort", "-tau", "--resamples", "100")
    found = pai("rank", *flags, "--format", "json").json()
    assert [list(one) for one in found["correlations"]] == [["metric", "tau", "n"]] * 3
    assert [one["metric"] for one in found["correlations"]] == ["a", "c", "b"]
    lines = [line for line in pai("rank", *flags, "--format", "markdown").out.splitlines() if line.startswith("|")]
    assert [cells_of_markdown(line)[0] for line in (lines[0], *lines[2:])] == ["metric", "a", "c", "b"]
    done = pai("rank", "--table", table, "--columns", "rank")
    assert (done.status, done.out) == (2, "")
    assert "--columns rank: no such column; " in done.said[-1]


@pytest.mark.parametrize("command", ["methods", "metrics", "models"])
def test_lists_are_chosen_from_too(pai: Pai, command: str) -> None:
    names = [one["name"] for one in pai(command, "--columns", "name", "--sort", "-name", "--format", "json").json()]
    assert len(names) > 5
    assert names != [one["name"] for one in pai(command, "--format", "json").json()]
    assert set(names) == {one["name"] for one in pai(command, "--format", "json").json()}


def test_tensors_of_a_file_are_chosen_from(pai: Pai) -> None:
    found = pai("info", MASKS[0], "--columns", "tensor,kept", "--sort", "-kept", "--format", "json").json()
    kept = [one["kept"] for one in found[1:]]  # the file itself is first
    assert kept == sorted(kept, reverse=True)
    assert found[0] == {"tensor": None, "kept": sum(kept)}


@pytest.mark.parametrize(
    "words",
    [
        ("analyze", MASKS[0], "--columns", "dnsity"),
        ("analyze", MASKS[0], "--between", "--weights", SAMPLES / "resnet20.safetensors", "--sort", "dr"),
        ("rank", *MASKS, "--sort", "tau"),
        ("info", MASKS[0], "--columns", "rank"),
        ("methods", "--sort", "nam"),
    ],
)
def test_wrong_columns_are_wrong_usage(pai: Pai, words: tuple[object, ...]) -> None:
    done = pai(*words)
    assert (done.status, done.out, len(done.said)) == (2, "", 1)
    assert ": no such column; " in done.said[0]


@pytest.mark.parametrize("kind", ["markdown", "latex"])
def test_every_command_with_tables_writes_them_for_papers(pai: Pai, here: Path, kind: str) -> None:
    commands = (
        ("prune", "small.safetensors", "--method", "erk", "--density", "0.5", "-o", "m"),
        ("convert", "m", "-o", "n"),
        ("mine", "m", "n", "--support", "2"),
        ("mine", "m", "n", "--overlap"),
        ("info", "m"),
        ("sample", "small.safetensors", "--construct", "biregular", "-o", "b"),
        ("analyze", "m", "--between", "--weights", "small.safetensors"),
    )
    for words in commands:
        done = pai(*words, "--format", kind)
        assert done.status == 0, done.err
        assert ("\\begin{tabular}" if kind == "latex" else "| ---") in done.out, words
        assert "─" not in done.out
    assert pai("analyze", "m", "--format", kind, "--no-header").status == 2


# --- the library


def test_the_library_writes_what_the_commands_write(pai: Pai) -> None:
    reports = pai_library.analyze(MASKS, summary=True)
    for kind in ("markdown", "latex", "csv", "json"):
        words = ("--columns", "mask,dr_imdb", "--sort", "-dr_imdb", "--format", kind)
        wanted = pai("analyze", *MASKS, "--summary", *words).out
        assert pai_library.to_text(reports, kind, columns="mask,dr_imdb", sort="-dr_imdb") == wanted.strip("\n")
    one = pai_library.analyze(MASKS[0])
    for kind in ("table", "markdown", "jsonl"):
        wanted = pai("analyze", MASKS[0], "--columns", "layer,dr", "--sort", "dr", "--format", kind).out
        found = pai_library.to_text(one, kind, columns=["layer", "dr"], sort="dr")
        assert found.split() == wanted.split()  # where it is wide, lines have spaces at their ends
    ranking = pai_library.rank(MASKS)
    assert pai_library.to_text(ranking, "csv") == pai("rank", *MASKS, "--format", "csv").out.strip("\n")
    assert pai_library.to_text(pai_library.list_models(), "jsonl", sort="-name").startswith('{"name": "wrn-')


def test_what_masks_agree_on_is_written_as_well(pai: Pai) -> None:
    names = ("--columns", "edges,share,masks", "--sort", "edges", "--format")
    mined = pai_library.mine(MASKS, 2)
    for kind in ("csv", "json", "latex"):
        wanted = pai("mine", *MASKS, "--support", 2, *names, kind).out.strip("\n")
        for found in (mined, mined.subgraphs):
            assert pai_library.to_text(found, kind, columns="edges,share,masks", sort="edges") == wanted
    wanted = pai("mine", *MASKS, "--support", 2, "--format", "markdown").out.strip("\n")
    largest = pai_library.to_text(mined, "markdown", sort="-edges")
    assert wanted.endswith(largest)
    for flags in ({}, {"columns": "other_mask,jac*", "sort": "-jaccard"}):
        words = [word for name, value in flags.items() for word in (f"--{name}={value}",)]
        for kind in ("tsv", "markdown"):
            wanted = pai("mine", *MASKS, "--overlap", *words, "--format", kind).out.strip("\n")
            assert wanted.endswith(pai_library.to_text(mined.pairs, kind, **flags))
    none = pai_library.mine(MASKS, 2, min_edges=10**6)
    assert (pai_library.to_text(none, "json"), pai_library.to_text(none, "csv")) == (
        "[]",
        "subgraph,edges,vertices,support,share,layers,masks,edge_list",
    )
    with pytest.raises(UsageError, match=r"^sort=mask: no such column; did you mean masks\?"):
        pai_library.to_text(mined, sort="mask")


@pytest.mark.parametrize("wrong", [3, "text", [], [1, 2], {"a": 1}])
def test_what_is_no_result_is_refused(wrong: object) -> None:
    with pytest.raises(ParameterError, match=r"^found=.*: give a report, several of them, "):
        pai_library.to_text(wrong)
    with pytest.raises(ParameterError, match=r"^format='xml': give one of table, markdown, latex, "):
        pai_library.to_text(wrong, "xml")


def test_shapes_are_lists_in_json_and_texts_in_pandas() -> None:
    report = pai_library.analyze(MASKS[0])
    assert report.layers["conv1.weight"].to_dict()["shape"] == [16, 3, 3, 3]
    assert json.loads(json.dumps(report.to_dict()))["layers"] == report.to_dict()["layers"]
    assert report.to_dict()["network"]["method"] == "erk"
    assert report.to_pandas()["shape"][0] == "16x3x3x3"
