"""Every parameter that does nothing beside others, each really given: it is refused in the words of its rule."""

from __future__ import annotations

import logging
import pkgutil
import re
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from torch import nn

import pai_cli as pai
from pai_cli.errors import MethodOptionError, PaiError, UsageError
from pai_cli.pruning.base import Method
from pai_cli.refusals import Idle, refuse
from pai_cli.spelling import for_python, option

MASK = str(ROOT / "sample_masks" / "erk-0.05.safetensors")
CKPT = str(ROOT / "sample_masks" / "resnet20.safetensors")
TABLE = {"mask": ["a", "b", "c"], "dr": [1.0, 2.0, 3.0]}
TRAINED = {**TABLE, "accuracy": [0.5, 0.6, 0.7]}
DATA = (np.zeros((4, 6), np.float32), np.array([0, 1, 0, 1]))
SLURM, ADDRESS = {"cluster": "slurm"}, {"cluster": "tcp://h:1"}
NET = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
TRAINING = {
    **{"epochs": 3, "freeze_every": 2, "penalty": 0.1, "rewind": 1.0, "optimizer": "adam", "lr": 0.1},
    "batch_size": 8,
}
WORKS = ({"jobs": 2}, {"cluster": "tcp://h:1"}, {"store": "s.db"}, {"no_store": True})
MEASURES = ({"weights": CKPT}, {"model": "resnet20"}, {"input_shape": "3,32,32"}, {"convention": "f23"})


def prunings() -> Iterator[dict[str, Any]]:
    of, idle = {"checkpoint": NET}, {"checkpoint": NET, "method": "erk"}
    yield from (
        {**idle, **one} for one in ({"perturbation": 0.1}, {"stable_out": "s"}, {"packed": True}, {"force": True})
    )
    yield from ({**idle, **one} for one in ({"reinit": True}, {"weights_out": "w"}, {"resume": True, "output": "m"}))
    yield {**of, "method": "imp", "resume": True, "data": DATA}
    yield from ({**idle, **one} for one in ({"scope": "global"}, {"data": DATA}, {"per_class": 3}, {"rounds": 2}))
    yield {**of, "method": "synflow", "data": "digits"}
    yield {**of, "method": "erk", "densities": {"*": 0.5}, "scope": "global"}
    yield from (
        {**of, "method": "magnitude", "pattern": "1:2", **one} for one in ({"scope": "layer"}, {"shuffle": True})
    )
    fixed = ({"pattern": "1:2"}, {"densities": {"*": 0.5}}, {"shuffle": True})
    yield from ({**of, "method": "magnitude", "effective": True, **one} for one in fixed)
    trained = {**of, "method": "imp", "data": DATA}
    yield from ({**trained, **one} for one in ({"effective": True}, {"per_class": 3}))
    yield from ({**idle, name: value} for name, value in TRAINING.items())
    plain = Method("plain", "trains by itself", "", "none:none", data=True, trains=("itself",))
    yield from ({**of, "method": plain, "data": DATA, name: value} for name, value in TRAINING.items())
    yield {**of, "method": "gem-miner", "data": DATA, "rounds": 2}
    yield {**of, "method": "iter-snip", "data": DATA, "rounds": "auto"}
    weighed = ({"scope": "layer"}, {"pattern": "1:2"}, {"densities": {"*": 0.5}}, {"invert": True})
    yield from ({**of, "method": "synflow", "rounds": "auto", "input_shape": (6,), **one} for one in weighed)
    yield {**of, "method": "magnitude", "density": 0.5, "seed": 3}
    yield {**idle, "normalise": True}
    yield {**idle, "batch_norm": "running"}
    yield {**of, "method": "fisher", "data": DATA, "batch_norm": "batch"}
    yield {**idle, "head": True}
    read = ({"text": "t.txt"}, {"sequences": 3}, {"sequence_length": 3})
    yield from ({**idle, **one} for one in read)
    yield {**of, "method": "magnitude", "allocation": "alphapruning", "text": "t.txt"}
    yield {**of, "method": "magnitude", "allocation": "alphapruning", "sequences": 3}
    yield {**of, "method": "magnitude", "allocation": "alphapruning", "sequence_length": 3}
    shared = (
        {"pattern": "1:2"},
        {"densities": {"*": 0.5}},
        {"scope": "layer"},
        {"effective": True},
        {"model": "resnet20"},
    )
    yield from ({**of, "method": "magnitude", "allocation": "alphapruning", **one} for one in shared)
    yield {**of, "method": "erk", "allocation": "alphapruning"}
    by_matrix = ({"scope": "layer"}, {"ties": "first"}, {"shuffle": True}, {"reinit": True, "weights_out": "w"})
    more = ({"effective": True}, {"stability": 2}, {"input_shape": (6,)}, {"model": "resnet20"})
    yield from ({**of, "method": "wanda", **one} for one in (*by_matrix, *more))


PLACES: tuple[dict[str, Any], ...] = ({"device": "cpu"}, {"device": "torch:cpu", "device_memory": "2GB"})


