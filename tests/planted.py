"""Faults planted one after the other in a copy of the package, each of which the tests named with it must find.

`make planted` tries all of them, `python tests/planted.py NAME ...` some. It says which test caught each, and fails when
one was caught by none: to be run when tests are thinned out, as fewer may find as much.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("pai_cli", "tests", "sample_masks", "docs", "pyproject.toml", "README.md")


@dataclass(frozen=True)
class Fault:
    """In `path`, below the package, `old` (there once) becomes `new`; a test of the modules `tests` fails then."""

    path: str
    old: str
    new: str
    tests: str


FAULTS = {
    "a buffer filled too early": Fault(
        "compute/uploads.py",
        "            end.synchronize()\n        return buffer",
        "            pass\n        return buffer",
        "device_stream",
    ),
    "bits from the other end": Fault(
        "analysis/unread.py", "torch.arange(7, -1, -1, ", "torch.arange(0, 8, ", "device_stream"
    ),
    "bits past the end": Fault("analysis/unread.py", "    if spare:\n", "    if False:\n", "device_stream"),
    "a batch that is not recalled": Fault(
        "analysis/device_stream.py",
        "sum(other.recalled() for other in self._ahead) > 0",
        "False",
        "device_stream",
    ),
    "a file that was exchanged": Fault(
        "files/spans.py", "stamp_of(file) == span.stamp and _filled", "_filled", "device_stream"
    ),
    "pruned weights that stay away": Fault(
        "pruning/run.py", "None if request.method.recovers else masks", "masks", "force_fisher"
    ),
    "a round of as many weights left out": Fault(
        "pruning/run.py", "counts != before or recovers", "counts != before", "force_fisher"
    ),
    "running statistics of the last batches": Fault(
        "methods/supervised.py", "norm.momentum = None", "norm.momentum = 0.1", "force_fisher"
    ),
    "probes that are summed": Fault(
        "methods/supervised.py", "torch._foreach_div_(list(diagonal.values()), probes)", "pass", "hutchinson"
    ),
    "samples that share their probes": Fault(
        "methods/supervised.py", "(batch,) if self._by_batch else batch.by_sample()", "(batch,)", "hutchinson"
    ),
    "a GPU that is slower": Fault("analysis/places.py", "if there >= here:", "if False:", "devices"),
    "the sign of a gap": Fault(
        "spectral/result.py",
        "gap, error = self.sigma_1 - self.sigma_2",
        "gap, error = self.sigma_1 + self.sigma_2",
        "metrics",
    ),
    "a weight that a sparse mask names twice": Fault(
        "files/sparse_arrays.py", "    _refuse_twice(flat, sides)\n    found", "    found", "sparse_masks"
    ),
    "a negative index in a sparse mask": Fault(
        "files/sparse_arrays.py", "(row.min() < 0 or row.max() >= side)", "row.max() >= side", "sparse_masks"
    ),
    "weights of a head that is called mask": Fault(
        "files/stored_names.py", "not in found and binary(name):", "not in found:", "masks_beside"
    ),
    "a pointer taken for a list of edges": Fault(
        "files/first_bytes.py", "check_start(str(path), raw[:ENOUGH], error)", "pass", "first_bytes"
    ),
    "an elimination without rounding": Fault(
        "spectral/inertia.py", "roundings = found.updates + 3", "roundings = 0 * found.updates", "counting"
    ),
    "a factor of the diagonal blocks alone": Fault(
        "spectral/definite.py", "panel -= done @ done[: end - begin].T", "pass", "counting"
    ),
    "an edge told twice with other weights": Fault(
        "files/bipartite_lists.py", "(np.diff(values[order]) != 0)", "(np.diff(values[order]) > np.inf)", "graph_files"
    ),
    "half an error bound": Fault("spectral/formulas.py", "2 * off / (root", "off / (root", "metrics"),
    "a convention for the other": Fault(
        "spectral/conventions.py", "else edges > n_R", "else edges >= 3 * n_R", "metrics"
    ),
    "the subgraphs of the first layer for all": Fault(
        "spectral/metrics.py", "places = [first + layer", "places = [0 * first + layer", "table"
    ),
    "fans of the other side": Fault(
        "spectral/metrics.py",
        '("fan_in", "right_degrees"), ("fan_out", "left_degrees")',
        '("fan_in", "left_degrees"), ("fan_out", "right_degrees")',
        "metrics",
    ),
    "the output for a sink": Fault("models/unrolled/degrees.py", "if number not in last:", "if True:", "unrolled"),
    "no deflation": Fault(
        "spectral/power.py", "_outer(first[:, :n], values[:, 0])", "_outer(first[:, :n], 0 * values[:, 0])", "power"
    ),
    "a wait in the loop": Fault(
        "spectral/device/krylov.py",
        "        beside.append(length)",
        "        beside.append(length * bool(length.any()))",
        "device",
    ),
    "a float32 Gram": Fault(
        "spectral/device/solve.py", "batch.side), dtype=torch.float64", "batch.side), dtype=torch.float32", "device"
    ),
    "a dropped deflation": Fault(
        "spectral/device/squaring.py", "vectors * theta, vectors.mT", "vectors * theta * 0, vectors.mT", "device"
    ),
    "a bound without its rounding": Fault(
        "spectral/bounds.py", "widened = 1 + (side * side + 64 * side) * EPS", "widened = 1.0", "device"
    ),
    "float32 for half": Fault(
        "spectral/device/products.py", "    if product is Product.HALF:", "    if False:", "device"
    ),
    "a sum that is not looked at": Fault(
        "spectral/device/solve.py", 'found["status"][~exact] = Status.MISSED', "pass", "device"
    ),
    "bits in another order": Fault(
        "spectral/graph.py", 'count=self.n_R0, bitorder="little"', 'count=self.n_R0, bitorder="big"', "bipartite"
    ),
    "groups taken for none": Fault(
        "spectral/graph.py", "groups, first = layout.groups,", "groups, first = 1,", "bipartite"
    ),
    "transposed taken for plain": Fault(
        "spectral/graph.py", "    if layout.transposed:\n", "    if False:\n", "bipartite"
    ),
    "isolated vertices counted": Fault(
        "spectral/graph.py", "self.n_L = int(self._columns.shape[0])", "self.n_L = self.n_L0", "bipartite"
    ),
    "a path backwards that is none forwards": Fault(
        "models/unrolled/marks.py",
        "kept.flags if ever[kept.columns].all() else kept.flags & _own(kept, ever)",
        "kept.flags",
        "unrolled",
    ),
    "marks that meet at different places": Fault(
        "models/unrolled/marks.py",
        "(row_bits[row[some]] & column_bits[column[some]]).any(1)",
        "True",
        "folded",
    ),
    "a unit on a path where either end is": Fault(
        "models/unrolled/marks.py", "one.values * other.values", "one.values + other.values", "unrolled"
    ),
    "one of two that are added": Fault(
        "models/unrolled/steps.py", "total = total + value.values", "total = value.values", "unrolled"
    ),
    "slices taken for equal": Fault(
        "models/unrolled/folded.py",
        "first.setdefault(one.tobytes(), len(first))",
        "first.setdefault(one.tobytes()[:8], len(first))",
        "folded",
    ),
    "a kernel's weight for another": Fault(
        "models/unrolled/folded.py",
        "one * dilation for one in range(kernel)",
        "one * dilation for one in range(kernel)[::-1]",
        "folded",
    ),
    "columns of the first group for all": Fault(
        "models/unrolled/kept.py", "rows // each * (self.shape[1] // layout.groups)", "rows // each * 0", "folded"
    ),
    "a window past the edge": Fault(
        "models/unrolled/tape.py", "number * stride - padding + k", "number * stride + k", "unrolled"
    ),
    "a power of two forgotten": Fault(
        "models/unrolled/sums.py", "found, given.power + layer.power", "found, layer.power", "unrolled"
    ),
    "dead inputs that are alive": Fault(
        "models/unrolled/paths.py", "inputs & ~found.inputs", "inputs & found.inputs", "unrolled"
    ),
    "one too many among equals": Fault(
        "pruning/ties.py", "return min(count, keep)", "return min(count, keep + 1)", "pruning ties"
    ),
    "the last among equals": Fault(
        "pruning/ties.py", "places[:keep] if self", "places[len(places) - keep :] if self", "pruning ties"
    ),
    "counts rounded down": Fault("pruning/allocation.py", "* total + Fraction(1, 2))", "* total)", "pruning"),
    "densities in binary": Fault("pruning/allocation.py", "Fraction(repr(float(share)))", "Fraction(share)", "pruning"),
    "pruned weights tied": Fault(
        "pruning/on_device.py", "above, tied = above & alive, tied & alive", "above = above & alive", "on_device"
    ),
    "the far end": Fault("pruning/on_device.py", "largest = count <= total - count + 1", "largest = True", "on_device"),
    "a wait in each step": Fault(
        "training/steps.py", "self.totals[0].add_(loss)", "self.totals[0] += float(loss)", "feed"
    ),
    "another step's windows": Fault("training/steps.py", "epoch * steps + step)", "epoch * steps + step + 1)", "feed"),
    "scores copied each round": Fault("models/copies.py", "isinstance(masks, DeviceMasks)", "False", "on_device"),
    "signed flow": Fault("models/linearised.py", "tensor.abs_()", "tensor.abs()", "synflow"),
    "flow in float32": Fault(
        "models/linearised.py", "device, torch.float64, method", "device, torch.float32, method", "synflow"
    ),
    "one seed for all": Fault(
        "random.py", "SeedSequence(seed, spawn_key=key)", "SeedSequence(0, spawn_key=key)", "methods"
    ),
    "weights that stay as they are": Fault(
        "pruning/again.py", "(1 + perturbation * u)", "(1 + 0 * perturbation * u)", "stability"
    ),
    "stable in the last pruning": Fault(
        "pruning/again.py",
        "{name: stable & masks[name] for name, stable in self.stable.items()}",
        "{name: stable & masks[name] for name, stable in self.masks.items()}",
        "stability",
    ),
    "inputs for outputs": Fault(
        "pruning/pattern.py",
        "0 if layer.layout.transposed else 1",
        "1 if layer.layout.transposed else 0",
        "flags methods",
    ),
    "groups of inputs ablated": Fault(
        "training/moving.py",
        "self.recipe.min_salient if ablates else 0.0",
        "self.recipe.min_salient",
        "moving_patterns",
    ),
    "a full disk unsaid": Fault(
        "files/atomic.py",
        "from None\n    except OSError as e:\n",
        "from None\n    except OSError as e:\n        return\n",
        "commands files",
    ),
    "not flushed to the disk": Fault(
        "files/atomic.py",
        "file.stream.flush()\n            os.fsync(file.stream.fileno())",
        "file.stream.flush()",
        "files",
    ),
    "half a file seen": Fault("files/atomic.py", "_call(write, file.stream)\n", 'write(path.open("wb"))\n', "files"),
    "an inverted mask": Fault(
        "files/foreign/write.py", "torch.from_numpy(np.require(mask", "torch.from_numpy(~np.require(mask", "foreign"
    ),
    "another exit status": Fault("app.py", "error.status if isinstance(error, PaiError) else 1", "2", "commands"),
    "a search begun anew": Fault("sampling/state.py", "state = _state_of(kept)", "pass", "sampling"),
    "rows of another state": Fault(
        "files/journal.py", " or Chain(seen).after(1 + kept.rows) != kept.digest", "", "sealed"
    ),
    "ties that tell": Fault("ranking/statistics.py", "(counts**2).sum()) / 2", "counts.sum()) / 2", "statistics"),
    "Kendall's own partial tau": Fault(
        "ranking/partial.py",
        "np.clip(partial_correlations(np.sin(np.pi / 2 * taus)),",
        "np.clip(partial_correlations(taus),",
        "partial",
    ),
    "a sparsity as a density": Fault("ranking/densities.py", "else round(1 - share, DIGITS)", "else share", "grouping"),
    "sparsities pooled": Fault(
        "ranking/grouping.py",
        "(Kind.NETWORK, Kind.DATASET, Kind.CONVENTION, *AMOUNTS)\nNAMED",
        "(Kind.NETWORK, Kind.DATASET, Kind.CONVENTION)\nNAMED",
        "grouping",
    ),
    "worst first": Fault(
        "ranking/order.py", "-1.0 if larger_is_better else 1.0", "1.0 if larger_is_better else -1.0", "ranking"
    ),
    "more than enough masks": Fault("mining/consensus.py", "count >= support", "count > support", "mine mining"),
    "gradients of pruned weights": Fault(
        "training/applied.py", "optimizer.register_step_pre_hook(self._before_step),", "", "applied"
    ),
    "pruned weights that move": Fault(
        "training/applied.py", "optimizer.register_step_post_hook(self._after_step),", "", "applied"
    ),
    "a dense momentum loaded": Fault(
        "training/applied.py", "optimizer.register_load_state_dict_post_hook(self._forget),", "", "applied"
    ),
    "a closure's gradients": Fault(
        "training/applied.py", "            self._mask_gradients()\n            return", "            return", "applied"
    ),
    "inputs that do not count": Fault(
        "methods/wanda.py", "matrix.weight.abs() * norms", "matrix.weight.abs()", "language"
    ),
    "a block that sees no pruning before it": Fault(
        "pruning/by_block.py", "    weight.copy_(run.model.rounded(slot, pruned))\n", "", "language"
    ),
    "what the first block is given beside its inputs": Fault(
        "models/stream.py", "self.beside[block.path]", "next(iter(self.beside.values()))", "language"
    ),
    "what a network does between its blocks": Fault(
        "models/stream.py", "torch.equal(one, other)", "one.shape == other.shape", "language"
    ),
    "columns past the block that are not moved": Fault(
        "methods/sparsegpt.py", "block.errors @ factor[here, here.stop :]", "0", "language"
    ),
    "another expert's mask": Fault(
        "files/stacks.py", "(stack, self.whole.array)[number]", "(stack, self.whole.array)[0]", "stacks"
    ),
    "another expert's tokens": Fault(
        "pruning/inputs.py", "range(number, number + 1)", "range(0, 1)", "experts stacked_experts"
    ),
    "experts whose tokens are not counted": Fault(
        "pruning/inputs.py", "inputs.doubt = stack.doubt or doubt", "inputs.doubt = stack.doubt", "stacked_experts"
    ),
    "the router of Llama 4 pruned": Fault(
        "models/language.py", " if layer.name not in routers}", "}", "stacked_experts"
    ),
    "a pattern given up for one of the same density": Fault(
        "training/said.py",
        "not rest and keep == times * recipe.pattern.keep",
        "keep * recipe.pattern.of == of * recipe.pattern.keep",
        "moving_patterns",
    ),
    "experts that something else reads": Fault("pruning/inputs.py", "stack.doubt or doubt", "doubt", "stacked_experts"),
    "tokens that are not sent to an expert": Fault(
        "pruning/inputs.py", "left[number, routed]", "left[number]", "stacked_experts"
    ),
    "a folder that an interruption leaves": Fault(
        "files/model_folders.py",
        "    finally:  # Ctrl-C too must leave nothing behind\n        shutil.rmtree(folder, ignore_errors=True)",
        "    finally:\n        pass",
        "language",
    ),
    "densities that are not centred": Fault(
        "pruning/block_densities.py", "spread - spread.mean() + density", "spread + density", "block_densities"
    ),
    "momentum of weights gone": Fault(
        "training/applied.py", "value.masked_fill_(gone.to(value.device), fresh.get(key, 0.0))", "pass", "applied"
    ),
    "an edge that was pruned": Fault(
        "compacting/constants.py", "(weight != 0).to(value.dtype)", "torch.ones_like(weight)", "compacting"
    ),
    "a constant that padding cuts": Fault(
        "compacting/reading.py", "(np.isnan(level) | (there & ~inside).any(3))", "np.isnan(level)", "compacting"
    ),
    "a carrier that is taken to be 1": Fault("compacting/choosing.py", "level / level[carrier]", "level", "compacting"),
    "networks that are not compared": Fault(
        "compacting/run.py", "if worst.relative <= EXACT:", "if True:", "compacting"
    ),
    "bits of four from the other end": Fault(
        "files/foreign/two_of_four.py", 'bitorder="little"))', 'bitorder="big"))', "two_of_four"
    ),
    "outputs that are not reached first": Fault("methods/node_paths.py", "load, reached))", "load, ~reached))", "npb"),
    "kernels that may be overfull": Fault("methods/node_paths.py", "(program.room - 1).clip(0)", "program.room", "npb"),
    "outputs that lead nowhere kept": Fault("methods/npb.py", "flags & found[name].outputs", "flags", "npb"),
    "paths of a weight in one place": Fault("methods/npb.py", "columns.sum(1)", "columns.max(1)", "npb"),
}


def planted(fault: Fault, folder: Path) -> str:
    """The file's text with the fault in it. Raises `ValueError` where the text to change is not there exactly once."""
    text = (folder / "pai_cli" / fault.path).read_text(encoding="utf-8")
    if text.count(fault.old) != 1:
        raise ValueError(f"{fault.path}: {fault.old!r} stands there {text.count(fault.old)} times")
    return text.replace(fault.old, fault.new)


