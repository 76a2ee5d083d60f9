"""The names of everything that is measured, in the order shown. Imports nothing heavy: the help of `pai rank` reads it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One measured quantity.

    `larger_is_better`: the direction in which `pai rank` orders. `section`: what it is taken from: "values" (the singular
    values), "degrees", "layer" (the whole graph), "regular" (its left-regular subgraphs) or "weights" (needs a checkpoint);
    of the whole network "control", "paths" (needs the network) or "weighted paths" (and its weights); "between" layers
    (needs the network). `counts`: its values are whole numbers.
    """

    name: str
    meaning: str
    section: str
    larger_is_better: bool = True
    counts: bool = False

    @property
    def needs_weights(self) -> bool:
        """Whether a checkpoint must be given."""
        return self.section in ("weights", "weighted paths")

    @property
    def needs_network(self) -> bool:
        """Whether the network must be known."""
        return self.section in ("paths", "weighted paths", "between")


_ROWS = (
    Metric("sigma_1", "largest singular value of the mask", "values"),
    Metric("sigma_2", "second largest singular value of the mask", "values", larger_is_better=False),
    Metric("fan_in_std", "standard deviation of the outputs' degrees", "degrees", larger_is_better=False),
    Metric("fan_in_cv", "fan_in_std / d_R", "degrees", larger_is_better=False),
    Metric("fan_out_std", "standard deviation of the inputs' degrees", "degrees", larger_is_better=False),
    Metric("fan_out_cv", "fan_out_std / d_L", "degrees", larger_is_better=False),
    Metric("dr", "Ramanujan gap sqrt(d_L - 1) + sqrt(d_R - 1) - sigma_2", "layer"),
    Metric("dr_bound", "sqrt(d_L - 1) + sqrt(d_R - 1)", "layer"),
    Metric("dr_norm", "dr / dr_bound", "layer"),
    Metric("ds", "eigenvalue gap 2 sqrt(sigma_1 - 1) - sigma_2", "layer"),
    Metric("ds_bound", "2 sqrt(sigma_1 - 1)", "layer"),
    Metric("ds_norm", "ds / ds_bound", "layer"),
    Metric("expansion", "n_R / n_L", "layer"),
    Metric("narc", "normalised random coefficient", "layer", larger_is_better=False),
    Metric("dr_imdb", "mean of dr over the left-regular subgraphs", "regular"),
    Metric("dr_imdb_norm", "mean of dr_norm over the left-regular subgraphs", "regular"),
    Metric("ds_imdb", "mean of ds over the left-regular subgraphs", "regular"),
    Metric("ds_imdb_norm", "mean of ds_norm over the left-regular subgraphs", "regular"),
    Metric("expansion_max", "largest n_R / n_L of the left-regular subgraphs", "regular"),
    Metric("expansion_mean", "mean n_R / n_L of the left-regular subgraphs", "regular"),
    Metric("lambda", "weighted spectral gap sigma_1 - sigma_2 of abs(W) * M", "weights"),
    Metric("lambda_imsg", "mean weighted spectral gap of the left-regular subgraphs", "weights"),
    Metric("l2", "norm of (dr, dr_imdb, lambda, lambda_imsg): the full-spectrum norm", "weights"),
    Metric(
        "l2_dense",
        "distance of those four from the unmasked layer's",
        "weights",
        larger_is_better=False,
    ),
)

_WHOLE = (
    Metric("layer_density", "mean of the layers' densities", "control"),
    Metric("kept", "kept weights", "control", counts=True),
    Metric("collapsed", "layers without a kept weight", "control", larger_is_better=False, counts=True),
    Metric("effective_density", "weights on a path of kept weights from input to output / all weights", "paths"),
    Metric("effective_share", "weights on such a path / kept weights", "paths"),
    Metric(
        "dead_inputs",
        "inputs of layers with kept weights and no path from the input",
        "paths",
        False,
        counts=True,
    ),
    Metric(
        "dead_outputs", "outputs of layers with kept weights and no path to the output", "paths", False, counts=True
    ),
    Metric("log_paths", "natural logarithm of the number of paths", "paths"),
    Metric("log_path_weight", "natural logarithm of the sum over paths of the products of abs(w)", "weighted paths"),
    Metric("effective_nodes", "hidden units on a path", "paths", counts=True),
    Metric("node_path_balance", "mean of two shares of the unmasked network's: nodes on a path, log_paths", "paths"),
    Metric("macs", "multiply-adds of kept weights for one input", "paths", counts=True),
    Metric("macs_effective", "multiply-adds of weights on a path", "paths", counts=True),
    Metric("sink_nodes", "share of elements with edges into them and none out", "paths", larger_is_better=False),
    Metric("source_nodes", "share of elements with edges out and none into them", "paths", larger_is_better=False),
    Metric("disconnected_nodes", "share of elements without an edge", "paths", larger_is_better=False),
    Metric("removable_out", "share of edges that lead into a sink", "paths", larger_is_better=False),
    Metric("removable_in", "share of edges that lead out of a source", "paths", larger_is_better=False),
)

METRIC_VERSION = 4
"""To be raised whenever a change makes any measure of any mask file another number, or its error, reason or outcome
another: finished work that was stored under an older version is then done again. Values in `tests/test_many_masks.py` tell.
"""

METRICS: dict[str, Metric] = {metric.name: metric for metric in _ROWS}

WHOLE: dict[str, Metric] = {metric.name: metric for metric in _WHOLE}
"""What is measured of a network as a whole, no mean over its layers: the controls, which need no network, and paths."""

PATHS = tuple(name for name, metric in WHOLE.items() if metric.needs_network)

LAYER_PATHS = ("effective_density", "effective_share", "dead_inputs", "dead_outputs")
"""Those of paths that each layer has too."""

EVERY = METRICS | WHOLE
"""All that is measured of a mask."""

FULL_SPECTRUM = ("dr", "dr_imdb", "lambda", "lambda_imsg")

_BETWEEN = (
    Metric("compatibility", "share of a layer's live outputs that the next one reads", "between"),
    Metric("copeland", "degree of an output into the next layer over that into it, each a share", "between"),
    Metric("overlap", "share of rows that all positions of an input's kernel lead to", "between"),
)

BETWEEN: dict[str, Metric] = {metric.name: metric for metric in _BETWEEN}
"""What is measured between consecutive layers (`junctions.py`); a network has the mean over its pairs."""

RANKED = EVERY | BETWEEN
"""All that masks can be ranked by."""
