"""Layers measured on cores and, in batches, on a torch device: the same reports, in the same order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain, pairwise
from typing import Any

import numpy as np
import pytest
from workers import PATIENCE, wait_until

from pai_cli.analysis import device_stream
from pai_cli.analysis import engine as room
from pai_cli.analysis.by_layer import Measuring
from pai_cli.analysis.engine import measure_everywhere
from pai_cli.compute import threads
from pai_cli.errors import MaskError, NotFiniteError
from pai_cli.spectral import network as network_module
from pai_cli.spectral.compiled import calls
from pai_cli.spectral.layout import Layout
from pai_cli.spectral.metrics import MetricOptions
from pai_cli.spectral.network import DenseCache, LayerInput, _in_portions, measure_together
from pai_cli.spectral.solver_table import SolverLimits
from pai_cli.spectral.solvers import Solver, SolverOptions
from pai_cli.spectral.table import LayerReport

TORCH_ON_CPU = "torch:cpu"  # the path of a GPU, on tensors that every machine has


def network(seed: int = 0) -> list[LayerInput]:
    rng = np.random.default_rng(seed)
    shapes = [(16, 3, 3, 3), (32, 16, 3, 3), (48, 1, 3, 3), (10, 48), (64, 32, 3, 3)]
    return [
        LayerInput(
            f"layer{k}",
            rng.random(shape) < 0.4,
            rng.standard_normal(shape).astype(np.float32),
            Layout(groups=48) if shape[1] == 1 else Layout(),
        )
        for k, shape in enumerate(shapes)
    ]


def measured(layers: list[LayerInput], device: str = "cpu", total: int = 0) -> list[LayerReport]:
    how = Measuring(MetricOptions(), DenseCache(), "m.safetensors", device)
    return list(measure_everywhere(iter(layers), total, how))


def assert_same(ours: list[LayerReport], theirs: list[LayerReport]) -> None:
    assert [one.name for one in ours] == [one.name for one in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one.counts == other.counts
        for name, measure in one.measures.items():
            found = other.measures[name]
            assert (measure.reason, measure.value is None) == (found.reason, found.value is None), (one.name, name)
            if measure.value is not None and found.value is not None:
                room_for_both = (measure.error or 0.0) + (found.error or 0.0)
                assert abs(measure.value - found.value) <= room_for_both, (one.name, name)


@pytest.mark.parametrize("at_once", [1, 2000, 2**28])
def test_a_torch_device_says_what_the_cores_say(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_stream, "MOST_ENTRIES", at_once)
    assert_same(measured(network()), measured(network(), TORCH_ON_CPU))


def kinds(seed: int = 0) -> list[LayerInput]:
    """Layers that go every way: nothing kept, all, one row, stars, few and many edges, wide and tall, equal values."""
    rng = np.random.default_rng(seed)
    masks = [
        rng.random((70, 300)) < 0.05,
        rng.random((300, 70)) < 0.5,
        rng.random((90, 90)) < 0.9,
        np.ones((40, 60), dtype=bool),
        np.zeros((5, 9), dtype=bool),
        np.ones((1, 30), dtype=bool),
        np.eye(50, dtype=bool),
        np.kron(np.eye(2, dtype=bool), np.ones((40, 50), dtype=bool)),
    ]
    return [
        LayerInput(f"{seed}.{k}", mask, rng.standard_normal(mask.shape).astype(np.float32))
        for k, mask in enumerate(masks)
    ]


@pytest.mark.parametrize("weighted", [False, True], ids=["masks", "weights"])
def test_threads_change_nothing(engine: str, weighted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 3)
    layers = [replace(layer, name=f"{seed}.{layer.name}") for seed in range(4) for layer in network(seed)] + kinds()
    if not weighted:
        layers = [replace(layer, weights=None) for layer in layers]
    assert measured(layers, total=room.WORTH_THREADS) == measured(layers)


@pytest.mark.parametrize("solver", list(Solver))
def test_threads_change_nothing_whatever_solver_is_asked_for(solver: Solver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 3)
    options = MetricOptions(SolverOptions(solver=solver))
    alone = measure_together(kinds(), options)
    with threads.spread_over_cores() as spread:
        assert list(measure_together(kinds(), options, spread=spread)) == list(alone)


@pytest.mark.parametrize("device", ["cpu", TORCH_ON_CPU])
def test_a_layer_that_is_not_finite_is_named(device: str) -> None:
    layers = network()
    assert layers[3].weights is not None
    layers[3].weights[layers[3].mask] = np.nan
    with pytest.raises(NotFiniteError) as caught:
        measured(layers, device)
    where = tuple(int(at[0]) for at in np.nonzero(layers[3].mask))
    words = f"the weights have NaN or infinite values, the first nan at index {where}"
    assert str(caught.value) == f"m.safetensors: layer 'layer3': {words}"


def test_what_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> list[LayerReport]:
        raise MemoryError

    monkeypatch.setattr(room, "measure_together", full)
    with pytest.raises(MaskError) as caught:
        measured(network())
    fix = "leave it out with pai analyze layers="
    assert str(caught.value) == f"m.safetensors: layer 'layer0' does not fit in memory; {fix}"


def test_only_what_does_not_fit_by_itself_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers that do not fit together are measured one by one, up to the one that does not fit at all."""
    measure_together = room.measure_together

    def tight(layers: list[LayerInput], *rest: Any) -> list[LayerReport]:
        if len(layers) > 1 or layers[0].name == "layer3":
            raise MemoryError
        return measure_together(layers, *rest)

    monkeypatch.setattr(room, "measure_together", tight)
    assert measured(network()[:3]) == [one for layer in network()[:3] for one in measured([layer])]
    with pytest.raises(MaskError, match=r"^m\.safetensors: layer 'layer3' does not fit in memory"):
        measured(network())


