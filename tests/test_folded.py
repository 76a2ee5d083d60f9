"""The steps of an unrolled network on folded tensors, against PyTorch's own on whole ones, and its gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import slim
from torch import nn
from torch.nn import functional as F  # noqa: N812

from pai_cli.models.layers import PrunableLayer
from pai_cli.models.network import init_network
from pai_cli.models.unrolled import kept, marks
from pai_cli.models.unrolled.folded import Folded, aligned
from pai_cli.models.unrolled.kept import Kept
from pai_cli.models.unrolled.marks import reached
from pai_cli.models.unrolled.steps import (
    VALUE,
    Concatenation,
    Fixed,
    Join,
    Move,
    Pooling,
    Reduction,
    Reshape,
    Use,
)
from pai_cli.models.unrolled.tape import record, unroll
from pai_cli.models.weightless import unrolled_model
from pai_cli.spectral.layout import Layout


def drawn(shape: Sequence[int], random: np.random.Generator) -> Folded:
    """Whole numbers, of which slices along each of the last dimensions are equal."""
    whole = random.integers(0, 9, shape).astype(np.float64)
    for dim in range(2, whole.ndim):
        whole = whole.take(random.integers(0, whole.shape[dim], whole.shape[dim]), dim)
    return Folded.of(whole).folded()


def test_what_is_folded_and_what_is_not() -> None:
    whole = np.zeros((1, 2, 5, 4))
    whole[:, :, 2] = 1
    folded = Folded.of(whole).folded()
    assert folded.values.shape == (1, 2, 2, 1)
    assert folded.places == ((0, 0, 1, 0, 0), (0, 0, 0, 0))
    assert np.broadcast_to(folded.counts, folded.values.shape).tolist() == [[[[16.0], [4.0]]] * 2]
    np.testing.assert_array_equal(folded.unfolded(), whole)
    assert folded.shape == whole.shape
    np.testing.assert_array_equal(Folded.constant((2, 3, 4), 5).unfolded(), np.full((2, 3, 4), 5.0))


@given(st.integers(0, 10_000))
@settings(max_examples=20)
def test_folding_changes_no_number(seed: int) -> None:
    random = np.random.default_rng(seed)
    shape = tuple(random.integers(1, 6, random.integers(1, 6)))
    several = [drawn(shape, random) for _ in range(3)]
    for one, other in zip(several, aligned(several), strict=True):
        np.testing.assert_array_equal(one.unfolded(), other.unfolded())
        assert other.places == aligned(several)[0].places
        assert float((one.values * one.counts).sum()) == one.unfolded().sum()


# --- layers: sparse, dense and whole


@pytest.fixture(params=[0, 2**16], ids=["sparse", "dense"])
def _matrices(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "SMALL", request.param)


@pytest.mark.usefixtures("_matrices")
@pytest.mark.parametrize("seed", range(40))
def test_a_convolution_is_that_of_torch(seed: int) -> None:
    random = np.random.default_rng(seed)
    sides, groups, transposed = 1 + seed % 3, int(random.integers(1, 4)), bool(random.integers(2))
    shape = (groups * int(random.integers(1, 4)), int(random.integers(1, 4)), *random.integers(1, 4, sides))
    stride, padding, dilation = (tuple(map(int, random.integers(low, 3, sides))) for low in (1, 0, 1))
    more = tuple(
        int(random.integers(0, min(one, two))) if transposed else 0 for one, two in zip(stride, dilation, strict=True)
    )
    how = stride, padding, dilation, more
    layer = PrunableLayer("w", tuple(map(int, shape)), Layout(groups=groups, transposed=transposed))
    channels = shape[0] if transposed else shape[1] * groups
    read = drawn((1 + seed % 2, channels, *random.integers(6, 9, sides)), random)

    def through(value: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.convolution(value, weight, None, stride, padding, dilation, transposed, more, groups)

    use = Use((0,), (1,), layer, 1, how)
    check_use(use, through, read, random)


@pytest.mark.usefixtures("_matrices")
@pytest.mark.parametrize(("transposed", "lead"), list(product([False, True], [(), (2,), (1, 3), (2, 2, 2)])))
def test_a_product_is_that_of_torch(transposed: bool, lead: tuple[int, ...]) -> None:
    random = np.random.default_rng(len(lead))
    layer = PrunableLayer("w", (5, 7), Layout(transposed=transposed))
    read = drawn((*lead, 5 if transposed else 7), random)
    use = Use((0,), (1,), layer, 1)
    check_use(use, lambda value, weight: value @ (weight if transposed else weight.T), read, random)


def check_use(use: Use, through: Callable, read: Folded, random: np.random.Generator) -> None:
    """Forwards and back, with weights and ones, and which kept weights have a mark at both ends."""
    for density in (0.1, 0.7, 1.0):
        mask = random.random(use.layer.shape) < density
        held, weight = Kept(use.layer, mask), random.integers(1, 9, use.layer.shape).astype(np.float64)
        for matrix, factors in ((held.ones, mask * 1.0), (held.matrix(held.values(weight)), mask * weight)):
            value = torch.from_numpy(read.unfolded().copy()).requires_grad_()
            expected = through(value, torch.from_numpy(factors))
            shape = tuple(expected.shape)
            np.testing.assert_array_equal(use.apply(read, matrix, shape).unfolded(), expected.detach().numpy())
            back = drawn(shape, random)
            (gradient,) = torch.autograd.grad(expected, value, torch.from_numpy(back.unfolded()))
            np.testing.assert_array_equal(use.back(back, matrix, read.shape).unfolded(), gradient.numpy())
        check_marks(use, through, held, Folded(read.values % 2, read.places), Folded(back.values % 2, back.places))


def check_marks(use: Use, through: Callable, held: Kept, read: Folded, alive: Folded) -> None:
    weight = torch.from_numpy(held.mask * 1.0).requires_grad_()
    given = through(torch.from_numpy(read.unfolded()), weight)
    (gradient,) = torch.autograd.grad(given, weight, torch.from_numpy(alive.unfolded()))
    rows, columns = (one > 0.5 for one in use.meeting(read, alive))
    found = marks._met(held, rows, columns).reshape(use.layer.shape)
    np.testing.assert_array_equal(found, (gradient.numpy() > 0) & held.mask)


@pytest.mark.parametrize("most", [1, 7, 2**22])
def test_weights_looked_at_in_parts(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(marks, "MOST", most)
    random = np.random.default_rng(0)
    for _ in range(5):
        held = Kept(PrunableLayer("w", (6, 5), Layout()), random.random((6, 5)) < 0.6)
        rows, columns = random.random((6, 9)) < 0.3, random.random((5, 9)) < 0.3
        expected = held.mask & (rows[:, None] & columns[None]).any(2)
        np.testing.assert_array_equal(marks._met(held, rows, columns), expected)


# --- steps without weights


def taking(*windows: tuple[tuple[int, ...], ...]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Sums over windows of the last dimensions, element by element."""

    def pooled(value: torch.Tensor) -> torch.Tensor:
        for number, one in enumerate(windows):
            dim = value.dim() - len(windows) + number
            value = torch.stack([value.index_select(dim, torch.tensor(w, dtype=torch.long)).sum(dim) for w in one], dim)
        return value

    return pooled