def rankings() -> Iterator[dict[str, Any]]:
    yield from ({"masks": [MASK], **one} for one in (SLURM, {"jobs": 2, **ADDRESS}, {"store": "s", "no_store": True}))
    yield from ({"masks": [MASK], **one} for one in ({"force": True}, {"group_by": "density"}))
    yield from ({"table": TABLE, **one} for one in (*MEASURES, *WORKS, *PLACES, {"trust": True}))
    reports = [pai.analyze(MASK, no_store=True, layers="conv1*")]
    yield from ({"masks": reports, **one} for one in (*MEASURES, *WORKS, *PLACES, {"trust": True}))
    yield from (
        {"table": TABLE, **one} for one in ({"collapsed_at": 0.2}, {"accuracy_unit": "percent"}, {"order": True})
    )
    correlated = ({"metrics": "dr"}, {"controls": "none"}, {"resamples": 200}, {"seed": 1})
    yield from ({"masks": [MASK], **one} for one in ({"mask_column": "a"}, {"accuracy_column": "b"}))
    yield from ({"table": TABLE, **one} for one in correlated)
    yield {"table": TRAINED, "smallest_first": False}
    yield from ({"masks": [MASK], "by": "dr", **one} for one in (MEASURES[1], MEASURES[2]))


CALLS: dict[str, list[Mapping[str, Any]]] = {
    "analyze": [
        *({"masks": MASK, "between": True, "weights": CKPT, **one} for one in (
            *({"solver": "gram"}, {"device": "cpu"}, {"device": "torch:cpu", "device_memory": "2GB"}),
            *({"certify": True}, {"convention": "f23"}),
            *({"expansion_weighted": True}, {"plot": "p.svg"}, {"report": "r.html"}, {"force": True}, *WORKS),
        )),
        {"masks": MASK, "between": True},
        {"masks": MASK, "input_shape": "3,32,32"},
        {"masks": MASK, "model": "resnet20", "layers": "conv1*"},
        {"masks": MASK, "weights": CKPT, "input_shape": "3,32,32", "layers": ["conv1*"]},
        *({"masks": MASK, **one} for one in ({"force": True}, SLURM, {"jobs": 2, **ADDRESS})),
        {"masks": MASK, "store": "s.db", "no_store": True},
        {"masks": MASK, "solver": "matrix-free", "certify": True},
    ],
    "rank": [*rankings()],
    "mine": [
        *({"masks": MASK, "graphs": True, **one} for one in (
            {"level": "unit"}, {"weights": CKPT}, {"output": "m"}, {"trust": True},
        )),
        *({"masks": MASK, **one} for one in ({"model": "resnet20"}, {"input_shape": "3,32,32"}, {"packed": True})),
        {"masks": MASK, "weights": CKPT, "level": "weight"},
        *({"masks": MASK, "overlap": True, **one} for one in (
            {"min_edges": 3}, {"max_results": 3}, {"timeout": 3}, {"support": 1},
        )),
        {"masks": MASK, "force": True},
    ],
    "convert": [
        *({"file": MASK, **one} for one in ({"to": "npz"}, {"packed": True}, {"weights": CKPT}, {"force": True})),
        {"file": MASK, "to": "npz", "output": "m.npz", "packed": True},
        *({"file": pai.Mask({"a": np.ones((2, 2), bool)}), **one} for one in ({"kind": "pai"}, {"names_from": CKPT})),
    ],
    "compact": [{"mask": MASK, "weights": CKPT, "force": True}],
    "init": [{"name": "resnet20", "force": True}],
    "prune": [*prunings()],
    "sample": [
        *({"checkpoint": NET, "construct": "biregular", **one} for one in (
            *({"method": "erk"}, {"population": 2}, {"select": "mask"}, {"by": "l2"}, {"noise": 0.1}),
            *({"trajectory": "t"}, {"resume": True}, {"scope": "layer"}, {"rounds": 2}, {"data": DATA}, {"per_class": 3}),
            *({"batch_norm": "batch"}, {"noise_unit": "layer"}),
            *({"pattern": "1:2"}, {"plot": "p.svg"}, {"ties": "first"}, {"convention": "h23"}, {"steps": 2}),
        )),
        *({"checkpoint": NET, "method": "erk", "population": 2, **one} for one in (
            *({"packed": True}, {"force": True}, {"noise": 0.1}, {"noise_unit": "weight"}, {"normalise": True}),
            {"select": "layer", "by": "log_paths"},
        )),
        *({"checkpoint": NET, "method": "snip", "population": 2, "data": DATA, **one} for one in (
            *({"noise": 0.1}, {"noise_unit": "layer"}),
        )),
        {"checkpoint": NET, "method": "magnitude", "population": 2, "noise": 0.0, "noise_unit": "weight"},
    ],
    "train": [
        *({"checkpoint": NET, "data": "digits", **one} for one in (
            *({"early": 0.3}, {"update_every": 2}, {"update_fraction": 0.1}, {"update_until": 0.2}),
            *({"update_from": 0.1}, {"final_density": 0.2}, {"min_salient": 0.1}),
            *({"dynamic": "rigl", "final_density": 0.2}, {"dynamic": "rigl", "min_salient": 0.1}),
            *({"dynamic": "gmp", "update_fraction": 0.1}, {"dynamic": "gmp", "steps": 3}),
            *({"pattern": "2:4"}, {"pattern": "2:4", "dynamic": "rigl"}),
            {"pattern": "2:4", "dynamic": "srigl", "min_salient": 0.1},
            {"soft_neurons": True, "steps": 3},
            *({"convention": "h23"}, {"mask_out": "m"}, {"keep_every": 1}, {"resume": True}),
            *({"results": "r.csv"}, {"log_dir": "l"}, {"force": True}),
        )),
    ],
}  # fmt: skip