@pytest.mark.parametrize(("module", "device"), [(room, "cpu"), (device_stream, TORCH_ON_CPU)])
def test_another_fault_is_not_hidden(module: Any, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> list[LayerReport]:
        raise RuntimeError("something else")

    monkeypatch.setattr(module, "measure_together", broken)
    with pytest.raises(RuntimeError, match="something else"):
        measured(network(), device)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_mapped_keeps_the_order_and_runs_little_ahead(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: count)
    drawn: list[int] = []

    def items() -> Iterator[int]:
        for item in range(40):
            drawn.append(item)
            yield item

    def slow_at_first(item: int) -> int:
        time.sleep(0.002 if item < 5 else 0.0)
        return item * item

    for done, result in enumerate(threads.mapped(slow_at_first, items())):
        assert result == done * done
        assert len(drawn) <= done + 1 + count
    assert len(drawn) == 40


def test_mapped_works_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 2)
    both = threading.Barrier(2, timeout=PATIENCE)  # passed only when two are inside at once
    assert list(threads.mapped(lambda item: both.wait() >= 0 and item, [1, 2])) == [1, 2]


def test_mapped_stops_at_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 2)
    done: list[int] = []

    def work(item: int) -> int:
        if item == 3:
            raise ValueError("three")
        done.append(item)
        return item

    with pytest.raises(ValueError, match="three"):
        list(threads.mapped(work, range(100)))
    assert len(done) < 10


@pytest.mark.parametrize(("told", "most"), [("1", 1), ("2", 2), ("0", 16), ("many", 16), ("", 16)])
def test_cores_are_those_the_process_may_use(told: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    assert threads.cores() == most


def test_a_spread_keeps_the_order_and_works_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 2)
    both = threading.Barrier(2, timeout=PATIENCE)
    with threads.spread_over_cores() as spread:
        assert list(spread(lambda item: both.wait() >= 0 and item, [1, 2, 3, 4])) == [1, 2, 3, 4]
        assert list(spread(lambda item: item + 1, iter(range(30)))) == list(range(1, 31))
    assert not threads.still_working()