def caught_by(fault: Fault, folder: Path) -> str | None:
    """The first test that fails in a copy of the tree while the fault is planted, and not without it; None for none."""
    path = folder / "pai_cli" / fault.path
    whole = path.read_text(encoding="utf-8")
    path.write_text(planted(fault, folder), encoding="utf-8")
    try:
        failed = _first_failure(folder, [f"tests/test_{name}.py" for name in fault.tests.split()])
    finally:
        path.write_text(whole, encoding="utf-8")
    return failed if failed and not _first_failure(folder, [failed]) else None


def _first_failure(folder: Path, tests: list[str]) -> str | None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", "--tb=no", "-rfE", *tests],
        cwd=folder, env=os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    return found[1] if found else None


def main() -> int:
    """Plant the faults named, or all; 1 when any was not caught."""
    missed = 0
    with tempfile.TemporaryDirectory(prefix="pai-planted-") as name:
        folder = Path(name)
        for part in COPIED:
            source = ROOT / part
            copy = shutil.copytree if source.is_dir() else shutil.copyfile
            copy(source, folder / part)
        for fault in sys.argv[1:] or FAULTS:
            test = caught_by(FAULTS[fault], folder)
            missed += test is None
            print(f"{fault:28} {test or 'NOT CAUGHT'}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
