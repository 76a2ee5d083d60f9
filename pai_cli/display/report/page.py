"""The page around tables and pictures: its style, its script, and the rule that nothing comes from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape

from pai_cli.printable import as_line
from pai_cli.spelling import for_shell

STYLE = """
:root {
  color-scheme: light dark;
  --ground: #ffffff; --raised: #f5f6f8; --ink: #1f2328; --faint: #6b7280; --grid: #d5d8dd; --accent: #0072b2;
  --series-1: #0072b2; --series-2: #d55e00; --series-3: #009e73; --series-4: #cc79a7; --series-5: #e69f00;
  --series-6: #56b4e9;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #14171a; --raised: #1e2328; --ink: #e6e8eb; --faint: #9aa3ad; --grid: #3a4149; --accent: #6cc0f5;
    --series-1: #4aa8e8; --series-2: #f0803c; --series-3: #2fc59b; --series-4: #e39cc4; --series-5: #f0b840;
    --series-6: #8fd0f5;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1rem; max-width: 80rem; overflow-wrap: anywhere;
  font: 1rem/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground);
}
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0.5rem 0; }
h2 { font-size: 1.2rem; line-height: 1.3; margin: 2rem 0 0.5rem; }
p { margin: 0.5rem 0; max-width: 46rem; }
figure { margin: 1rem 0; }
figcaption, caption, .faint { color: var(--faint); font-size: 0.875rem; text-align: left; }
caption { padding: 0.25rem 0; }
.wide { overflow-x: auto; max-width: 100%; }
.wide:focus-visible, summary:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
dl.facts { display: grid; grid-template-columns: max-content 1fr; gap: 0.15rem 1rem; font-size: 0.875rem; margin: 0.5rem 0; }
dl.facts dt { color: var(--faint); }
dl.facts dd { margin: 0; }
input.find {
  font: inherit; font-size: 0.875rem; color: inherit; background: var(--raised); border: 1px solid var(--grid);
  border-radius: 0.25rem; padding: 0.3rem 0.5rem; margin: 0.5rem 0 0; width: 16rem; max-width: 100%;
}
input.find:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; }
svg { display: block; height: auto; width: 100%; }
svg .dot:hover { stroke-width: 2.5; }
table { border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.6rem; text-align: right; white-space: nowrap; font-weight: normal; }
th.text, td.text { text-align: left; }
thead th { border-bottom: 1px solid var(--faint); vertical-align: bottom; font-weight: 600; }
thead button {
  font: inherit; color: inherit; background: none; border: 0; margin: 0; padding: 0.25rem 0; cursor: pointer;
  min-height: 1.75rem;
}
thead button:hover { color: var(--accent); }
thead button:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
thead button::after { content: "\\2195"; padding-left: 0.35em; color: var(--faint); }
th[aria-sort=ascending] button::after { content: "\\2191"; color: var(--accent); }
th[aria-sort=descending] button::after { content: "\\2193"; color: var(--accent); }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--ground); }
tbody tr:hover, tbody tr:hover > :first-child { background: var(--raised); }
tfoot th, tfoot td { border-top: 1px solid var(--faint); font-weight: 600; }
.long { white-space: normal; min-width: 14rem; }
details { margin: 0.5rem 0; border-top: 1px solid var(--grid); padding-top: 0.5rem; }
summary { cursor: pointer; padding: 0.25rem 0; }
@media (max-width: 48rem) {
  th.text:first-child, td.text:first-child { min-width: 9rem; white-space: normal; }
}
@page { size: landscape; margin: 12mm; }
@media print {
  :root {
    color-scheme: light; --ground: #ffffff; --raised: #ffffff; --ink: #000000; --faint: #4b5563; --grid: #c5c9cf;
    --accent: #000000; --series-1: #0072b2; --series-2: #d55e00; --series-3: #009e73; --series-4: #cc79a7;
    --series-5: #e69f00; --series-6: #56b4e9;
  }
  body { max-width: none; padding: 0; font-size: 9pt; }
  details::details-content { content-visibility: visible; height: auto; }
  .wide { overflow: visible; }
  svg { min-width: 0 !important; max-height: 150mm; }
  .tall svg { max-height: none; }
  th, td { white-space: normal; padding: 0.1rem 0.15rem; position: static; overflow-wrap: normal; }
  table { font-size: 6.5pt; width: 100%; }
  td.text { white-space: nowrap; }
  th.text:first-child, td.long { white-space: normal; min-width: 11em; overflow-wrap: anywhere; }
  tr, figure { break-inside: avoid; }
  figure.tall { break-inside: auto; }
  input.find, thead button { display: none; }
  th[data-name]::before { content: attr(data-name); }
  tfoot { display: table-row-group; }
}
"""

SCRIPT = """
"use strict";
const words = new Intl.Collator(undefined, {numeric: true});