def test_one_core_is_a_thread_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that whoever waits for it can be interrupted."""
    monkeypatch.setattr(threads, "cores", lambda: 1)
    with threads.spread_over_cores() as spread:
        assert list(spread(lambda _: threading.current_thread(), [0])) != [threading.current_thread()]


def test_a_spread_goes_on_after_a_fault_without_what_that_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 2)
    done: list[int] = []

    def work(item: int) -> int:
        if item == 1:
            raise ValueError("one")
        time.sleep(0.002)
        done.append(item)
        return item

    with threads.spread_over_cores() as spread:
        with pytest.raises(ValueError, match="one"):
            list(spread(work, range(100)))
        assert list(spread(work, [200])) == [200]
    assert len(done) < 20


@pytest.mark.skipif(not calls.available(), reason="the compiled part of the engine is not built")
def test_a_closed_queue_begins_no_other_problem() -> None:
    graph = calls.graph_of_bits(np.array([[5], [3], [1]], dtype=np.uint64))
    parts = calls.Parts(graph, np.array([[0, 3], [0, 2]]), np.array([3, 3]), SolverLimits(1e-9, 1200, 32, 2048))
    queue = calls.Queue([parts])
    queue.close()
    (found,) = queue.found()
    assert found["status"].tolist() == [0, 0]
    assert not found["side"].any()  # of a part that was solved it is its smaller side
    (plain,), (backwards,) = calls.solve([parts]), calls.Queue([parts], np.array([1, 0])).found()
    assert plain["value"].tolist() == backwards["value"].tolist()
    assert plain["value"][0, 0] > plain["value"][1, 0] > 0


@pytest.mark.skipif(not calls.available(), reason="the compiled part of the engine is not built")
def test_a_queue_that_is_interrupted_as_work_is_given_out_is_closed() -> None:
    work: list[Callable[[], object]] = []

    def interrupted(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterable[Any]:
        work.extend(partial(function, item) for item in items)
        raise KeyboardInterrupt

    graph = calls.graph_of_bits(np.array([[5], [3], [1]], dtype=np.uint64))
    parts = calls.Parts(graph, np.array([[0, 3], [0, 2]]), np.array([3, 3]), SolverLimits(1e-9, 1200, 32, 2048))
    begun: list[calls.Queue] = []

    class Seen(calls.Queue):
        def close(self) -> None:
            begun.append(self)
            super().close()

    with pytest.raises(KeyboardInterrupt):
        Seen([parts], spread=interrupted)
    (queue,) = begun
    work[0]()
    assert not queue._found["side"].any()


@pytest.mark.skipif(not calls.available(), reason="the compiled part of the engine is not built")
def test_one_works_on_a_queue_until_the_others_join() -> None:
    asked: list[int] = []

    def spread(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterable[Any]:
        every = list(items)
        asked.append(len(every))
        return [function(item) for item in every]

    graph = calls.graph_of_bits(np.array([[5], [3], [1]], dtype=np.uint64))
    parts = calls.Parts(graph, np.array([[0, 3], [0, 2]]), np.array([3, 3]), SolverLimits(1e-9, 1200, 32, 2048))
    queue = calls.Queue([parts], spread=spread)
    assert asked == [1]
    queue.join()
    queue.join()
    (found,), (alone,) = queue.found(), calls.solve([parts])
    assert asked == [1, calls.MOST_WORKERS - 1]
    assert found["value"].tolist() == alone["value"].tolist()


@pytest.mark.skipif(not calls.available(), reason="the compiled part of the engine is not built")
def test_a_fault_in_what_is_prepared_meanwhile_ends_what_was_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = network()
    smallest = min(layers, key=lambda one: one.mask.size)
    assert smallest.weights is not None
    smallest.weights[smallest.mask] = np.nan
    begun: list[calls.Queue] = []

    class Seen(calls.Queue):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            begun.append(self)

    def late(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterable[Any]:
        """Nobody works before the result is asked for."""
        return map(function, items)

    monkeypatch.setattr(calls, "Queue", Seen)
    with pytest.raises(NotFiniteError):
        measure_together(layers, MetricOptions(), spread=late)
    (queue,) = begun
    assert not any(one["side"].any() for one in queue.found())


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_portions_change_no_number(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = measure_together(kinds(), MetricOptions())
    monkeypatch.setattr(network_module, "FIRST_SHARE", share)
    sizes = [one.mask.size for one in kinds()]
    portions = _in_portions([(one, None) for one in kinds()])
    order = list(chain.from_iterable(portions))
    assert sorted(order) == list(range(len(sizes)))
    assert len(portions) == (1 if share == 1.0 else 2)
    assert share == 1.0 or all(sizes[a] >= sizes[b] for a, b in pairwise(order))
    with threads.spread_over_cores() as spread:
        assert list(measure_together(kinds(), MetricOptions(), spread=spread)) == list(alone)


def by_mapped(work: Callable[[int], int]) -> None:
    list(threads.mapped(work, [0, 1]))


def by_spread(work: Callable[[int], int]) -> None:
    with threads.spread_over_cores() as spread:
        list(spread(work, [0, 1]))


@pytest.mark.parametrize("way", [by_mapped, by_spread])
def test_work_that_nobody_waits_for_is_known(
    way: Callable[[Callable[[int], int]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 2)
    go, begun = threading.Event(), threading.Event()

    def work(item: int) -> int:
        if item == 0:
            begun.wait(PATIENCE)
            raise KeyboardInterrupt
        begun.set()
        go.wait(PATIENCE)
        return item

    with pytest.raises(KeyboardInterrupt):
        way(work)
    assert threads.still_working()
    go.set()
    wait_until(lambda: not threads.still_working())
