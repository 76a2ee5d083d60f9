"""What devices are called, which of them work is done on when nobody says, and how bytes get to one.

No GPU is asked: where one is there, it is simulated. `torch:cpu` stands for it where work is done on it; torch's answers
on what a machine has, and its streams, are given by these tests.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Pai, random_mask, save_mask

import pai_cli as pai
from pai_cli.analysis import cache, device_stream, places
from pai_cli.analysis.places import place_of, seconds_there
from pai_cli.api.inputs import device_of
from pai_cli.api.placing import Placing
from pai_cli.compute import device as devices
from pai_cli.compute import rates
from pai_cli.compute.device import ON_TORCH, device_name, free_memory, may_have_gpu, memory_limited, resolve
from pai_cli.compute.rates import Rates, measured_rates
from pai_cli.compute.uploads import PlainLane, Sent, StreamLane, lane_to
from pai_cli.errors import DeviceError, UsageError
from pai_cli.spectral.costs import LAUNCHES, MOST_ENTRIES, Work, bytes_there, work_of

# Names ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "cuda:1", "cuda:12", "mps", "xpu:0", ON_TORCH])
def test_names_of_devices(name: str) -> None:
    assert device_name(name) == name


def test_torchs_own_object_is_a_name() -> None:
    assert device_name(torch.device("cuda", 1)) == "cuda:1"


@pytest.mark.parametrize("given", ["tpu", "cuda:", "cuda:x", "cuda:-1", "CPU", "", "meta", 3, None, b"cpu", "cpu:0"])
def test_what_names_no_device(given: Any) -> None:
    with pytest.raises(UsageError) as caught:
        device_name(given)
    assert str(caught.value).endswith("give one of auto, cpu, cuda; of several GPUs cuda:1, and so on")


def gpus(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where torch sees so many CUDA GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_gpus_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(2, monkeypatch)
    names = ("cpu", ON_TORCH, "cuda", "cuda:0", "cuda:1", "auto")
    assert [resolve(name) for name in names] == ["cpu", ON_TORCH, "cuda", "cuda:0", "cuda:1", "cuda"]
    gpus(0, monkeypatch)
    assert [resolve(name) for name in ("cpu", ON_TORCH, "auto")] == ["cpu", ON_TORCH, "cpu"]


@pytest.mark.parametrize(
    ("count", "name", "line"),
    [
        (0, "cuda", "device=cuda: torch sees no CUDA GPU on this machine; use device=cpu"),
        (0, "cuda:1", "device=cuda:1: torch sees no CUDA GPU on this machine; use device=cpu"),
        (1, "cuda:1", "device=cuda:1: torch sees no such GPU on this machine; its one GPU is cuda:0"),
        (4, "cuda:4", "device=cuda:4: torch sees no such GPU on this machine; its 4 GPUs are cuda:0 to cuda:3"),
        (1, "mps", "device=mps: has no float64, in which values and their bounds are computed; use device=cpu"),
        (0, "xpu", "device=xpu: torch sees no such device; use device=cpu"),
    ],
)
def test_devices_that_are_not_there(count: int, name: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(count, monkeypatch)
    with pytest.raises(DeviceError) as caught:
        resolve(name)
    assert str(caught.value) == line
    with pytest.raises(DeviceError) as caught:
        pai.analyze({"w": random_mask((4, 4))}, device=name)
    assert str(caught.value) == line


def test_intels_gpus_with_float64_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    class Properties:
        has_fp64 = True

    monkeypatch.setattr(torch.xpu, "is_available", lambda: True)
    monkeypatch.setattr(torch.xpu, "device_count", lambda: 1)
    monkeypatch.setattr(torch.xpu, "get_device_properties", lambda _: Properties)
    assert resolve("xpu") == "xpu"
    Properties.has_fp64 = False
    with pytest.raises(DeviceError, match="has no float64"):
        resolve("xpu:0")
    with pytest.raises(DeviceError, match="torch sees no such device"):
        resolve("xpu:1")


def test_scores_are_not_computed_on_intels_gpus() -> None:
    with pytest.raises(
        DeviceError, match=r"^device=xpu: scores and training need the cores or a CUDA GPU; use device=cpu$"
    ):
        device_of("xpu")
    assert device_of(ON_TORCH) == device_of("cpu") == "cpu"


def test_the_command_takes_them_too(pai: Pai, tmp_path: Path) -> None:
    path = save_mask(tmp_path / "m.safetensors", {"w": random_mask((20, 30))})
    for name, status, words in (
        ("tpu", 2, "--device 'tpu': give one of auto, cpu, cuda; of several GPUs cuda:1, and so on"),
        ("mps", 1, "--device mps: has no float64, in which values and their bounds are computed; use --device cpu"),
        ("cuda:1", 1, "--device cuda:1: torch sees no CUDA GPU on this machine; use --device cpu"),
    ):
        done = pai("analyze", path, "--device", name)
        assert (done.status, done.err) == (status, f"pai: error: {words}\n")
    assert pai("analyze", path, "--device", ON_TORCH, "--no-store").status == 0
    for command in ("analyze", "rank", "prune", "sample", "train"):
        assert ON_TORCH not in pai(command, "--help").out


# A device's memory ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "size"),
    [
        (2**30, 2**30),
        ("2000000", 2_000_000),
        ("8GB", 8 * 10**9),
        ("8g", 8 * 10**9),
        ("1.5 GiB", 3 * 2**29),
        ("500MiB", 500 * 2**20),
        ("2048kib", 2**21),
        ("1TiB", 2**40),
    ],
)
def test_memory_with_units(given: int | str, size: int) -> None:
    assert Placing.of(ON_TORCH, given) == Placing(ON_TORCH, size)


@pytest.mark.parametrize("given", ["", "8", "8 GX", "-8GB", "1e9", "1.5", "0.5MB", 0, -1, True, 2.5, "8GB2", "٨GB"])
def test_what_is_no_memory(given: Any) -> None:
    with pytest.raises(UsageError) as caught:
        Placing.of(ON_TORCH, given)
    assert str(caught.value).endswith(": give a number of bytes, 1MiB or more, such as 8GB or 500MiB")


def test_memory_of_no_device_is_refused(pai: Pai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_mask(tmp_path / "m.safetensors", {"w": random_mask((20, 30))})
    memory = ("--device-memory", "8GB")
    refused = {
        ("analyze", path, *memory, "--device", "cpu"): (
            "--device-memory 8GB: is of a GPU, and --device cpu needs none; leave one of them out"
        ),
        (
            "analyze",
            path,
            *memory,
        ): "--device-memory 8GB: is of a GPU, and there is none that torch could use; leave it out",
        ("analyze", path, *memory, "--device", ON_TORCH, "--between"): (
            "--device-memory: --between computes no singular values; leave one of them out"
        ),
        ("rank", "--table", "t.csv", *memory, "--device", ON_TORCH): (
            "--device and --device-memory: nothing is measured with --table; leave them out"
        ),
    }
    gpus(0, monkeypatch)
    for words, line in refused.items():
        done = pai(*words)
        assert (done.status, done.err) == (2, f"pai: error: {line}\n")


def test_reports_need_no_device(tmp_path: Path) -> None:
    report = pai.analyze({"w": random_mask((20, 30))})
    with pytest.raises(UsageError, match="device= and device_memory: reports are measured already"):
        pai.rank([report], device="cpu")


def test_memory_decides_what_is_measured_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = {f"{at}": random_mask((256, 256), 0.1, at) for at in range(6)}
    path = save_mask(tmp_path / "m.safetensors", every)
    sizes: list[int] = []
    real = device_stream.measure_together

    def counted(layers: Any, *rest: Any) -> Any:
        sizes.append(len(layers))
        return real(layers, *rest)

    monkeypatch.setattr(device_stream, "measure_together", counted)
    need = bytes_there((256, 256), weighted=False)
    for memory in (need * 2, need * 4 + 1, "1GiB", None):
        pai.analyze(path, device=ON_TORCH, device_memory=memory, no_store=True)
    assert sizes == [2, 2, 2, 4, 2, 6, 6]


def test_torch_is_held_to_the_memory_that_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a simulated GPU of 100 bytes, of which torch has taken 10, and may take 60."""

    class Properties:
        total_memory = 100

    share = [0.6]
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Properties)
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda _: share[0])
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda one, _: share.__setitem__(0, one))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 10)
    for most, held in ((20, 0.3), (90, 0.6), (None, 0.6)):
        with memory_limited("cuda:0", most):
            assert share == [pytest.approx(held)]
        assert share == [0.6]
    with memory_limited(ON_TORCH, 20):
        assert share == [0.6]


