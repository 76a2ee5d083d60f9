"""Networks as people use them, whole: what the tests see of small ones holds for these."""

from __future__ import annotations

from pathlib import Path

from test_synflow import assert_both_laws_hold, assert_exact_count, assert_rounds_save
from test_trace import NAMED, assert_every_layer_is_found

from pai_cli.models.network import init_network

CHECKS = (
    *[(assert_every_layer_is_found, name) for name in NAMED],
    *[(lambda name: assert_both_laws_hold(init_network(name, 10, 0)), name) for name in ("vgg16-bn", "vgg19-bn")],
    *[(lambda name: assert_exact_count(name, 10), name) for name in ("resnet20", "resnet56", "resnet110")],
    (lambda name: assert_rounds_save(init_network(name, 10, 0), 14_716), "vgg16-bn"),
)


def case(seed: int, folder: Path) -> None:
    """One check of one network."""
    check, name = CHECKS[seed % len(CHECKS)]
    check(name)
