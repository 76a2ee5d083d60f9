"""Published numbers beside ours: the interval of a difference, and the claim beside its control."""

import importlib
import math

import numpy as np
import pytest
from conftest import ROOT
from scipy.stats import ttest_ind


@pytest.fixture(scope="module")
def reproduce():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module("reproduce")


def test_the_interval_is_welchs(reproduce):
    theirs, ours = [1.0, 1.2, 1.7], [0.8, 0.85, 0.9, 0.95]
    one = reproduce.difference(theirs, ours)
    expected = ttest_ind(theirs, ours, equal_var=False)
    low, high = expected.confidence_interval()
    assert (one.off, one.low, one.high) == pytest.approx((expected.statistic, low, high))
    assert not one.apart
    assert reproduce.difference([2.0, 2.2, 2.7], ours).apart


def test_published_means_take_our_spread(reproduce):
    """Two seeds leave one degree of freedom: t is 12.7, and a difference of 6 standard errors may be nothing."""
    one = reproduce.difference([1.0], [0.0, 0.2])
    error = math.sqrt(0.02 * (1 / 3 + 1 / 2))
    assert one.off == pytest.approx(0.9 / error)
    assert one.high - 0.9 == pytest.approx(12.7062 * error, rel=1e-5)
    assert not one.apart


def test_what_does_not_scatter_has_no_interval(reproduce):
    for theirs, ours in (([0.5, 0.5], [0.5, 0.5]), ([0.5], [0.5, 0.5]), ([0.5], [0.4])):
        one = reproduce.difference(theirs, ours)
        assert math.isnan(one.off)
        assert not one.apart


def test_the_claim_is_beside_its_control(reproduce, capsys):
    """A metric that is layer density under another name adds nothing; collapsed runs are left out."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "architecture": "resnet34",
            "method": f"m{k % 6}",
            "density": str(k % 3),
            "accuracy": str(accuracy),
            "layer_density": str(z),
        }
        | {"dr": str(2 * z + 1), "sigma_1": str(rng.normal())}
        for k in range(60)
        for z, accuracy in [(rng.normal(), 0.5 + 0.1 * rng.random())]
    ]
    rows[0]["accuracy"] = "0.1"
    reproduce.claim(rows)
    said = capsys.readouterr().out
    assert "resnet34: 59 masks, 1 collapsed are left out" in said
    line = next(line for line in said.splitlines() if line.startswith("dr "))
    assert line.split()[-1] == line.split()[-2] == line.split()[-3] == "-"  # nothing is left to tell apart
    assert any(line.startswith("sigma_1 ") and line.count("to") == 4 for line in said.splitlines())