def test_memory_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    assert free_memory(ON_TORCH) > 2**20
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (50, 100))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 20)
    assert free_memory("cuda:1") == 60


# How bytes get to a GPU ----------------------------------------------------------------------------------------------


def test_copies_are_a_streams_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a simulated module of torch's streams, which writes down what is asked of it."""
    said: list[Any] = []

    class Stream:
        def __init__(self, device: Any = None, name: str = "copies") -> None:
            self.name = name

        def __enter__(self) -> None:
            said.append(f"on {self.name}")

        def __exit__(self, *_: object) -> None:
            said.append("off")

        def wait_event(self, event: Any) -> None:
            said.append(f"{self.name} waits for {event.name}")

    class Event:
        name = "the copy"

        def record(self, stream: Stream) -> None:
            said.append(f"marked on {stream.name}")

        def synchronize(self) -> None:
            said.append("waited")

    class Module:
        def __init__(self) -> None:
            self.Stream, self.Event = Stream, Event

        stream = staticmethod(lambda stream: stream)
        current_stream = staticmethod(lambda _: Stream(name="work"))

    monkeypatch.setattr(torch, "get_device_module", lambda _: Module())
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda _, stream: said.append(f"kept for {stream.name}"))
    lane = StreamLane("cpu")
    assert isinstance(lane_to(ON_TORCH), PlainLane)
    room, buffer = lane.room(8), lane.buffer(8).fill_(7)  # pinned where the machine can
    end = lane.copy(room, buffer)
    end.synchronize()
    assert bool((lane.arrive(Sent(room, end)) == 7).all())
    assert said == [
        *("on copies", "off", "on copies", "marked on copies", "off", "waited"),
        *("work waits for the copy", "kept for work"),
    ]