TABLES = {
    "analyze": ("api.analyze", "api.solving"),
    "prune": ("api.prune", "api.by_text", "api.requests", "pruning.request"),
    "rank": ("api.asked",),
    "sample": ("api.sample", "sampling.request"),
    **{name: (f"api.{name}",) for name in ("mine", "convert", "compact", "init", "train")},
}
"""Where the rules of each function stand."""


def rules_of(module: str) -> list[Idle]:
    """Those that a module makes, or takes with others' in a table of its own."""
    names = vars(import_module(f"pai_cli.{module}"))
    found = names.values() if "Idle" in names or "idle_force" in names else ()
    tables = (one for one in found if isinstance(one, tuple) and one and isinstance(one[0], Idle))
    return [*dict.fromkeys(rule for table in tables for rule in table)]


def pattern_of(rule: Idle, name: str) -> re.Pattern[str]:
    """What the rule says of the parameter of this name, whatever the values of the call."""
    found = ""
    for text, field, _, _ in Formatter().parse(rule.text):
        kind = {None: "", "it": re.escape(option(name)), "value": re.escape(option(name, "@")).replace("@", ".*")}
        found += re.escape(text) + kind.get(field, ".*")
    return re.compile(found)


def said_by(name: str, call: Mapping[str, Any], caplog: pytest.LogCaptureFixture) -> list[str]:
    """What refuses the call, or else what is said beside it."""
    caplog.clear()
    try:
        getattr(pai, name)(**call)
    except UsageError as error:
        return [error.text]
    except MethodOptionError as error:
        return [error.text]
    return [record.args[0] for record in caplog.records if isinstance(record.args, tuple)]


@pytest.mark.parametrize("name", CALLS)
def test_every_rule_refuses_what_it_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO, logger="pai")
    rules = [rule for module in TABLES[name] for rule in rules_of(module)]
    meant = {(rule, one): pattern_of(rule, one) for rule in rules for one in rule.names}
    left = dict(meant)
    for call in CALLS[name]:
        said = said_by(name, call, caplog)
        fired = [key for key, text in meant.items() if any(_says(text, one) for one in said)]
        assert fired, f"{call}: {said}"
        for key in fired:
            left.pop(key, None)
    assert [for_python(rule.text.format_map(_Named(one))) for rule, one in left] == []
    assert [*tmp_path.iterdir()] == []


def _says(text: re.Pattern[str], said: str) -> bool:
    return text.fullmatch(said) is not None or re.fullmatch(for_python(text.pattern), said) is not None


class _Named(dict[str, str]):
    def __init__(self, name: str) -> None:
        super().__init__(it=name, value=name)

    def __missing__(self, key: str) -> str:
        return key


def test_every_table_is_of_a_function_here() -> None:
    names = [one.name.removeprefix("pai_cli.") for one in pkgutil.walk_packages(pai.__path__, "pai_cli.")]
    apart = {"__main__", *(name for name in names if "compiled._" in name or "streaming._" in name)}
    known = {*(module for modules in TABLES.values() for module in modules), "api.working"}  # whose rules others take
    assert {name for name in names if name not in apart and rules_of(name)} == known


def asked(mask: Any = None, *, much: bool = False, name: str = "x", off: bool | None = None) -> None: ...


@pytest.mark.parametrize(
    ("values", "refused"),
    [
        ({}, False),
        ({"mask": np.zeros(3)}, True),
        ({"mask": []}, False),
        ({"name": "x"}, False),
        ({"name": "y"}, True),
        ({"much": True}, True),
        ({"off": False}, True),
        ({"off": None}, False),
        ({"fact": 1}, True),
        ({"fact": False}, False),
    ],
)
def test_what_is_given_is_not_as_it_is_by_default(values: dict[str, Any], refused: bool) -> None:
    rules = [Idle(tuple(values), "{value}: does nothing beside {other}")]
    with pytest.raises(PaiError, match=r"does nothing beside 7$") if refused else nullcontext():
        refuse(asked, rules, {**values, "other": 7}, PaiError)


def test_both_conditions_hold_at_once() -> None:
    rule = Idle(("much",), "{it}", beside=("mask",), without=("name",), where=lambda call: call.mask == "m")
    refuse(asked, [rule], {"much": True, "mask": "m", "name": "y"})
    refuse(asked, [rule], {"much": True, "mask": "n"})
    refuse(asked, [rule], {"much": True, "mask": None})
    with pytest.raises(UsageError, match=r"^much=$"):
        refuse(asked, [rule], {"much": True, "mask": "m", "name": "x"})
