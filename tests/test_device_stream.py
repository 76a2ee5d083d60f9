"""Masks measured on a device, on torch's tensors in this machine's memory: the very path of a GPU but for its streams.

Simulated are: copies that go on while the next bytes are read (`Slow`), memory that does not suffice (an error of torch's in
the engine's place), and GPUs that are there or not.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Pai, random_mask, save_mask
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors

import pai_cli as pai
from pai_cli.analysis import device_stream
from pai_cli.analysis.by_layer import Measuring
from pai_cli.analysis.device_stream import Found, measured_there
from pai_cli.analysis.masks import AnalysisRequest, MaskReport, OpenMask
from pai_cli.analysis.unread import Shipment, unread_layer
from pai_cli.compute import uploads
from pai_cli.compute.device import ON_TORCH
from pai_cli.compute.uploads import PlainLane, Sent, Uploads
from pai_cli.errors import MaskError, PaiError
from pai_cli.files.checkpoints import open_checkpoint
from pai_cli.files.opening import open_mask
from pai_cli.files.spans import SpanReader
from pai_cli.files.tensors import TensorFile
from pai_cli.spectral.costs import bytes_there
from pai_cli.spectral.layout import Layout
from pai_cli.spectral.metrics import MetricOptions
from pai_cli.spectral.network import DenseCache, LayerInput
from pai_cli.spectral.table import LayerTable

SHAPES = {"a": (24, 7, 3, 3), "b": (13, 5), "c": (48, 1, 3, 3), "d": (9, 17, 2, 2), "e": (40, 60)}
LAYOUTS = {"c": Layout(groups=48), "d": Layout(transposed=True)}


def masks(seed: int = 0) -> dict[str, np.ndarray]:
    return {name: random_mask(shape, 0.5, seed=seed + at) for at, (name, shape) in enumerate(SHAPES.items())}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A tensor of each type whose bytes are sent as they are, and one of another name."""
    draw = torch.Generator().manual_seed(0)
    types = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.float32)
    tensors = {
        name: torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype)
        for (name, shape), dtype in zip(SHAPES.items(), types, strict=True)
    }
    save_tensors(tensors, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def kinds(folder: Path) -> dict[str, Path]:
    """The same masks in files of every kind."""
    every = masks()
    found = {
        "bool": save_mask(folder / "bool.safetensors", every, LAYOUTS),
        "packed": save_mask(folder / "packed.safetensors", every, LAYOUTS, packed=True),
    }
    for dtype in (np.uint8, np.int8, np.float32):
        path = found[dtype.__name__] = folder / f"{dtype.__name__}.safetensors"
        save_file({name: mask.astype(dtype) for name, mask in every.items()}, path)
    found["torch"] = folder / "masks.pt"
    torch.save({name: torch.from_numpy(mask) for name, mask in every.items()}, found["torch"])
    return found


def assert_same(ours: pai.Report, theirs: pai.Report) -> None:
    """The same layers, counts and reasons, and values within both bounds."""
    assert list(ours.layers) == list(theirs.layers)
    assert (ours.kept, ours.total, ours.counted) == (theirs.kept, theirs.total, theirs.counted)
    for one, other in zip(
        (ours.network, *ours.layers.values()), (theirs.network, *theirs.layers.values()), strict=True
    ):
        for name in one:
            mine, its = one[name], other[name]
            assert mine.reason == its.reason, name
            if mine.value is not None:
                assert abs(mine.value - its.value) <= (mine.error or 0.0) + (its.error or 0.0), name


def measure(given: Any, *rest: Any, **options: Any) -> Any:
    return pai.analyze(given, *rest, no_store=True, **options)


def names_of(found: list[Found | None]) -> list[str]:
    """The layers of which something was found, in order."""
    return [name for one in found if one and isinstance(one.report, LayerTable) for name in one.report.names]


def readers() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("pai-reader")]