# Which device, when nobody says --------------------------------------------------------------------------------------


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has not imported torch, on a machine with a driver and torch built for it."""
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(devices, "_driver_is_there", lambda: True)
    monkeypatch.setattr(devices, "_torch_is_built_for_it", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_traces_of_a_gpu(without_torch: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert may_have_gpu()
    for hidden in ("", "-1", " "):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert not may_have_gpu()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(devices, "_driver_is_there", lambda: False)
    assert not may_have_gpu()
    monkeypatch.setattr(devices, "_driver_is_there", lambda: True)
    monkeypatch.setattr(devices, "_torch_is_built_for_it", lambda: False)
    assert not may_have_gpu()
    assert "torch" not in sys.modules


def test_torch_that_is_imported_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_driver_is_there", lambda: pytest.fail("torch knows"))
    for count in (0, 1):
        gpus(count, monkeypatch)
        assert may_have_gpu() is (count > 0)


def test_a_driver_leaves_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "DRIVERS", (str(tmp_path / "nvidiactl"), str(tmp_path / "kfd")))
    if sys.platform != "win32":
        assert not devices._driver_is_there()
        (tmp_path / "kfd").touch()
        assert devices._driver_is_there()
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("SYSTEMROOT", str(tmp_path))
    assert not devices._driver_is_there()
    (tmp_path / "System32").mkdir()
    (tmp_path / "System32" / "nvcuda.dll").touch()
    assert devices._driver_is_there()


def test_torchs_own_libraries_tell_what_it_is_built_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices._torch_is_built_for_it() is (torch.version.cuda is not None or torch.version.hip is not None)
    monkeypatch.setattr(devices, "find_spec", lambda _: None)
    assert not devices._torch_is_built_for_it()


RATES = Rates(launch=5e-6, single=4e13, double=3e13, sent=2e10)
"""Of a GPU of a server, and of one whose float64 is slow."""
SLOW = Rates(launch=1e-5, single=2e13, double=2e9, sent=1e10)


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> Callable[[Rates], None]:
    """A GPU of these rates, whose work is done by `torch:cpu`; two cores."""
    gpus(1, monkeypatch)
    monkeypatch.setattr(places, "all_cores", lambda: 2)
    monkeypatch.setattr(places, "start_seconds", lambda: 0.0)
    monkeypatch.setattr(places, "resolve", lambda name: {"cuda": ON_TORCH}[str(name)])
    return lambda given: monkeypatch.setattr(places, "measured_rates", lambda device: {ON_TORCH: given}[device])


LARGE = work_of([(4096, 14336)] * 20, weighted=False)
SMALL = work_of([(64, 576)] * 20, weighted=False)


def test_a_gpu_that_is_quicker_is_taken_and_told(
    simulated: Callable[[Rates], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="pai")
    simulated(RATES)
    assert place_of(LARGE, 20 * 4096 * 14336) == ON_TORCH
    (line,) = caplog.messages
    assert line.startswith("a GPU does the work (device=auto: about ")
    assert line.endswith(" on 2 cores; device=cpu leaves it out)")


def test_a_gpu_that_is_slower_is_left_and_told(
    simulated: Callable[[Rates], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="pai")
    simulated(SLOW)
    assert place_of(LARGE, 20 * 4096 * 14336) == "cpu"
    assert caplog.messages[0].startswith("the cores do the work (device=auto): there is a GPU, and it takes about ")


def test_small_work_asks_nothing_of_a_gpu(
    simulated: Callable[[Rates], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="pai")
    monkeypatch.setattr(places, "measured_rates", lambda _: pytest.fail("was measured"))
    assert place_of(SMALL, 20 * 64 * 576) == "cpu"
    monkeypatch.setattr(places, "start_seconds", lambda: LARGE.seconds)  # the cores are done before it has begun
    assert place_of(LARGE, 20 * 4096 * 14336) == "cpu"
    assert not caplog.messages


@pytest.mark.parametrize("error", [RuntimeError("CUDA driver initialization failed"), DeviceError("it is not there")])
def test_a_gpu_that_cannot_be_used_is_told(
    error: Exception,
    simulated: Callable[[Rates], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="pai")

    def broken(_: str) -> Rates:
        raise error

    monkeypatch.setattr(places, "measured_rates", broken)
    assert place_of(LARGE, 20 * 4096 * 14336) == "cpu"
    why = "it is not there" if isinstance(error, DeviceError) else f"the GPU cannot be used ({error})"
    assert caplog.messages == [f"the cores do the work (device=auto): {why}"]


def test_what_a_device_takes_by_its_rates() -> None:
    work = Work(seconds=1.0, single=4e13, double=6e13, sent=4e10)
    assert seconds_there(work, 1, RATES) == pytest.approx(LAUNCHES * 5e-6 + 1 + 2 + 2)
    assert seconds_there(work, 2 * MOST_ENTRIES + 1, RATES) == pytest.approx(3 * LAUNCHES * 5e-6 + 1 + 2 + 2)
    assert work.times(0.5) == Work(0.5, 2e13, 3e13, 2e10)


def test_work_grows_with_layers_weights_and_sides() -> None:
    one, two = work_of([(64, 576)], weighted=False), work_of([(64, 576)] * 2, weighted=False)
    assert two.seconds == pytest.approx(2 * one.seconds)
    assert work_of([(64, 576)], weighted=True).seconds > one.seconds
    assert work_of([(576, 64)], weighted=True) == work_of([(64, 576)], weighted=True)
    assert work_of([], weighted=True) == Work()


def test_rates_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "SIDE", 64)
    monkeypatch.setattr(rates, "COPIED", 2**12)
    monkeypatch.setattr(rates, "LAUNCHED", 10)
    found = measured_rates.__wrapped__(ON_TORCH)
    assert all(0 < rate < float("inf") for rate in vars(found).values())


def test_how_far_a_gpu_is_from_working(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert rates.start_seconds() == rates.BEGIN
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert rates.start_seconds() == 0.0
    monkeypatch.delitem(sys.modules, "torch")
    assert rates.start_seconds() == rates.IMPORT + rates.BEGIN


# By default ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def taken(simulated: Callable[[Rates], None], monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """A quick GPU, for which any work is enough; what is measured on it."""
    simulated(RATES)
    monkeypatch.setattr(places, "LEAST", 0.0)
    monkeypatch.setattr(places, "seconds_there", lambda *_: 0.0)
    found: list[tuple[str, int]] = []
    real = device_stream.measure_together

    def counted(layers: Any, *rest: Any) -> Any:
        found.append((type(layers[0].mask).__name__, len(layers)))
        return real(layers, *rest)

    monkeypatch.setattr(device_stream, "measure_together", counted)
    return found


def several(folder: Path, count: int = 4) -> list[Path]:
    return [
        save_mask(
            folder / f"{at}.safetensors", {"w": np.random.default_rng(at).permutation(1200).reshape(30, 40) < 300}
        )
        for at in range(count)
    ]


def test_analyze_and_rank_take_it_by_themselves(tmp_path: Path, taken: list[tuple[str, int]]) -> None:
    paths = several(tmp_path)
    pai.analyze(paths[0], no_store=True)
    pai.analyze(paths, no_store=True)
    pai.analyze({"w": random_mask((30, 40))})
    pai.rank(paths, no_store=True)
    assert taken == [("Tensor", 1), ("Tensor", 4), ("Tensor", 1), ("Tensor", 4)]


def test_what_was_asked_for_otherwise_is_not_sent_there(tmp_path: Path, taken: list[tuple[str, int]]) -> None:
    paths = several(tmp_path)
    for options in ({"device": "cpu"}, {"jobs": 2}, {"solver": "gram"}, {"solver": "direct"}):
        pai.analyze(paths, no_store=True, **options)
    pai.rank(paths, no_store=True, device="cpu")
    assert taken == []


def test_a_matrix_takes_it_where_auto_is_asked_for(
    taken: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pai_cli.api import matrix

    moved: list[str] = []
    real = matrix._moved
    monkeypatch.setattr(matrix, "_moved", lambda plain, place: moved.append(place) or real(plain, place))
    ones = random_mask((30, 40), 0.3)
    auto, here = pai.singular_values(ones, device="auto"), pai.singular_values(ones)
    assert moved == [ON_TORCH]
    assert abs(auto.sigma_2 - here.sigma_2) <= auto.error_2 + here.error_2


def test_what_the_store_has_needs_no_gpu(
    tmp_path: Path, taken: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever measured it: reports of the cores and of a GPU are as good where nobody asked for either."""
    monkeypatch.setattr(cache, "_place", lambda device: {ON_TORCH: "cuda"}.get(device, device))
    paths, store = several(tmp_path), tmp_path / "store.db"
    pai.analyze(paths[:2], store=store, device="cpu")
    assert taken == []
    first = pai.analyze(paths, store=store)
    assert taken == [("Tensor", 2)]
    again = pai.analyze(paths, store=store)
    assert taken == [("Tensor", 2)]
    assert [one.to_dict() for one in first] == [one.to_dict() for one in again]


