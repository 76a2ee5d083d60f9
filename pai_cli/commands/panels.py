"""Under which heading of a command's help each option stands, the common headings and options first."""

from __future__ import annotations

_PARAMETERS: dict[str, tuple[str, ...]] = {
    "What": (
        *(
            "method",
            "mask",
            "density",
            "sparsity",
            "scope",
            "rounds",
            "pattern",
            "densities",
            "allocation",
            "effective",
            "no_collapse",
            "ties",
        ),
        *("population", "select", "construct", "steps", "noise", "noise_unit"),
        *("support", "min_edges", "level", "graphs", "overlap"),
        *("by", "table", "accuracy", "mask_column", "accuracy_column", "order", "smallest_first"),
        *("metrics", "controls", "group_by", "collapsed_at"),
        *(
            "accuracy_unit",
            "resamples",
            "classes",
            "to",
            "kind",
            "names_from",
            "weights",
            "model",
            "input_shape",
        ),
        *("layers", "ignore", "summary", "between", "convention", "expansion_weighted", "seed"),
    ),
    "Data": (
        *("data", "per_class", "normalise", "batch_norm", "text", "sequences", "sequence_length", "head", "validation"),
        "augment",
    ),
    "Training": (
        *("epochs", "optimizer", "lr", "schedule", "batch_size", "weight_decay", "amp", "freeze_every", "penalty"),
        *("rewind", "recipe", "soft_neurons", "ghost_skips", "rescale", "label_smoothing", "early"),
        *("dynamic", "update_every", "update_fraction", "update_from", "update_until", "final_density", "min_salient"),
    ),
    "Sanity checks": ("shuffle", "invert", "reinit", "stability", "perturbation"),
    "Output": (
        *("output", "weights_out", "mask_out", "stable_out", "trajectory", "packed"),
        *("format", "columns", "sort", "no_header"),
        *("plot", "report", "results", "log_dir", "keep_every", "force"),
    ),
    "Scale": (
        *("device", "device_memory", "solver", "certify", "jobs", "cluster", "store", "no_store", "resume"),
        *("max_results", "timeout", "timing_batch", "timing_runs"),
    ),
    "Other": ("trust", "version", "debug", "install_completion", "show_completion", "help"),
}

PANEL_OF = {name: panel for panel, names in _PARAMETERS.items() for name in names}