WINDOWS = ((0, 1), (1, 2, 3), (), (3,)), ((0, 2), (1,))
FIXED: list[tuple[Fixed, Callable, list[tuple[int, ...]]]] = [
    (Join((0, 1), (2,), (1, 3, 4, 4)), lambda a, b: a + b, [(1, 3, 4, 4), (1, 3, 4, 4)]),
    (Join((0, 1), (2,), (1, 3, 4, 4)), lambda a, b: a + b, [(1, 3, 1, 1), (1, 3, 4, 4)]),
    (Join((0, 1), (2,), (2, 3, 4, 5)), lambda a, b: (a + b).expand(2, 3, 4, 5), [(4, 1), (2, 1, 1, 5)]),
    (Join((0,), (1,), (2, 3)), lambda a: a.expand(2, 3), [(3,)]),
    (Concatenation((0, 1), (2,), 1, (0, (1, 2, 4, 3), 1, 0)), lambda a, b: torch.cat([a, torch.zeros(1, 2, 4, 3), b, a], 1),
     [(1, 2, 4, 3), (1, 3, 4, 3)]),
    (Concatenation((0, 1), (2,), 2, (0, 1)), lambda a, b: torch.cat([a, b], 2), [(1, 2, 4, 3), (1, 2, 2, 3)]),
    (Concatenation((0,), (1,), 1, (0, (2, 3)), stacked=True), lambda a: torch.stack([a, torch.zeros(2, 3)], 1), [(2, 3)]),
    (Move((0,), (1,), "permute", "default", (VALUE, (0, 2, 3, 1))), lambda a: a.permute(0, 2, 3, 1), [(1, 2, 3, 4)]),
    (Move((0,), (1, 2), "split", "Tensor", (VALUE, 2, 1)), lambda a: a.split(2, 1), [(1, 4, 3, 3)]),
    (Move((0,), (1,), "constant_pad_nd", "default", (VALUE, (1, 2), 0)), lambda a: F.pad(a, (1, 2)), [(1, 2, 3)]),
    (Reshape((0,), (1,), (1, 6, 4)), lambda a: a.reshape(1, 6, 4), [(1, 2, 3, 4)]),
    (Reduction((0,), (1,), (3, 2), (1, 2), 12), lambda a: a.sum((2, 3)), [(1, 2, 3, 4)]),
    (Reduction((0,), (1,), (2, 1), (1, 1, 1, 4), 6), lambda a: a.sum((1, 2), keepdim=True), [(1, 2, 3, 4)]),
    (Reduction((0,), (1,), (0,), (3,), 2), lambda a: a.sum(0), [(2, 3)]),
    (Pooling((0,), (1,), WINDOWS), taking(*WINDOWS), [(2, 3, 4, 3)]),
    (Pooling((0,), (1,), WINDOWS), taking(*WINDOWS), [(2, 4, 3)]),
    (Pooling((0,), (1,), WINDOWS[1:]), taking(*WINDOWS[1:]), [(4, 3)]),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(FIXED)))
