"""Makes examples/quickstart.ipynb from the cells below and what they give; with --check, says whether it differs.

The cells run as in a notebook, in an empty folder: what the last expression of a cell gives is shown as it shows itself.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parent.parent / "examples" / "quickstart.ipynb"

CELLS = (
    "# Prune, measure, rank\n\nA network, three masks of it, and how well connected each is. No training.",
    ">import pai_cli as pai\n\nmodel = pai.init('lenet-300-100', seed=0)\n"
    "mask = pai.prune(model, 'synflow', density=0.05)\nmask",
    "How well connected is it? Every value has a bound on its error, or the reason why there is none.",
    ">report = pai.analyze(mask, weights=model)\nreport",
    ">value = report['dr_imdb']\nround(value.value, 4), value.error < 1e-6, value.reason",
    "Masks of several methods, in the order in which they are expected to train.",
    ">masks = {name: pai.prune(model, name, density=0.05) for name in ('erk', 'magnitude', 'synflow')}\n"
    "pai.rank(masks, weights=model)",
    "Train under a mask: pruned weights stay exactly 0, whatever the optimizer.",
    ">import torch\n\noptimizer = torch.optim.Adam(model.parameters())\nwith mask.apply(model, optimizer):\n"
    "    model(torch.ones(2, 784)).sum().backward()\n    optimizer.step()\npai.Mask.of(model).density",
)


def _markdown(text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": text.splitlines(keepends=True)}


def _code(source: str, number: int, names: dict[str, Any]) -> dict[str, Any]:
    """The cell, run."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "cell", "exec"), names)
        value = None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)  # type: ignore[attr-defined]
    outputs: list[dict[str, Any]] = []
    if value is not None:
        shown = {"text/plain": repr(value).splitlines(keepends=True)}
        if hasattr(value, "_repr_html_"):
            shown["text/html"] = value._repr_html_().splitlines(keepends=True)
        outputs.append({"output_type": "execute_result", "execution_count": number, "metadata": {}, "data": shown})
    return {
        "cell_type": "code",
        "execution_count": number,
        "metadata": {},
        "outputs": outputs,
        "source": source.splitlines(keepends=True),
    }


def notebook() -> str:
    """The whole notebook as JSON. Cells run in the current folder."""
    os.environ["COLUMNS"] = "160"  # of tables as text
    names: dict[str, Any] = {"__name__": "__main__"}
    cells, number = [], 0
    for text in CELLS:
        if text.startswith(">"):
            number += 1
            cells.append(_code(text[1:], number, names))
        else:
            cells.append(_markdown(text))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    whole = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 4}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    """Write the notebook, or check it."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            wanted = notebook()
        finally:
            os.chdir(here)
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(wanted, encoding="utf-8")
        return 0
    return int(TARGET.read_text(encoding="utf-8") != wanted)


if __name__ == "__main__":
    sys.exit(main())