@pytest.mark.parametrize("kind", ["bool", "packed", "uint8", "int8", "float32", "torch"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_device_says_what_the_cores_say(kind: str, weighted: bool, tmp_path: Path, weights: Path) -> None:
    path = kinds(tmp_path)[kind]
    given = [weights] if weighted else []
    assert_same(measure(path, *given, device=ON_TORCH), measure(path, *given, device="cpu"))
    assert readers() == []


def test_masks_and_weights_in_memory(weights: Path) -> None:
    from safetensors.torch import load_file

    state = load_file(weights)
    assert_same(measure(masks(), state, device=ON_TORCH), measure(masks(), state, device="cpu"))


def test_a_mask_that_was_loaded_is_sent_as_its_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = pai.Mask.load(kinds(tmp_path)["packed"])
    expected = measure(mask, device="cpu")
    from pai_cli.files.masks import MaskFile

    def unread(*_: object) -> np.ndarray:
        raise AssertionError("was read in this machine's memory")

    monkeypatch.setattr(MaskFile, "array", unread)
    assert_same(measure(mask, device=ON_TORCH), expected)


# What arrives --------------------------------------------------------------------------------------------------------


@dataclass
class Slow(PlainLane):
    """A lane whose copies happen only when somebody waits for them: what is written over too early arrives wrong.

    `live`: bytes that are held now, of buffers and of rooms; `most`: the most there were.
    """

    live: dict[str, int] = field(default_factory=lambda: {"buffer": 0, "room": 0})
    most: dict[str, int] = field(default_factory=lambda: {"buffer": 0, "room": 0})
    under_way: list[Copy] = field(default_factory=list)

    def _counted(self, kind: str, size: int) -> torch.Tensor:
        memory = np.full(size, 0xA5, dtype=np.uint8)  # which every tensor that shares it keeps
        self.live[kind] += size
        self.most[kind] = max(self.most[kind], self.live[kind])
        weakref.finalize(memory, self._freed, kind, size)
        return torch.from_numpy(memory)

    def _freed(self, kind: str, size: int) -> None:
        self.live[kind] -= size

    def buffer(self, size: int) -> torch.Tensor:
        return self._counted("buffer", size)

    def room(self, size: int) -> torch.Tensor:
        return self._counted("room", size)

    def copy(self, there: torch.Tensor, here: torch.Tensor) -> Any:
        self.under_way.append(Copy(there, here, self))
        return self.under_way[-1]

    def arrive(self, sent: Sent) -> torch.Tensor:
        if sent.end is not None:
            sent.end.synchronize()
        return sent.there


@dataclass(eq=False)
class Copy:
    """A copy that is made, with those before it, as a stream does, when it is waited for."""

    there: torch.Tensor | None
    here: torch.Tensor | None
    lane: Slow

    def synchronize(self) -> None:
        while self in self.lane.under_way:
            first = self.lane.under_way.pop(0)
            assert first.there is not None
            assert first.here is not None
            first.there.copy_(first.here)
            first.there = first.here = None


def arrived(path: Path, weights: Path | None, lane: PlainLane) -> list[LayerInput]:
    mask = open_mask(path)
    checkpoint = None if weights is None else open_checkpoint(weights)
    with SpanReader() as files, Uploads(lane) as sender:
        shipment = Shipment([unread_layer(mask, name, checkpoint) for name in mask.names], files)
        return shipment.arrived(lane.arrive(sender.send(shipment.pieces).result()))


@pytest.mark.parametrize("chunk", [16, 48, 1000, 2**24])
@pytest.mark.parametrize("kind", ["bool", "packed", "uint8", "int8", "float32", "torch"])
def test_what_arrives_is_what_the_file_holds(
    kind: str, chunk: int, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "CHUNK", chunk)
    lane, path, checkpoint = Slow(), kinds(tmp_path)[kind], open_checkpoint(weights)
    layers = arrived(path, weights, lane)
    assert {layer.name for layer in layers} == set(SHAPES)
    for layer in layers:
        assert layer.mask.dtype == torch.bool
        np.testing.assert_array_equal(layer.mask.numpy(), masks()[layer.name])
        np.testing.assert_array_equal(layer.weights.numpy(), checkpoint.finite_array(layer.name))
    assert lane.most["buffer"] <= uploads.BUFFERS * chunk


def test_bits_stay_bits_on_the_way(tmp_path: Path) -> None:
    lane = Slow()
    arrived(kinds(tmp_path)["packed"], None, lane)
    packed = sum(-(-np.prod(shape) // 8) for shape in SHAPES.values())
    assert lane.most["room"] <= packed + uploads.ALIGNMENT * len(SHAPES)


def test_weights_that_masks_share_are_sent_once(tmp_path: Path, weights: Path) -> None:
    mask, checkpoint = open_mask(kinds(tmp_path)["packed"]), open_checkpoint(weights)
    with SpanReader() as files:
        once = Shipment([unread_layer(mask, "e", checkpoint)], files)
        twice = Shipment([unread_layer(mask, "e", checkpoint)] * 2, files)
        sizes = [[piece.size for piece in shipment.pieces()] for shipment in (once, twice)]
    assert sizes == [[300, 4 * 2400], [300, 300, 4 * 2400]]


# Hostile values ------------------------------------------------------------------------------------------------------


def spoil(path: Path, name: str, at: int, value: int) -> None:
    """Change one byte of a tensor in a file."""
    span = TensorFile(path, MaskError).span(name)
    content = bytearray(path.read_bytes())
    content[span.begin + at] = value
    path.write_bytes(content)


HOSTILE: dict[str, tuple[str, str, int, int]] = {
    "a boolean that is 2": ("bool", "e", 2399, 2),
    "a boolean that is 255": ("bool", "a", 0, 255),
    "a byte that is 3": ("uint8", "b", 7, 3),
    "a bit past the last element": ("packed", "b", 8, 0b0000_0001),
    "all bits past the last element": ("packed", "b", 8, 0b0111_1111),
    "an int8 that is -1": ("int8", "b", 7, 255),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_no_mask_is_refused_as_on_the_cores(what: str, tmp_path: Path) -> None:
    kind, name, at, value = HOSTILE[what]
    path = kinds(tmp_path)[kind]
    fine = save_mask(tmp_path / "fine.safetensors", masks(1), LAYOUTS)
    spoil(path, name, at, value)
    told = []
    for device in ("cpu", ON_TORCH):
        with pytest.raises(PaiError) as caught:
            measure(path, device=device)
        told.append(str(caught.value))
    assert told[0] == told[1]
    assert repr(name) in told[0]
    with pytest.warns(pai.PaiWarning, match="tensor"):  # those beside it are measured
        several = measure([fine, path, save_mask(tmp_path / "too.safetensors", masks(1), LAYOUTS)], device=ON_TORCH)
    assert [one.error is None for one in several] == [True, False, True]
    assert_same(several[2], measure(fine, device="cpu"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(value: float, tmp_path: Path) -> None:
    array = np.ones((40, 60), dtype=np.float32)
    array[3, 4] = value
    save_file({"e": array}, tmp_path / "w.safetensors")
    path = save_mask(tmp_path / "m.safetensors", {"e": masks()["e"] | True})
    told = []
    for device in ("cpu", ON_TORCH):
        with pytest.raises(pai.Error) as caught:
            measure(path, tmp_path / "w.safetensors", device=device)
        told.append(str(caught.value))
    assert told[0] == told[1]
    assert "index 184" in told[0]


# Memory --------------------------------------------------------------------------------------------------------------


class Full:
    """An engine for which a device has no room in those calls for which `full` says so. On the cores there always is."""

    def __init__(self, full: Callable[[int], bool], monkeypatch: pytest.MonkeyPatch):
        self.calls: list[tuple[str, int]] = []
        self._full = full
        self._measure = device_stream.measure_together
        monkeypatch.setattr(device_stream, "measure_together", self)

    def __call__(self, layers: list[LayerInput], *rest: Any) -> LayerTable:
        there = isinstance(layers[0].mask, torch.Tensor)
        self.calls.append(("device" if there else "cores", len(layers)))
        if there and self._full(len(self.calls)):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self._measure(layers, *rest)


def test_what_does_not_fit_once_is_halved(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = kinds(tmp_path)["packed"]
    expected = measure(path, weights, device="cpu")
    engine = Full(lambda call: call == 1, monkeypatch)
    assert_same(measure(path, weights, device=ON_TORCH), expected)
    assert engine.calls == [("device", 5), ("device", 2), ("device", 3)]
    assert not [line for line in caplog.messages if "did not fit" in line]


def test_what_never_fits_is_measured_on_the_cores_and_told(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, pai: Pai
) -> None:
    path = kinds(tmp_path)["packed"]
    expected = measure(path, weights, device="cpu")
    engine = Full(lambda _: True, monkeypatch)
    assert_same(measure(path, weights, device=ON_TORCH), expected)
    assert [size for place, size in engine.calls if place == "cores"] == [1] * 5
    assert [size for place, size in engine.calls if place == "device"] == [5, 2, 1, 1, 3, 1, 2, 1, 1]
    told = pai("analyze", path, "--device", ON_TORCH, "--no-store").err
    assert "a, b, c and 2 more did not fit on torch:cpu: measured on the cores" in told


def test_later_batches_are_smaller_once_one_did_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [save_mask(tmp_path / f"{seed}.safetensors", {"e": random_mask((40, 60), 0.5, seed)}) for seed in range(12)]
    expected = [measure(path, device="cpu") for path in paths]
    monkeypatch.setattr(device_stream, "MOST_ENTRIES", 4 * 2400)
    engine = Full(lambda call: call == 1, monkeypatch)
    for one, other in zip(measure(paths, device=ON_TORCH), expected, strict=True):
        assert_same(one, other)
    assert engine.calls == [("device", size) for size in (4, 2, 2, 4, 2, 2)]  # the second was on its way


def test_a_layer_gets_the_room_of_the_one_that_is_sent_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone it fits: what was sent ahead is recalled, and sent again."""
    path = save_mask(tmp_path / "m.safetensors", masks(), LAYOUTS)
    monkeypatch.setattr(device_stream, "MOST_ENTRIES", 1)
    engine = Full(lambda call: call == 1, monkeypatch)
    report = measure(path, device=ON_TORCH)
    assert engine.calls == [("device", 1)] * 6
    monkeypatch.undo()
    assert_same(report, measure(path, device="cpu"))


@pytest.mark.parametrize(
    ("kind", "words"), [(torch.OutOfMemoryError, "full"), (RuntimeError, "CUBLAS_STATUS_ALLOC_FAILED")]
)
def test_what_did_not_fit_is_gone_before_the_next_try(
    kind: type[Exception], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tensors and bytes, those of the batch sent ahead, and what torch keeps of them."""
    every = {f"{at}": random_mask((64, 64), 0.3, at) for at in range(8)}
    layers = layers_of(save_mask(tmp_path / "m.safetensors", every))
    monkeypatch.setattr(device_stream, "MOST_ENTRIES", 4 * 64**2)
    lane, real, held, given_back = Slow(), device_stream.measure_together, [], []
    monkeypatch.setattr(device_stream, "give_back_memory", given_back.append)

    def full(inputs: list[LayerInput], *rest: Any) -> LayerTable:
        held.append((len(inputs), lane.live["room"] // 4096))
        if len(held) == 1:
            mine = [layer.mask.clone() for layer in inputs]  # frames of the engine hold more
            raise kind(words) from ValueError(len(mine))
        return real(inputs, *rest)

    monkeypatch.setattr(device_stream, "measure_together", full)
    found = list(measured_there(layers, how(), lane))
    assert len(found) == 8
    assert names_of(found) == list(every)
    assert held[1:] == [(2, 2), (2, 2), (4, 4)]
    assert given_back == [ON_TORCH]


class Short(PlainLane):
    """A device with room for batches of so many bytes."""

    def __init__(self, most: int):
        self.most, self.refused = most, 0

    def room(self, size: int) -> torch.Tensor:
        if size > self.most:
            self.refused += 1
            raise torch.OutOfMemoryError("HIP out of memory")
        return super().room(size)


def how(**options: Any) -> Measuring:
    return Measuring(MetricOptions(), DenseCache(), "", ON_TORCH, **options)


def layers_of(path: Path, weights: Path | None = None) -> list[Any]:
    opened = OpenMask.of(open_mask(path), AnalysisRequest())
    checkpoint = None if weights is None else open_checkpoint(weights)
    return [unread_layer(opened.mask, name, checkpoint) for name in opened.names]


def test_bytes_for_which_there_is_no_room_are_sent_in_halves(tmp_path: Path, weights: Path) -> None:
    layers = layers_of(kinds(tmp_path)["bool"], weights)
    lane = Short(11_000)
    found = list(measured_there(layers, how(), lane))
    assert lane.refused > 1
    assert names_of(found) == list(SHAPES)
    assert [one.at_home for one in found if one] == [False, False, False, False, True]  # with weights e has 12,000
    assert readers() == []


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 60 layers in one file, buffers and rooms at any time: two chunks, and two batches."""
    monkeypatch.setattr(uploads, "CHUNK", 1024)
    every = {f"{at}": random_mask((64, 64), 0.3, at) for at in range(60)}
    path = save_mask(tmp_path / "m.safetensors", every)
    lane, memory = Slow(), 3 * bytes_there((64, 64), weighted=False)
    found = list(measured_there(layers_of(path), how(memory=memory), lane))
    assert names_of(found) == sorted(every, key=int)
    assert lane.most["buffer"] <= 2 * 1024
    assert lane.most["room"] <= 2 * 3 * 4096
    assert lane.live["room"] == 0


def test_host_memory_does_not_grow_with_a_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer of 8 MB goes through two buffers of 64 KB, and this machine's memory never holds it."""
    import tracemalloc

    monkeypatch.setattr(uploads, "CHUNK", 2**16)
    path = save_mask(tmp_path / "m.safetensors", {"w": random_mask((2048, 4096), 0.01)})
    (layer,) = layers_of(path)
    tracemalloc.start()
    lane, sizes = PlainLane(), []
    monkeypatch.setattr(PlainLane, "buffer", lambda _, size: sizes.append(size) or torch.empty(size, dtype=torch.uint8))
    with SpanReader() as files, Uploads(lane) as sender:
        shipment = Shipment([layer], files)
        there = lane.arrive(sender.send(shipment.pieces).result())
        most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(there) == 2**23
    assert sizes == [2**23, 2**16, 2**16]  # the room on what stands for the device, and the buffers
    assert most < 2**20  # of NumPy's memory and Python's


# Ends ----------------------------------------------------------------------------------------------------------------


def test_ctrl_c_in_the_middle_ends_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_mask(tmp_path / "m.safetensors", masks(), LAYOUTS)
    monkeypatch.setattr(device_stream, "MOST_ENTRIES", 1)
    real, calls = device_stream.measure_together, []

    def interrupted(layers: list[LayerInput], *rest: Any) -> LayerTable:
        calls.append(readers())
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(layers, *rest)

    monkeypatch.setattr(device_stream, "measure_together", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure(path, device=ON_TORCH)
    assert all(len(names) == 1 for names in calls)
    assert readers() == []


def test_an_interruption_between_chunks_stops_the_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "CHUNK", 16)
    path = save_mask(tmp_path / "m.safetensors", {"w": random_mask((64, 64))})
    (layer,) = layers_of(path)
    go, copied = threading.Event(), []

    class Waiting(PlainLane):
        def copy(self, there: torch.Tensor, here: torch.Tensor) -> None:
            copied.append(len(here))
            go.wait(60)

    sent: list[Any] = []

    def interrupted() -> None:
        with SpanReader() as files, Uploads(Waiting()) as sender:
            sent.append(sender.send(Shipment([layer], files).pieces))
            threading.Timer(0.01, go.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert sent[0].cancelled() or isinstance(sent[0].exception(), uploads.Stopped)
    assert len(copied) <= 1  # of 256
    assert readers() == []


def test_a_caller_who_has_seen_enough_ends_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_stream, "MOST_ENTRIES", 1)
    with closing(measured_there(layers_of(save_mask(tmp_path / "m.safetensors", masks(), LAYOUTS)), how())) as found:
        next(found)
        assert len(readers()) == 1
    assert readers() == []


@pytest.mark.parametrize("weighted", [False, True])
def test_a_file_that_changes_while_it_is_read(weighted: bool, tmp_path: Path, weights: Path) -> None:
    """Its header was read; then other bytes are in its place, of which nothing is made."""
    path = save_mask(tmp_path / "m.safetensors", masks(), LAYOUTS, packed=True)
    layers = layers_of(path, weights if weighted else None)
    changed = weights if weighted else path
    other = tmp_path / "other"
    other.write_bytes(changed.read_bytes()[:-64] + bytes(64))
    other.replace(changed)
    found = list(measured_there(layers, how()))
    assert len(found) == 5
    for one, name in zip(found, SHAPES, strict=True):
        assert one is not None
        assert isinstance(one.report, PaiError), name
        assert f"{changed}: changed while it was read; wait until it is written, and try again" in str(one.report)
        assert repr(name) in str(one.report)


def test_a_file_that_goes_while_it_is_read(tmp_path: Path) -> None:
    path = save_mask(tmp_path / "m.safetensors", masks(), LAYOUTS)
    layers = layers_of(path)
    path.unlink()
    found = list(measured_there(layers, how()))
    assert {type(one.report) for one in found if one} == {MaskError}
    assert all("cannot be read" in str(one.report) for one in found if one)


def test_an_error_of_the_readers_own_comes_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a fault of the program")

    monkeypatch.setattr(SpanReader, "fill", broken)
    with pytest.raises(RuntimeError, match="a fault of the program"):
        measure(save_mask(tmp_path / "m.safetensors", masks(), LAYOUTS), device=ON_TORCH)
    assert readers() == []


# Many masks ----------------------------------------------------------------------------------------------------------


def many(folder: Path, count: int) -> list[Path]:
    return [
        save_mask(folder / f"{seed:03}.safetensors", masks(seed), LAYOUTS, packed=seed % 2 > 0) for seed in range(count)
    ]


def test_many_small_masks_are_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = many(tmp_path, 12)
    expected = [measure(path, device="cpu") for path in paths]
    engine = Full(lambda _: False, monkeypatch)
    for one, other in zip(measure(paths, device=ON_TORCH), expected, strict=True):
        assert one.name == other.name
        assert_same(one, other)
    assert engine.calls == [("device", 60)]


@pytest.mark.parametrize("most", [1, 5_000, 2**28])
def test_reports_come_in_order_whatever_is_between(most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks that are finished, that cannot be read, and that cannot be measured."""
    monkeypatch.setattr(device_stream, "MOST_ENTRIES", most)
    paths, store = many(tmp_path, 9), tmp_path / "store.db"
    pai.analyze([paths[0], paths[4], paths[8]], device=ON_TORCH, store=store)
    (tmp_path / "002.safetensors").write_bytes(b"no mask")
    spoil(paths[6], "b", 7, 2)
    with pytest.warns(pai.PaiWarning):
        found = pai.analyze(paths, device=ON_TORCH, store=store)
    assert [one.name for one in found] == [str(path) for path in paths]
    assert [one.error is None for one in found] == [True, True, False, True, True, True, False, True, True]
    for at in (0, 1, 3, 8):
        assert_same(found[at], measure(paths[at], device="cpu"))


def test_finished_masks_are_shown_before_the_next_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, store = many(tmp_path, 4), tmp_path / "store.db"
    pai.analyze(paths[:3], device=ON_TORCH, store=store)
    engine = Full(lambda _: False, monkeypatch)
    from pai_cli.api.analyze import reports

    with reports(paths, device=ON_TORCH, store=store) as found:
        shown = [(next(found).name, len(engine.calls)) for _ in range(4)]
    assert shown == [(str(path), int(at == 3)) for at, path in enumerate(paths)]


def test_progress_counts_layers(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    measure(many(tmp_path, 3), device=ON_TORCH, progress=lambda done, of, _: told.append((done, of)))
    assert told == sorted(told)
    assert told[-1] == (3000, 3000)


def test_rank_says_the_same(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shuffled = (np.random.default_rng(at).permutation(masks()["e"].reshape(-1)).reshape(40, 60) for at in range(6))
    paths = [save_mask(tmp_path / f"{at}.safetensors", {"e": mask}) for at, mask in enumerate(shuffled)]
    expected = pai.rank(paths, weights=weights, no_store=True, device="cpu")
    engine = Full(lambda _: False, monkeypatch)
    found = pai.rank(paths, weights=weights, no_store=True, device=ON_TORCH)
    assert [place.name for place in found] == [place.name for place in expected]
    assert engine.calls == [("device", 6)]


def test_sample_measures_candidates_on_the_device(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = pai.sample(small, "erk", 4, density=0.2, device="cpu", jobs=1)
    engine = Full(lambda _: False, monkeypatch)
    found = pai.sample(small, "erk", 4, density=0.2, device=ON_TORCH, jobs=1)
    assert found == expected
    assert {place for place, _ in engine.calls} == {"device"}
    assert len(engine.calls) == 4


def test_a_matrix_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    from pai_cli.spectral import singular

    matrix = random_mask((50, 80), 0.3)
    seen: list[int] = []
    real = singular.solve_tensors

    def watched(requests: Any, *rest: Any) -> Any:
        seen.append(len(requests))
        return real(requests, *rest)

    monkeypatch.setattr(singular, "solve_tensors", watched)
    for given in (matrix, torch.from_numpy(matrix)):
        before = len(seen)
        ours = pai.singular_values(given, device=ON_TORCH)
        assert len(seen) == before + 1
        theirs = pai.singular_values(given)
        assert len(seen) == before + 1 or not seen[-1]  # of nothing that is on a device
        assert abs(ours.sigma_2 - theirs.sigma_2) <= ours.error_2 + theirs.error_2
        assert pai.ramanujan(given, device=ON_TORCH)["dr"].value == pytest.approx(
            pai.ramanujan(given)["dr"].value, abs=1e-9
        )


def test_a_report_of_a_device_is_kept_as_its_own(tmp_path: Path) -> None:
    (path,) = many(tmp_path, 1)
    store = tmp_path / "store.db"
    reports: list[MaskReport] = []
    for device in ("cpu", ON_TORCH, ON_TORCH):
        reports.append(pai.analyze(path, device=device, store=store).measured)
    assert reports[1].report == reports[2].report
