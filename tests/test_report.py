"""The page: whole in itself, safe with any name, readable everywhere; looked at by a real browser where there is one."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SAMPLES, Pai, random_mask, run_pai, save_mask
from workers import PATIENCE

from pai_cli import __version__
from pai_cli.display.report import analysis, page
from pai_cli.display.report.tables import cells_of, in_full
from pai_cli.display.tables import number
from pai_cli.spectral.catalogue import METRICS

pytestmark = pytest.mark.usefixtures("measured_once")

SAME_DENSITY = sorted(SAMPLES.glob("*-0.05.safetensors"))
WEIGHTS = SAMPLES / "resnet20.safetensors"
EVIL = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"


@dataclass
class Seen(HTMLParser):
    """What is in a page: its elements, and each table's cells."""

    text: str
    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    tables: dict[str, list[list[dict[str, Any]]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()
        self._table: list[list[dict[str, Any]]] = []
        self._cell: dict[str, Any] | None = None
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        self.elements.append((tag, told))
        if tag == "table":
            self._table = self.tables.setdefault(told["id"] or "", [])
        elif tag == "tr":
            self._table.append([])
        elif tag in ("td", "th"):
            self._cell = {**told, "text": ""}
            self._table[-1].append(self._cell)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._cell = None

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell["text"] += data


@pytest.fixture(scope="module")
def written(pai: Pai, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of three masks and their weights."""
    out = tmp_path_factory.mktemp("page") / "three.html"
    done = pai("analyze", *SAME_DENSITY[:3], "--weights", WEIGHTS, "--summary", "--report", out)
    assert done.status == 0
    assert done.said[-1] == f"pai: wrote {out}: tables and pictures of 3 masks, to be opened in a browser"
    return out


@pytest.fixture(scope="module")
def evil(pai: Pai, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of masks whose files, layers and metadata are markup."""
    folder = tmp_path_factory.mktemp("evil")
    names = [f"{EVIL.replace('/', '')}-{at}.safetensors" for at in range(2)]
    layers = {f"{EVIL}.{at}": random_mask((16, 16), 0.5, at) for at in range(3)}
    for name in names:
        save_mask(folder / name, layers, method=EVIL)
    (folder / "<b>broken<b>.safetensors").write_bytes(b"nothing")
    done = pai("analyze", *sorted(folder.iterdir()), "--report", folder / "evil.html")
    assert done.status == 1  # one mask is broken
    return folder / "evil.html"


def test_another_suffix_is_refused_before_any_work(pai: Pai, tmp_path: Path) -> None:
    for command in (["analyze", SAME_DENSITY[0]], ["rank", *SAME_DENSITY]):
        done = pai(*command, "--report", tmp_path / "out.pdf")
        assert (done.status, done.out) == (2, "")
        assert done.said == [f"pai: error: {tmp_path}/out.pdf: --report writes .html; end the file's name in that"]


def test_an_existing_page_stays_without_force(pai: Pai, tmp_path: Path) -> None:
    (tmp_path / "out.html").write_text("mine")
    done = pai("analyze", SAME_DENSITY[0], "--report", tmp_path / "out.html")
    assert done.said == [f"pai: error: {tmp_path}/out.html: exists already; --force replaces it"]
    assert (tmp_path / "out.html").read_text() == "mine"


def test_the_same_masks_give_the_same_bytes(pai: Pai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the same moment, which reproducible builds set, and asked in the same words."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    mask = save_mask(tmp_path / "m.safetensors", {"layer": random_mask((16, 16), 0.5, 0)})
    found = []
    for _ in range(2):
        assert pai("analyze", mask, "--report", tmp_path / "one.html", "--force").status == 0
        found.append((tmp_path / "one.html").read_bytes())
    assert found[0] == found[1]
    assert b"2023-11-14T22:13:20Z" in found[0]


def facts(text: str) -> dict[str, str]:
    return dict(re.findall(r"<dt>([^<]*)</dt><dd>([^<]*)</dd>", text))


def test_a_page_says_what_was_asked_and_what_it_means(written: Path) -> None:
    told = facts(written.read_text(encoding="utf-8"))
    assert told["asked"].startswith("pai analyze ")
    assert told["asked"].endswith(f"--report {written}")
    assert told["by"] == f"pai {__version__}"
    assert told["weights"] == f"{WEIGHTS}, SHA-256 {hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()}"
    assert told["dr"] == METRICS["dr"].meaning
    assert told["density"] == "kept weights / all weights"
    assert "tau" not in told  # no column of this page


def test_a_point_says_which_mask_it_is(pai: Pai, tmp_path: Path) -> None:
    words = (
        "rank",
        *SAME_DENSITY,
        "--weights",
        WEIGHTS,
        "--report",
        tmp_path / "out.html",
        "--plot",
        tmp_path / "out.svg",
    )
    assert pai(*words).status == 0
    for name in ("out.html", "out.svg"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        titles = re.findall(r'<g class="dot">\s*<title>([^<]*)</title>', text)
        assert sorted(titles) == sorted(2 * [path.stem for path in SAME_DENSITY])
        assert 'xlink:href="title' not in text
    assert "synflow-0.05.safetensors is the first of 5 masks at density 0.05, l2 3.3554" in " ".join(
        (tmp_path / "out.html").read_text(encoding="utf-8").split()
    )


@pytest.mark.parametrize("which", ["written", "evil"])
def test_nothing_comes_from_elsewhere(which: str, request: pytest.FixtureRequest) -> None:
    seen = Seen(request.getfixturevalue(which).read_text(encoding="utf-8"))
    for tag, told in seen.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            link = told.get(name)
            assert link is None or link.startswith(("#", "data:")), (tag, link)
        assert not [name for name in told if name.startswith("on")]
    assert [tag for tag, _ in seen.elements].count("script") == 1
    ids = [told["id"] for _, told in seen.elements if "id" in told]
    rule = next(told["content"] for _, told in seen.elements if told.get("http-equiv") == "Content-Security-Policy")
    assert rule is not None
    assert rule.startswith("default-src 'none'; script-src 'sha256-")
    digest = base64.b64encode(hashlib.sha256(page.SCRIPT.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in rule
    assert {name for name in ids if ids.count(name) > 1} == set()


def test_names_are_text_and_nothing_else(evil: Path) -> None:
    text = evil.read_text(encoding="utf-8")
    seen = Seen(text)
    assert [tag for tag, _ in seen.elements if tag in ("img", "b")] == []
    assert "<img" not in text
    assert "&lt;script&gt;document.title" in text
    rows = seen.tables["layers-1"]
    assert [row[0]["text"] for row in rows[1:4]] == [f"{EVIL}.{at}" for at in range(3)]
    assert "&lt;b&gt;broken&lt;b&gt;.safetensors: " in text  # the failed one, with its reason


def test_numbers_are_the_tables_and_in_full(pai: Pai, written: Path) -> None:
    seen = Seen(written.read_text(encoding="utf-8"))
    rows = pai("analyze", *SAME_DENSITY[:3], "--weights", WEIGHTS, "--format", "json").json()
    networks = {row["mask"]: row for row in rows if row["level"] == "network"}
    heads = [cell["text"] for cell in seen.tables["networks"][0]]
    for row in seen.tables["networks"][1:]:
        record = networks[row[0]["text"]]
        for head, cell in list(zip(heads, row, strict=True))[1:-1]:
            value = record[head]
            assert cell["text"] == number(value)
            if isinstance(value, float):
                assert float(cell["data-order"]) == value
                assert abs(float(cell["title"].split(" ±")[0]) - value) <= (record.get(f"{head}_error") or 0.0)
            if f"{head}_error" in record and value is not None:
                layers = record.get(f"{head}_layers")
                over = "" if layers is None else f", mean of {layers} layers"
                assert f"± {record[f'{head}_error']:.1e}{over}" in cell["title"]
    first = [row for row in rows if row["mask"] == str(SAME_DENSITY[0])]
    assert len(seen.tables["layers-1"]) == len(first) + 1
    assert seen.tables["layers-1"][-1][0]["text"] == "network mean"


@pytest.mark.parametrize("weighted", [False, True])
def test_a_graph_s_own_weights_are_columns(weighted: bool, pai: Pai, tmp_path: Path) -> None:
    edges = ["a x", "a y", "b x", "b y", "c x", "c z"]
    text = "\n".join(f"{edge} {at + 1}" if weighted else edge for at, edge in enumerate(edges))
    (tmp_path / "g.txt").write_text(text)
    assert pai("analyze", tmp_path / "g.txt", "--report", tmp_path / "one.html").status == 0
    page = (tmp_path / "one.html").read_text()
    assert (">lambda<" in page, ">l2<" in page) == (weighted, weighted)
    assert ">sigma_1<" in page


def test_cells_tell_the_error_of_one_layer() -> None:
    (cell,) = cells_of({"dr": 1.23456789, "dr_error": 2e-12, "dr_layers": 1}, ["dr"])
    assert (cell.text, cell.title, cell.sort) == ("1.2346", "1.23456789 ± 2.0e-12, of 1 layer", 1.23456789)
    assert cells_of({"dr": None}, ["dr"])[0].text == "-"


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (1.2345678901234567, 1.1e-08, "1.234567890"),
        (123.45678901234567, 2e-8, "123.456789012"),
        (-0.0012345678901234567, 9e-12, "-0.0012345678901"),
        (1.2345678901234567, 0.0, "1.2345678901234567"),
        (1.2345678901234567, None, "1.2345678901234567"),
        (1.2345678901234567, 1e-30, "1.2345678901234567"),
        (1.23, 40.0, "1.0"),
        (0.0, 1e-9, "0.0"),
    ],
)
def test_numbers_in_full_end_where_their_error_begins(value: float, error: float | None, shown: str) -> None:
    assert in_full(value, error) == repr(float(shown))


def test_layers_of_so_many_masks(pai: Pai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, "MOST_TABLES", 2)
    masks = [save_mask(tmp_path / f"{at}.safetensors", {"w": random_mask((16, 16), 0.5, at)}) for at in range(3)]
    assert pai("analyze", *masks, "--report", tmp_path / "out.html").status == 0
    text = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert set(Seen(text).tables) == {"networks", "layers-1", "layers-2"}
    assert len(Seen(text).tables["networks"]) == 4
    assert "Of the first 2 masks; analyze others apart to see theirs." in text


def test_rank_reports_an_order(pai: Pai, tmp_path: Path) -> None:
    assert pai("rank", *SAME_DENSITY, "--report", tmp_path / "out.html").status == 0
    ranked = pai("rank", *SAME_DENSITY, "--format", "json").json()
    table = Seen((tmp_path / "out.html").read_text(encoding="utf-8")).tables["group-0"]
    assert [cell["text"] for cell in table[0]] == ["rank", "mask", "method", "density", "dr_imdb", "layers", "decided"]
    assert [row[1]["text"] for row in table[1:]] == [row["mask"] for row in ranked]
    assert [float(row[4]["data-order"]) for row in table[1:]] == [row["value"] for row in ranked]


def test_rank_reports_correlations(pai: Pai, tmp_path: Path) -> None:
    rows = "\n".join(f"{mask},{0.5 + 0.05 * at}" for at, mask in enumerate(SAME_DENSITY))
    (tmp_path / "a.csv").write_text(f"mask,accuracy\n{rows}\n")
    few = ["--resamples", 100, "--metrics", "dr_imdb,sigma_1"]
    command = ["rank", *SAME_DENSITY, "--accuracy", tmp_path / "a.csv", *few]
    assert pai(*command, "--report", tmp_path / "out.html").status == 0
    found = pai(*command, "--format", "json").json()["correlations"]
    seen = Seen((tmp_path / "out.html").read_text(encoding="utf-8"))
    heads = [cell["text"] for cell in seen.tables["scope-0"][0]]
    first = dict(zip(heads, seen.tables["scope-0"][1], strict=True))
    assert first["metric"]["text"] == found[0]["metric"]
    assert float(first["tau"]["data-order"]) == found[0]["tau"]
    assert len(seen.tables["masks"]) == 6


# --- in a browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine; the test installs nothing")

DRIVER = """
const told = {title: document.title, width: [window.innerWidth, document.documentElement.scrollWidth], sorts: []};
const table = document.querySelector("table.sortable");
const heads = Array.from(table.tHead.rows[0].cells);
const column = place => Array.from(table.tBodies[0].rows).map(row => row.cells[place].textContent);
for (const name of NAMES) {
  const place = heads.findIndex(head => head.textContent === name);
  const button = heads[place].querySelector("button");
  button.focus();
  told.focused = document.activeElement === button && button.tabIndex === 0;
  for (let turn = 0; turn < 2; turn++) {
    button.click();
    told.sorts.push({name, aria: heads.map(head => head.getAttribute("aria-sort")), values: column(place)});
  }
}
told.foot = table.tFoot ? table.tFoot.rows[0].cells[0].textContent : null;
told.wide = Array.from(document.querySelectorAll(".wide"))
  .filter(one => one.getBoundingClientRect().right > window.innerWidth).length;
told.first = table.tBodies[0].rows[0].cells[0].getBoundingClientRect().width;
told.heads = heads.map(head => getComputedStyle(head, "::before").content);
told.scrolls = Array.from(document.querySelectorAll(".wide")).some(one => one.scrollWidth > one.clientWidth);
told.ground = getComputedStyle(document.body).backgroundColor;
told.ink = getComputedStyle(document.querySelector("svg text")).fill;
window.parent.postMessage(JSON.stringify(told), "*");
"""
FRAME = """<!DOCTYPE html><meta charset="utf-8"><iframe src="driven.html" width="390" height="800" style="border:0">
</iframe><pre id="told"></pre>
<script>addEventListener("message", one => document.getElementById("told").textContent = one.data)</script>"""


def looked_at(
    written: Path, folder: Path, names: list[str], *flags: str, width: int = 390, printed: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """What the page is like in a frame of `width` pixels after clicks on these heads; and what the browser complained of.

    `printed`: by the style of paper.
    """
    driver = DRIVER.replace("NAMES", json.dumps(names))
    digest = base64.b64encode(hashlib.sha256(driver.encode()).digest()).decode()
    text = written.read_text(encoding="utf-8")
    if printed:
        assert text.count("@media print") == 1
        text = text.replace("@media print", "@media all")
    text = text.replace("script-src '", f"script-src 'sha256-{digest}' '", 1)
    (folder / "driven.html").write_text(text.replace("</body>", f"<script>{driver}</script></body>"), encoding="utf-8")
    (folder / "frame.html").write_text(FRAME.replace('width="390"', f'width="{width}"'), encoding="utf-8")
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
            *("--no-first-run", f"--user-data-dir={folder / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND"),
            *("--hide-scrollbars", "--enable-logging=stderr", "--virtual-time-budget=10000", "--dump-dom", *flags),
            (folder / "frame.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    told = re.search(r'<pre id="told">(.*?)</pre>', done.stdout, re.DOTALL)
    assert told is not None, done.stderr
    answer = re.sub("&lt;", "<", re.sub("&gt;", ">", told[1].replace("&amp;", "&")))
    return json.loads(answer), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@needs_browser
def test_a_click_sorts_and_nothing_is_wider_than_a_phone(written: Path, tmp_path: Path) -> None:
    told, complaints = looked_at(written, tmp_path, ["l2", "mask", "dr_imdb"])
    assert complaints == []
    assert told["focused"]  # with the keyboard: a button that can be reached
    l2_down, l2_up, mask_up, mask_down, *_ = told["sorts"]
    sizes = [float(value) for value in l2_down["values"]]
    assert sizes == sorted(sizes, reverse=True)
    assert l2_up["values"] == l2_down["values"][::-1]
    assert mask_up["values"] == sorted(mask_up["values"])
    assert mask_down["values"] == mask_up["values"][::-1]
    for turn, way in ((l2_down, "descending"), (l2_up, "ascending"), (mask_up, "ascending"), (mask_down, "descending")):
        assert [one for one in turn["aria"] if one is not None] == [way]
    assert told["width"] == [390, 390]
    assert told["wide"] == 0
    assert told["scrolls"]  # tables and pictures within their own frames
    assert (told["ground"], told["ink"]) == ("rgb(255, 255, 255)", "rgb(31, 35, 40)")


@needs_browser
def test_in_the_dark_and_with_evil_names(evil: Path, tmp_path: Path) -> None:
    told, complaints = looked_at(evil, tmp_path, ["dr_imdb"], "--blink-settings=preferredColorScheme=0")
    assert complaints == []
    assert told["title"] == "2 masks analyzed"
    assert told["width"] == [390, 390]
    assert (told["ground"], told["ink"]) == ("rgb(20, 23, 26)", "rgb(230, 232, 235)")


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a mask of 42 layers with long names."""
    folder = tmp_path_factory.mktemp("deep")
    random = np.random.default_rng(0)
    names = [f"model.encoder.blocks.{at}.attention.output.dense.weight" for at in range(42)]
    save_mask(folder / "deep.safetensors", {name: random.random((24, 16)) < 0.3 for name in names})
    written = folder / "deep.html"
    assert run_pai("analyze", folder / "deep.safetensors", "--report", written).status == 0
    return written


@needs_browser
def test_long_names_leave_room_on_a_phone(deep: Path, tmp_path: Path) -> None:
    told, complaints = looked_at(deep, tmp_path, ["density"])
    assert complaints == []
    assert told["width"] == [390, 390]
    assert 100 < told["first"] < 195


@needs_browser
def test_paper_loses_nothing(deep: Path, tmp_path: Path) -> None:
    """Within the width of a page on its side (273 mm between the margins); heads are text, which is printed on each page."""
    told, complaints = looked_at(deep, tmp_path, ["density"], width=1032, printed=True)
    assert complaints == []
    assert told["width"] == [1032, 1032]
    assert told["wide"] == 0
    assert not told["scrolls"]
    assert told["heads"][:3] == ['"layer"', '"shape"', '"density"']


@needs_browser
def test_missing_values_come_last_either_way(pai: Pai, tmp_path: Path) -> None:
    assert pai("analyze", SAMPLES / "erk-0.05.safetensors", "--report", tmp_path / "one.html").status == 0
    told, complaints = looked_at(tmp_path / "one.html", tmp_path, ["dr"])
    assert complaints == []
    for turn in told["sorts"]:
        assert turn["values"][4:] == ["-"] * 16
        assert "-" not in turn["values"][:4]
    assert [float(value) for value in told["sorts"][1]["values"][:4]] == [-0.46016, 0.12702, 1.8214, 10.937]
    assert told["foot"] == "network mean"