def test_masks_that_are_left_decide(
    tmp_path: Path, taken: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the first mask, its work; of those after it, the share that was not found among those before."""
    asked: list[float] = []
    monkeypatch.setattr(places, "place_of", lambda work, entries: asked.append(entries) or "cpu")
    paths, store = several(tmp_path), tmp_path / "store.db"
    pai.analyze(paths, no_store=True)
    pai.analyze([paths[0], paths[1]], store=store)
    pai.analyze(paths, store=store)
    assert asked == [pytest.approx(size, rel=0.02) for size in (4 * 1200, 2 * 1200, (1 + 1 / 3) * 1200)]


@pytest.mark.parametrize("kind", ["torch", "damaged", "gone"])
def test_a_first_mask_without_a_header_is_judged_by_its_size(
    kind: str, tmp_path: Path, taken: list[tuple[str, int]]
) -> None:
    path = tmp_path / "m.pt"
    if kind == "torch":
        torch.save({"w": torch.from_numpy(random_mask((3000, 3000)))}, path)
    elif kind == "damaged":
        path = tmp_path / "m.safetensors"
        path.write_bytes(b"\x10\0\0\0\0\0\0\0{damaged")
    from pai_cli.analysis.masks import AnalysisRequest

    place = places.place_of_masks([path], AnalysisRequest(device="auto"), 1.0)
    assert place == (ON_TORCH if kind == "torch" else "cpu")


@pytest.mark.parametrize("command", ["analyze({mask!r}, no_store=True)", "rank([{mask!r}, {mask!r}], no_store=True)"])
@pytest.mark.parametrize("driver", [False, True])
def test_a_small_mask_imports_no_torch(command: str, driver: bool, tmp_path: Path) -> None:
    """Nor where there is a GPU, which would begin when the cores are done."""
    mask = save_mask(tmp_path / "m.safetensors", {"w": random_mask((64, 64))})
    code = (
        "import sys, pai_cli\n"
        "from pai_cli.compute import device\n"
        f"device._driver_is_there = lambda: {driver}\n"
        "device._torch_is_built_for_it = lambda: True\n"
        f"pai_cli.{command.format(mask=str(mask))}\n"
        "print(sorted({'torch', 'pai_cli.compute.uploads'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