function order(cell) {
  return "order" in cell.dataset ? Number(cell.dataset.order) : null;
}

function compare(a, b, sign) {
  const [one, two] = [order(a), order(b)];
  if (one !== null || two !== null) {
    if (one === null) return 1;
    if (two === null) return -1;
    return sign * (one - two);
  }
  const [left, right] = [a.textContent, b.textContent];
  if ((left === "-") !== (right === "-")) return left === "-" ? 1 : -1;
  return sign * words.compare(left, right);
}

function sort(table, head) {
  const place = head.cellIndex, body = table.tBodies[0];
  const up = head.getAttribute("aria-sort") === "descending"
    || (!head.hasAttribute("aria-sort") && head.classList.contains("text"));
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const rows = Array.from(body.rows);
  rows.sort((a, b) => compare(a.cells[place], b.cells[place], up ? 1 : -1));
  body.append(...rows);
}

function finder(table) {
  const box = document.createElement("input");
  box.type = "search";
  box.className = "find";
  box.placeholder = "find " + table.tHead.rows[0].cells[0].textContent;
  box.setAttribute("aria-label", box.placeholder);
  box.addEventListener("input", () => {
    const wanted = box.value.trim().toLowerCase();
    for (const row of table.tBodies[0].rows) row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
  });
  table.parentElement.before(box);
}

for (const table of document.querySelectorAll("table.sortable")) {
  if (table.tBodies[0].rows.length > 12) finder(table);
  for (const head of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.dataset.name = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => sort(table, head));
  }
}
"""


def page(title: str, parts: Sequence[str]) -> str:
    """A whole page. `title` is text, `parts` are HTML in which every text from outside is escaped already."""
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy()}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n<link rel="icon" href="data:,">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"{body}\n</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def policy() -> str:
    """What a browser may do for this page: run the one script that is in it, style it, and fetch nothing at all."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    rules = (
        "default-src 'none'",
        f"script-src 'sha256-{digest}'",
        "style-src 'unsafe-inline'",  # shapes of a picture carry their style
        "img-src data:",  # a map of very many cells stands in the page as dots
        "base-uri 'none'",
        "form-action 'none'",
    )
    return "; ".join(rules)


def text(words: str) -> str:
    """Words from anywhere, as HTML: nothing in them is markup, parameters and control characters are spelled out."""
    return escape(as_line(for_shell(words)))


def paragraph(words: str, *, faint: bool = False) -> str:
    """Words from anywhere as a paragraph."""
    return f'<p class="faint">{text(words)}</p>' if faint else f"<p>{text(words)}</p>"


def heading(words: str, level: int = 2) -> str:
    """Words from anywhere as a heading."""
    return f"<h{level}>{text(words)}</h{level}>"


def folded(summary: str, content: str, *, is_open: bool) -> str:
    """Content that opens on request; `summary` is text, `content` HTML."""
    return f"<details{' open' if is_open else ''}><summary>{text(summary)}</summary>\n{content}\n</details>"