def test_a_step_without_weights_is_that_of_torch(number: int) -> None:
    step, function, shapes = FIXED[number]
    random = np.random.default_rng(number)
    for _ in range(4):
        values = [drawn(shape, random) for shape in shapes]
        tensors = [torch.from_numpy(one.unfolded().copy()).requires_grad_() for one in values]
        found = function(*tensors)
        expected = [found] if isinstance(found, torch.Tensor) else list(found)
        given = step.apply(values)
        assert [one.shape for one in given] == [tuple(one.shape) for one in expected]
        for one, other in zip(given, expected, strict=True):
            np.testing.assert_array_equal(one.unfolded(), other.detach().numpy())
        back = [drawn(tuple(one.shape), random) for one in expected]
        gradients = torch.autograd.grad(expected, tensors, [torch.from_numpy(one.unfolded().copy()) for one in back])
        for one, gradient in zip(step.back(back, shapes), gradients, strict=True):
            assert one.shape == tuple(gradient.shape)
            np.testing.assert_array_equal(one.unfolded(), gradient.numpy())


def test_a_step_that_gives_another_shape_than_the_network_is_refused() -> None:
    tape = unroll(nn.Sequential(nn.Linear(3, 3), nn.Flatten(), nn.Unflatten(1, (3, 1)), nn.Linear(1, 1)), (3,))
    wrong = [Reshape(s.inputs, s.outputs, (1, 1, 3)) if isinstance(s, Reshape) else s for s in tape.steps]
    object.__setattr__(tape, "steps", tuple(wrong))
    with pytest.raises(RuntimeError, match="where the network has"):
        reached(tape, {name: Kept(layer, None) for name, layer in tape.layers.items()})


# --- networks whose values mean nothing


@pytest.mark.parametrize(
    "name", ["resnet18-3x3", "resnet20", "wrn-16-1", "vgg11", "mobilenetv2", "densenet121", "lenet-5"]
)
def test_a_network_is_unrolled_without_computing_its_products(name: str) -> None:
    with slim():
        network = init_network(name, None, 0)
        assert record(network.model, network.input_shape, weightless=True) == unroll(network.model, network.input_shape)
        assert unrolled_model(name, None, {}) == unroll(network.model, network.input_shape)


@pytest.mark.parametrize("weightless", [False, True])
def test_what_does_not_fit_is_refused_where_products_are_not_computed(weightless: bool) -> None:
    for model, shape in (
        (nn.Conv2d(3, 2, 3), (4, 5, 5)),
        (nn.Conv2d(3, 2, 3), (3, 2, 5)),
        (nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(17, 2)), (3, 5, 5)),
    ):
        with pytest.raises(Exception, match=f"the network failed on one input of shape {','.join(map(str, shape))} "):
            record(model.eval(), shape, weightless=weightless)
