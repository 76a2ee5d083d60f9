"""Pruning piece by piece: the same bits as in memory, whatever the dtypes, ties and passes; and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from copies import STOPPED, begin
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from workers import wait_until

from pai_cli.errors import CheckpointError, NotFiniteError
from pai_cli.files.checkpoints import Checkpoint, open_checkpoint
from pai_cli.files.mask_pieces import MaskOutline, write_mask_pieces
from pai_cli.files.masks import MaskFile, MaskToWrite, write_mask
from pai_cli.methods import registry
from pai_cli.methods.registry import get
from pai_cli.models.layers import PrunableLayer
from pai_cli.models.network import Network, init_network, load_network, outline_network, save_checkpoint
from pai_cli.pruning import ties
from pai_cli.pruning.base import Pattern, Scope
from pai_cli.pruning.groups import keep_largest_in_groups
from pai_cli.pruning.output import mask_to_write
from pai_cli.pruning.pattern import input_axis, keep_in_groups
from pai_cli.pruning.run import PruneRequest, prune
from pai_cli.pruning.streaming import choosing, reading, scores, search
from pai_cli.pruning.streaming.choosing import Chosen, choose
from pai_cli.pruning.streaming.keys import KINDS, Keys, common_dtype, magnitudes, widened
from pai_cli.pruning.streaming.reading import OpenFiles, Piece
from pai_cli.pruning.streaming.scores import Draws, Sample, window_around
from pai_cli.pruning.streaming.search import Search, tally
from pai_cli.pruning.streaming.writing import write_chosen
from pai_cli.random import generator_for
from pai_cli.spectral.layout import PLAIN, Layout

HALF, BRAIN, SINGLE, DOUBLE = torch.float16, torch.bfloat16, torch.float32, torch.float64
DTYPES = (HALF, BRAIN, SINGLE, DOUBLE)


@pytest.fixture(autouse=True)
def still_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")


def cut_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of a few rows, and searches that cannot hold or count much, so that they take several passes."""
    monkeypatch.setattr(reading, "PIECE_WEIGHTS", 50)
    monkeypatch.setattr(ties, "TOGETHER", 50)
    monkeypatch.setattr(reading, "PIECE_BYTES", 504)
    monkeypatch.setattr(search, "HELD_BYTES", 64)
    monkeypatch.setattr(search, "FEW_KEYS", 4)
    monkeypatch.setattr(search, "BIN_BITS", 3)
    few_drafts(monkeypatch, 300)  # of some layers and not of others


def few_drafts(monkeypatch: pytest.MonkeyPatch, most_bytes: int) -> None:
    """Room for so many bytes of drafts, however large a tensor is."""
    monkeypatch.setattr(search, "DRAFT_BYTES", most_bytes)
    monkeypatch.setattr(search, "MORE", 0)
    monkeypatch.setattr(search, "MOST_INSIDE", 1)  # pieces are so small that a window takes in much of one


def state(kind: str) -> dict[str, torch.Tensor]:
    """Weights of GPT-2's names: random, of two values, all equal, tiny, with both zeros."""
    torch.manual_seed(0)
    tensors = {
        "wte.weight": torch.randn(30, 8),
        "h.0.attn.c_attn.weight": torch.randn(16, 48),
        "h.10.mlp.c_fc.weight": torch.randn(24, 20) * 3,
        "h.2.mlp.c_proj.weight": torch.randn(12, 8) / 50,
        "a.weight": torch.randn(7, 6),
        "h.0.ln.weight": torch.ones(8),
        "h.0.one.weight": torch.full((1, 1), 0.5),
    }
    if kind == "two values":
        return {name: torch.where(tensor > 0, 1.0, -0.25) for name, tensor in tensors.items()}
    if kind == "equal":
        return {name: torch.where(tensor > 0, 2.0, -2.0) for name, tensor in tensors.items()}
    if kind == "zeros":
        return {
            name: torch.where(tensor > 1, tensor, torch.copysign(torch.zeros(()), tensor))
            for name, tensor in tensors.items()
        }
    if kind == "tiny":
        return {name: tensor * 1e-7 for name, tensor in tensors.items()}  # subnormal in half precision
    return tensors


def folder(path: Path, tensors: dict[str, torch.Tensor], shards: int = 2) -> Path:
    """A Hugging Face folder, its shards named so that their order is not the tensors'."""
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text('{"model_type": "gpt2"}')
    where = {name: f"model-{9 - i % shards}.safetensors" for i, name in enumerate(tensors)}
    for shard in set(where.values()):
        save_file({name: tensors[name] for name in tensors if where[name] == shard}, path / shard)
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return path


def streamed(source: Checkpoint, request: PruneRequest) -> Chosen:
    return choose(source, outline_network(source, None, None), request)


def assert_same_bytes(path: Path, *requests: PruneRequest) -> None:
    """Both ways write the same file, and say the same of it; of several requests every other one packed."""
    source = open_checkpoint(path)
    network, outline = load_network(source), outline_network(source, None, None)
    one, other = path.parent / "memory", path.parent / "pieces"
    for number, request in enumerate(requests):
        result, chosen = prune(network, request), choose(source, outline, request)
        assert chosen.sha256 == source.sha256
        assert dict(chosen.summary.kept_by_layer) == dict(result.kept_by_layer)
        assert chosen.summary.layers == result.layers
        for fact in ("kept", "total", "density", "collapsed", "rounds", "scope", "whole"):
            assert getattr(chosen.summary, fact) == getattr(result, fact)
        for packed in (False, True) if len(requests) == 1 else (number % 2 == 1,):
            write_mask(one, mask_to_write(result, request, source, ["prune"], network.story), packed=packed, force=True)
            write_chosen(other, chosen, ["prune"], packed=packed, force=True)
            assert one.read_bytes() == other.read_bytes()


SELECTIONS = {
    "global": {"density": 0.3},
    "few": {"density": 0.002},
    "most": {"density": 0.98},
    "all": {"density": 1.0},
    "inverted": {"density": 0.3, "invert": True},
    "shuffled": {"density": 0.4, "shuffle": True},
    "densities": {"densities": (("h.0.*", 0.21), ("*", 0.4))},
    "2:4": {"pattern": Pattern(2, 4)},
    "3:4 inverted": {"pattern": Pattern(3, 4), "invert": True},
    "5:24": {"pattern": Pattern(5, 24)},
    "ignored": {"density": 0.3, "ignore": ("h.10*",)},
}
METHODS = tuple(name for name, method in registry.METHODS.items() if method.in_pieces)


def test_the_methods_that_score_in_pieces() -> None:
    assert METHODS == ("random", "uniform", "erk", "magnitude", "smart-ratio")


@pytest.mark.parametrize("selection", SELECTIONS)
def test_same_bits_as_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, selection: str) -> None:
    cut_small(monkeypatch)
    path = folder(tmp_path / "net", {name: tensor.to(BRAIN) for name, tensor in state("random").items()})
    requests = {method: PruneRequest(get(method), seed=3, **SELECTIONS[selection]) for method in METHODS}  # type: ignore[arg-type]
    if selection == "few":
        requests["smart-ratio"] = replace(requests["smart-ratio"], density=0.02)
    assert_same_bytes(path, *requests.values())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("kind", "small"),
    [
        *((kind, True) for kind in ("random", "two values", "equal", "zeros", "tiny")),
        ("random", False),
        ("zeros", False),
    ],
)
def test_every_floating_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, kind: str, small: bool
) -> None:
    if small:
        cut_small(monkeypatch)
    path = folder(tmp_path / "net", {name: tensor.to(dtype) for name, tensor in state(kind).items()})
    assert_same_bytes(
        path,
        PruneRequest(get("magnitude"), 0.3),
        PruneRequest(get("magnitude"), 0.3, invert=True),
        PruneRequest(get("magnitude"), 0.3, scope="layer"),
        PruneRequest(get("magnitude"), pattern=Pattern(2, 4)),
    )


@pytest.mark.parametrize("dtypes", [(HALF, BRAIN), (BRAIN, SINGLE), (HALF, DOUBLE), (HALF, BRAIN, SINGLE, DOUBLE)])
def test_types_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtypes: tuple[torch.dtype, ...]) -> None:
    cut_small(monkeypatch)
    for kind in ("random", "two values", "tiny"):
        tensors = {name: tensor.to(dtypes[i % len(dtypes)]) for i, (name, tensor) in enumerate(state(kind).items())}
        assert_same_bytes(folder(tmp_path / "net", tensors), PruneRequest(get("magnitude"), 0.37))


@pytest.mark.parametrize("kind", ["two values", "equal", "zeros"])
def test_ties_are_drawn_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    cut_small(monkeypatch)
    path = folder(tmp_path / "net", {name: tensor.to(BRAIN) for name, tensor in state(kind).items()})
    requests = [
        PruneRequest(get("magnitude"), 0.3, ties="random", seed=seed, **more)  # type: ignore[arg-type]
        for seed in range(3)
        for more in ({}, {"scope": "layer"}, {"invert": True}, {"shuffle": True})
    ]
    assert_same_bytes(path, *requests)
    source = open_checkpoint(path)
    assert streamed(source, requests[0]).summary.ties == prune(load_network(source), requests[0]).ties
    drawn = {tuple(streamed(source, request).summary.kept_by_layer.values()) for request in requests[::4]}
    assert len(drawn) == 3


def test_ties_go_through_the_layers_in_the_networks_order(tmp_path: Path) -> None:
    path = folder(tmp_path / "net", {name: tensor.to(BRAIN) for name, tensor in state("equal").items()})
    summary = streamed(open_checkpoint(path), PruneRequest(get("magnitude"), 0.5)).summary
    sizes = {layer.name: int(np.prod(layer.shape)) for layer in summary.layers}
    left = summary.kept
    for name, size in sizes.items():
        assert summary.kept_by_layer[name] == min(size, left)
        left -= summary.kept_by_layer[name]


@pytest.mark.parametrize("name", ["resnet20", "mobilenetv2"])
def test_a_recognised_network_with_grouped_convolutions(tmp_path: Path, name: str) -> None:
    save_checkpoint(tmp_path / "net.safetensors", init_network(name, 10, 0))
    source = open_checkpoint(tmp_path / "net.safetensors")
    outline = outline_network(source, None, None)
    assert all(parameter.is_meta for parameter in outline.model.parameters())
    network = load_network(source)
    assert (outline.layers, outline.description, outline.input_shape) == (
        network.layers,
        network.description,
        network.input_shape,
    )
    for request in (PruneRequest(get("magnitude"), 0.1), PruneRequest(get("erk"), pattern=Pattern(1, 4))):
        result = prune(replace(network, input_shape=None), request)  # whether it is connected takes its time
        write_mask(tmp_path / "a", mask_to_write(result, request, source, []), packed=True, force=True)
        write_chosen(tmp_path / "b", choose(source, outline, request), [], packed=True, force=True)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_groups_of_a_transposed_convolution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of M run along the first dimension there; a piece must hold whole ones."""
    monkeypatch.setattr(reading, "PIECE_WEIGHTS", 16)
    layer = PrunableLayer("up.weight", (16, 3, 2, 2), Layout(groups=2, transposed=True))
    model = torch.nn.Module()
    model.up = torch.nn.ConvTranspose2d(16, 6, 2, groups=2, bias=False)
    save_file({"up.weight": model.up.weight.detach()}, tmp_path / "up.safetensors")
    source = open_checkpoint(tmp_path / "up.safetensors")
    network = Network(model, "", None, (layer,))
    for method in ("magnitude", "random"):
        request = PruneRequest(get(method), pattern=Pattern(2, 4))
        result = prune(network, request)
        write_chosen(tmp_path / "m.safetensors", choose(source, network, request), [], packed=False, force=True)
        assert np.array_equal(MaskFile(tmp_path / "m.safetensors").array("up.weight"), result.masks["up.weight"])


KEYS = {"u2": (np.uint16, 0x7FFF), "u4": (np.uint32, 0x7FFFFFFF), "u8": (np.uint64, 0x7FFFFFFFFFFFFFFF)}


@given(st.data())
def test_a_search_finds_what_sorting_finds(data: st.DataObject) -> None:
    dtype, most = KEYS[data.draw(st.sampled_from(sorted(KEYS)))]
    few = data.draw(st.booleans())
    key = st.sampled_from([0, 1, 5, most - 1, most]) if few else st.integers(0, most)
    layers = data.draw(st.lists(st.lists(key, min_size=1, max_size=40), min_size=1, max_size=4))
    arrays = {f"layer{i}": np.array(layer, dtype) for i, layer in enumerate(layers)}
    total = sum(array.size for array in arrays.values())
    if total < 2:
        return
    count = data.draw(st.integers(1, total - 1))
    window = sorted([data.draw(st.integers(0, most)), data.draw(st.integers(0, most))])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "HELD_BYTES", data.draw(st.sampled_from([0, 40, 10**6])))
        patch.setattr(search, "FEW_KEYS", data.draw(st.sampled_from([1, 3, 1024])))
        patch.setattr(search, "BIN_BITS", data.draw(st.sampled_from([1, 4, 12])))
        bits = search.BIN_BITS
        found = Search({name: array.size for name, array in arrays.items()}, count, most, (window[0], window[1]))
        passes = 0
        while found.cuts is None:
            passes += 1
            assert passes <= 3 + most.bit_length() / bits
            for name, array in arrays.items():
                for piece in np.array_split(array, 3):
                    found.add(name, tally(piece, found.window))
            assert found.seen_all
            found.finish()
    order = np.argsort(~np.concatenate(list(arrays.values())), kind="stable")  # ties: the lower index
    wanted = np.zeros(total, bool)
    wanted[order[:count]] = True
    for array, cut in zip(arrays.values(), found.cuts.values(), strict=True):
        mask = array > cut.key
        mask[np.flatnonzero(array == cut.key)[: cut.ties]] = True
        assert np.array_equal(mask, wanted[: array.size])
        assert (cut.kept, cut.equal) == (int(mask.sum()), int((array == cut.key).sum()))
        wanted = wanted[array.size :]


def test_one_pass_is_the_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of draws and of a sample of weights, the guess holds the cut: nothing is read a second time to choose."""
    torch.manual_seed(1)
    path = folder(tmp_path / "net", {f"h.{i}.c_fc.weight": torch.randn(300, 400) * (i + 1) for i in range(3)})
    ended: list[bool] = []
    finish = Search.finish

    def counted(self: Search) -> None:
        finish(self)
        ended.append(self.cuts is not None)

    monkeypatch.setattr(Search, "finish", counted)
    for method in ("magnitude", "random"):
        for density in (0.01, 0.5, 0.9):
            streamed(open_checkpoint(path), PruneRequest(get(method), density))
    assert ended == [True] * 6


@pytest.mark.skipif(search.compiled is None, reason="the compiled part is not built: installed without a C compiler")
@given(st.data())
def test_compiled_and_not_the_same_is_sifted(data: st.DataObject) -> None:
    """Sizes around a block and a byte; windows of one key, of none, of all; more inside than there is room for."""
    dtype = np.dtype(data.draw(st.sampled_from(["u2", "u4", "u8"])))
    size = data.draw(st.integers(0, 200))
    most = data.draw(st.sampled_from([3, 200, 2 ** (8 * dtype.itemsize - 1), np.iinfo(dtype).max]))
    keys = np.array(data.draw(st.lists(st.integers(0, int(most)), min_size=size, max_size=size)), dtype)
    low = data.draw(st.integers(0, int(most)))
    window = low, data.draw(st.integers(max(low - 1, 0), int(most)))
    room = data.draw(st.integers(0, size))
    found, plain = search.sift(keys, window, room), search._sift(keys, window, room)
    inside = np.flatnonzero((keys >= low) & (keys <= window[1]))
    assert (found.above, found.inside) == (plain.above, plain.inside) == (int((keys > window[1]).sum()), inside.size)
    assert np.array_equal(found.bits, np.packbits(keys > window[1]))
    assert np.array_equal(found.bits, plain.bits)
    for one in (found, plain):
        assert one.places is None if inside.size > room else np.array_equal(one.places, inside)


@pytest.mark.skipif(search.compiled is None, reason="the compiled part is not built: installed without a C compiler")
@pytest.mark.parametrize("keys", [np.zeros(4, np.uint8), np.zeros(8, np.uint16)[::2]])
def test_what_cannot_be_sifted_ends_before_the_compiled_part(keys: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"contiguous (uint|keys)"):
        search.sift(keys, (0, 1), 4)


@pytest.mark.parametrize("method", METHODS)
def test_without_the_compiled_part_the_bits_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    cut_small(monkeypatch)
    monkeypatch.setattr(search, "compiled", None)
    assert_same_bytes(folder(tmp_path / "net", state("random")), PruneRequest(get(method), 0.3))


def test_draws_in_blocks_are_those_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece of several blocks, whether its mask is kept from the pass that chose or made once more."""
    monkeypatch.setattr(scores, "DRAWN_TOGETHER", 64)
    path = folder(tmp_path / "net", {"h.0.c_fc.weight": torch.randn(30, 29), "h.1.c_fc.weight": torch.randn(9, 7)})
    for most_bytes in (0, 10**6):
        few_drafts(monkeypatch, most_bytes)
        both = [(density, invert) for density in (0.001, 0.5, 0.999) for invert in (False, True)]
        assert_same_bytes(path, *(PruneRequest(get("random"), density, invert=invert) for density, invert in both))


@pytest.mark.parametrize("most_bytes", [0, 10**6])
@pytest.mark.parametrize("scope", [None, "layer"])
def test_what_was_drawn_is_kept_where_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_bytes: int, scope: Scope | None
) -> None:
    few_drafts(monkeypatch, most_bytes)
    path = folder(tmp_path / "net", state("random"))
    drawn: list[int] = []
    blocks = Draws.blocks

    def counted(self: Draws, piece: Piece, magnitude: Keys | None = None) -> Iterator[Keys]:
        if piece.layer.shape == (16, 48):
            drawn.append(piece.stop - piece.start)
        return blocks(self, piece, magnitude)

    monkeypatch.setattr(Draws, "blocks", counted)
    assert_same_bytes(path, PruneRequest(get("random"), 0.3, scope=scope))
    times = 1 if most_bytes else 3  # to choose once, to write twice
    assert sum(drawn) == times * 16 * 48


@pytest.mark.parametrize("scope", [None, "layer"])
def test_what_was_read_is_kept_where_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scope: Scope | None
) -> None:
    """Weights whose masks fit in memory are read once; the mask is then of what was read, whatever is there since."""
    path = folder(tmp_path / "net", {name: tensor.to(BRAIN) for name, tensor in state("random").items()})
    result = prune(load_network(open_checkpoint(path)), PruneRequest(get("magnitude"), 0.3, scope=scope))
    chosen = streamed(open_checkpoint(path), PruneRequest(get("magnitude"), 0.3, scope=scope))
    for shard in path.glob("*.safetensors"):
        shard.unlink()
    write_chosen(tmp_path / "m", chosen, [], packed=True, force=False)
    assert all(np.array_equal(MaskFile(tmp_path / "m").array(name), mask) for name, mask in result.masks.items())


def test_a_whole_sample_leaves_no_doubt() -> None:
    keys = np.array([5, 1, 9, 9, 3], np.uint16)
    for rank, key in enumerate([9, 9, 5, 3, 1], start=1):
        assert window_around([Sample(5, [keys[:3], keys[3:]], True)], rank, 0x7FFF) == (key, key)


@given(st.integers(0, 2**63 - 1), st.integers(0, 200), st.integers(0, 200), st.booleans())
def test_draws_are_those_of_the_whole_layer(seed: int, start: int, stop: int, invert: bool) -> None:
    layer = PrunableLayer("a.weight", (20, 10), PLAIN)
    start, stop = sorted((start, stop))
    draws = Draws(seed, invert=invert)
    keys = draws.keys(Piece(layer, start, stop)).astype(np.uint64)
    bits = np.uint64(draws.most) - keys if invert else keys
    assert np.array_equal(
        bits.view(np.float64), generator_for(seed, layer.name).random((20, 10)).reshape(-1)[start:stop]
    )


@given(
    st.integers(1, 5), st.integers(1, 3), st.integers(2, 20), st.booleans(), st.integers(0, 2**31), st.integers(1, 6)
)
def test_groups_are_those_of_sorting(rows: int, times: int, of: int, transposed: bool, seed: int, values: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (of * times, rows, 2) if transposed else (rows, of * times, 2)
    layer = PrunableLayer("a", shape, Layout(transposed=transposed))
    scores = rng.integers(0, values, shape).astype(np.float32)
    keep = int(rng.integers(1, of))
    kept = keep_largest_in_groups(scores.reshape(-1).view(np.uint32), shape, input_axis(layer), Pattern(keep, of))
    by_sorting = keep_in_groups(scores, Pattern(keep, of), layer, np.ones(shape, np.bool_))
    assert np.array_equal(kept.reshape(shape), by_sorting)
    assert np.array_equal(keep_in_groups(scores - 1, Pattern(keep, of), layer), by_sorting)  # floats, of both signs


FINITE = st.floats(allow_nan=False, allow_infinity=False, width=16)


@given(st.lists(FINITE, min_size=1, max_size=20), st.sampled_from(["F16", "F32", "F64"]), st.sampled_from(DTYPES[:3]))
def test_keys_are_in_the_order_of_magnitudes(values: list[float], common: str, dtype: torch.dtype) -> None:
    spelled = {HALF: "F16", BRAIN: "BF16", SINGLE: "F32"}[dtype]
    common = common_dtype([spelled, common])
    tensor = torch.tensor(values, dtype=torch.float64).to(dtype)
    raw = tensor.view(torch.int32 if dtype is SINGLE else torch.int16).numpy().view(np.uint8)
    keys = widened(magnitudes(raw, spelled), spelled, common)
    assert keys.dtype == KINDS[common].bits
    scores = tensor.double().abs().numpy()
    assert np.array_equal(np.unique(keys, return_inverse=True)[1], np.unique(scores, return_inverse=True)[1])


# Files


@given(
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=3), min_size=1, max_size=4),
    st.booleans(),
    st.integers(1, 20),
)
def test_masks_written_in_pieces_are_the_same_file(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[list[int]], packed: bool, step: int
) -> None:
    path = tmp_path_factory.mktemp("pieces")
    rng = np.random.default_rng(0)
    names = ["layer.10", "layer.2", "é", "a"]
    masks = {names[i]: rng.random(shape) < 0.5 for i, shape in enumerate(shapes)}
    if "layer.2" in masks:  # its groups divide its channels
        masks["layer.2"] = np.concatenate((masks["layer.2"], masks["layer.2"], np.ones((2, *shapes[1][1:]), np.bool_)))
    layouts = {"layer.2": Layout(groups=2, transposed=True)}
    write_mask(path / "whole", MaskToWrite(masks, layouts, {"method": "x"}), packed=packed, force=False)
    outline = MaskOutline({name: mask.shape for name, mask in masks.items()}, layouts, {"method": "x"})

    def in_steps(name: str) -> list[np.ndarray]:
        flat = masks[name].reshape(-1)
        return [flat[at : at + step] for at in range(0, flat.size, step)]

    write_mask_pieces(path / "pieces", outline, in_steps, packed=packed, force=False)
    assert (path / "pieces").read_bytes() == (path / "whole").read_bytes()


def test_pieces_that_are_too_few_leave_no_file(tmp_path: Path) -> None:
    outline = MaskOutline({"a": (3, 4)}, {}, {})
    with pytest.raises(ValueError, match=r"^the pieces of 'a' do not make up its shape \(3, 4\)$"):
        write_mask_pieces(tmp_path / "m", outline, lambda _: [np.ones(11, bool)], packed=False, force=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("value", "word"), [(float("nan"), "nan"), (float("inf"), "inf"), (float("-inf"), "-inf")])
@pytest.mark.parametrize("method", ["magnitude", "random"])
def test_weights_that_are_not_finite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, value: float, word: str, method: str
) -> None:
    monkeypatch.setattr(reading, "PIECE_BYTES", 504)
    tensors = {name: tensor.to(dtype) for name, tensor in state("random").items()}
    tensors["h.10.mlp.c_fc.weight"][15, 7] = value
    tensors["wte.weight"][0, 0] = value  # a table, which is not loaded either way
    source = open_checkpoint(folder(tmp_path / "net", tensors))
    lines = []
    for run in (lambda: load_network(source), lambda: streamed(source, PruneRequest(get(method), 0.5))):
        with pytest.raises(NotFiniteError) as caught:
            run()
        lines.append(str(caught.value))
    assert (
        lines[0]
        == lines[1]
        == (
            f"{source.path}: tensor 'h.10.mlp.c_fc.weight' holds {word} at index 307; "
            "take a checkpoint from before the weights diverged"
        )
    )


def test_weights_that_are_no_numbers_of_use(tmp_path: Path) -> None:
    source = open_checkpoint(
        folder(tmp_path / "net", state("random") | {"a.weight": torch.ones(7, 6, dtype=torch.int64)})
    )
    with pytest.raises(CheckpointError) as caught:
        streamed(source, PruneRequest(get("random"), 0.5))
    assert str(caught.value) == f"{source.path}: tensor 'a.weight' holds int64, not weights; is this a mask?"
    eighth = {"a.weight": torch.ones(7, 6).to(torch.float8_e4m3fn)}
    source = open_checkpoint(folder(tmp_path / "net", state("random") | eighth))
    with pytest.raises(
        CheckpointError, match=r"tensor 'a.weight' has dtype F8_E4M3, which cannot be read; convert it to fl"
    ):
        streamed(source, PruneRequest(get("random"), 0.5))


def test_a_checkpoint_that_changes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few_drafts(monkeypatch, 0)  # else it would not be read again
    path = folder(tmp_path / "net", state("random"))
    source = open_checkpoint(path)
    chosen = streamed(source, PruneRequest(get("magnitude"), 0.3))
    folder(path, {name: tensor * 2 for name, tensor in state("random").items()})
    with pytest.raises(CheckpointError) as caught:
        write_chosen(tmp_path / "m", chosen, [], packed=False, force=False)
    line = f"{source.path}: changed while it was being read; wait until it is written, and prune it again"
    assert str(caught.value) == line
    folder(path, state("random"))
    shard = path / "model-8.safetensors"
    os.truncate(shard, shard.stat().st_size - 600)
    for run in (
        lambda: write_chosen(tmp_path / "m", chosen, [], packed=False, force=False),
        lambda: streamed(source, PruneRequest(get("random"), 0.3)),
    ):
        with pytest.raises(CheckpointError, match=r"model-8.safetensors: changed while it was being read; wait until"):
            run()
    shard.unlink()
    with pytest.raises(CheckpointError, match=r"model-8.safetensors: cannot be read: No such file or directory$"):
        write_chosen(tmp_path / "m", chosen, [], packed=False, force=False)
    assert [file.name for file in tmp_path.iterdir()] == ["net"]


def test_a_thread_left_behind_reads_what_it_was_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault ends the pass while other threads read: their descriptors must stay theirs, and are closed after."""
    (tmp_path / "a").write_bytes(b"abcdef")
    begun, ended, closed = threading.Event(), threading.Event(), []
    preadv, close = os.preadv, os.close

    def slow(*arguments: Any) -> int:
        begun.set()
        assert ended.wait(30)
        return preadv(*arguments)

    monkeypatch.setattr(os, "preadv", slow)
    monkeypatch.setattr(os, "close", lambda descriptor: (closed.append(descriptor), close(descriptor)))
    with ThreadPoolExecutor(1) as pool:
        with OpenFiles() as files:
            left = pool.submit(files.read, tmp_path / "a", 2, 3)
            assert begun.wait(30)
        assert not closed
        ended.set()
        assert left.result().tobytes() == b"cde"
    del left
    assert len(closed) == 1


# The command


@pytest.mark.parametrize(
    "words",
    [
        ("--method", "magnitude", "--density", "0.001"),
        ("--method", "random", "--density", "0.2", "--packed", "--format", "csv"),
        ("--method", "erk", "--pattern", "2:4", "--format", "json"),
        ("--method", "magnitude", "--density", "0.2", "--scope", "layer", "--shuffle", "--invert"),
        ("--method", "magnitude", "--density", "0.05", "--ties", "random"),
    ],
)
def test_the_command_says_and_writes_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pai, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "net", {name: tensor.to(BRAIN) for name, tensor in state("random").items()})
    command = ("prune", "net", *words, "-o", "mask.safetensors", "--force")
    done, files = [], []
    for large in (choosing.LARGE, 1):
        monkeypatch.setattr(choosing, "LARGE", large)
        done.append(pai(*command))
        files.append(Path("mask.safetensors").read_bytes())
    assert done[0].status == 0, done[0].err
    assert done[0] == done[1]
    assert files[0] == files[1]
    if "0.001" in words:
        assert "pai: layer collapse: " in done[1].err.replace("warning: ", "")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--reinit", "-w", "w.safetensors"), "--reinit writes the weights too"),
        (("--pattern", "2:4", "--ties", "random"), "--ties random settles what --pattern ties"),
    ],
)
def test_what_is_loaded_whole_all_the_same_is_said(
    here: Path, monkeypatch: pytest.MonkeyPatch, pai, words: tuple[str, ...], why: str
) -> None:
    told = f"pai: small.safetensors: all 734 weights are loaded, not piece by piece: {why}"
    command = ("prune", "small.safetensors", "--method", "magnitude", *words, "-o", "m.safetensors", "--force")
    assert told not in pai(*command).said
    monkeypatch.setattr(choosing, "LARGE", 1)
    done = pai(*command)
    assert (done.status, done.said.count(told)) == (0, 1)


def test_collapse_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pai) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(choosing, "LARGE", 1)
    folder(tmp_path / "net", state("random"))
    done = pai("prune", "net", "--method", "magnitude", "--density", "0.001", "--no-collapse", "-o", "m.safetensors")
    assert done.status == 1
    assert done.said[-1].startswith("pai: error: --no-collapse: ")
    assert not Path("m.safetensors").exists()


def test_a_network_that_could_be_run_is_told_not_to_be(here: Path, monkeypatch: pytest.MonkeyPatch, pai) -> None:
    monkeypatch.setattr(choosing, "LARGE", 1)
    done = pai("prune", "small.safetensors", "--method", "random", "--density", "0.5", "-o", "m.safetensors")
    assert done.status == 0
    assert done.said[1:] == [
        "pai: pruned piece by piece: whether a path of kept weights leads from input to output is not looked for",
        "pai: wrote m.safetensors: 348 of 696 weights kept, density 0.5",
    ]


def test_when_a_run_goes_piece_by_piece(tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_checkpoint(small)
    assert not choosing.in_pieces(source, get("magnitude"), None)
    monkeypatch.setattr(choosing, "LARGE", sum(int(np.prod(shape)) for shape in source.shapes.values()))
    assert choosing.in_pieces(source, get("magnitude"), None)
    assert choosing.in_pieces(source, get("magnitude"), "lenet-300-100")
    for method in ("synflow", "snip", "phew"):
        assert not choosing.in_pieces(source, get(method), None)
    for model in ("nets.py:make", "hf"):
        assert not choosing.in_pieces(source, get("magnitude"), model)
    torch.save({name: torch.zeros(shape) for name, shape in source.shapes.items()}, tmp_path / "c.pt")
    assert not choosing.in_pieces(open_checkpoint(tmp_path / "c.pt"), get("magnitude"), None)
    monkeypatch.setattr(choosing, "LARGE", choosing.LARGE + 1)
    assert not choosing.in_pieces(source, get("magnitude"), None)


def test_reinit_needs_the_values(here: Path, monkeypatch: pytest.MonkeyPatch, pai) -> None:
    monkeypatch.setattr(choosing, "LARGE", 1)
    words = ("prune", "small.safetensors", "--method", "random", "--density", "0.5", "--reinit", "-w", "w.safetensors")
    assert pai(*words).status == 0
    assert set(open_checkpoint(here / "w.safetensors").shapes) == set(
        open_checkpoint(here / "small.safetensors").shapes
    )


# Processes


def sparse_checkpoint(path: Path, side: int, layers: int) -> Path:
    """A folder of bfloat16 zeros that take no space on the disk."""
    path.mkdir()
    (path / "config.json").write_text('{"model_type": "llama"}')
    size = 2 * side * side
    header = {
        f"model.layers.{i}.mlp.up_proj.weight": {
            "dtype": "BF16", "shape": [side, side], "data_offsets": [i * size, (i + 1) * size]
        }
        for i in range(layers)
    }  # fmt: skip
    text = json.dumps(header).encode()
    with (path / "model.safetensors").open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(8 + len(text) + layers * size)
    return path


LAYERS, SIDE = 8, 2048
LARGE = LAYERS * SIDE**2  # less than what is large outside of tests, and yet much in memory
START = f"""
import sys
from pai_cli.__main__ import main
from pai_cli.pruning.streaming import choosing
choosing.LARGE = {LARGE}
sys.exit(main())
"""


STARTED_BY_LITTLE = """
import os, sys
_, status, usage = os.wait4(os.spawnv(os.P_NOWAIT, sys.argv[1], sys.argv[1:]), 0)
print(usage.ru_maxrss, flush=True)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def arguments(path: Path, *words: str) -> list[str]:
    return ["prune", str(path), "--packed", "-o", str(path / "mask.safetensors"), *words]


def test_a_large_checkpoint_needs_little_memory(tmp_path: Path) -> None:
    """All scores are equal: the first 0.3 are kept, and no more memory is taken than promised."""
    path = sparse_checkpoint(tmp_path / "net", SIDE, LAYERS)
    words = [sys.executable, "-W", "error", "-c", START, *arguments(path, "--method", "magnitude", "--density", "0.3")]
    # Linux counts in a child's ru_maxrss what the process that started it had: so one that has little starts it.
    between = [sys.executable, "-S", "-c", STARTED_BY_LITTLE, *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(between, env=environment, capture_output=True, text=True, check=True)
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(done.stdout.splitlines()[-1]) * unit < 2 * 2 * SIDE**2 + 500 * 2**20
    mask = MaskFile(path / "mask.safetensors")
    kept = [int(mask.array(name).sum()) for name in mask.names]
    assert kept == [SIDE**2] * 2 + [round(0.3 * LARGE) - 2 * SIDE**2] + [0] * 5


def open_files(process: int) -> Iterator[Path]:
    """What a process has open; a file without a name is called by a number in its folder."""
    for one in Path(f"/proc/{process}/fd").iterdir():
        with suppress(OSError):
            yield one.readlink()


@pytest.mark.parametrize("how", STOPPED)
def test_an_interruption_leaves_nothing(tmp_path: Path, how: signal.Signals) -> None:
    path = sparse_checkpoint(tmp_path / "net", SIDE, 2 * LAYERS)
    (tmp_path / "start.py").write_text(START)
    before = {file.name for file in path.iterdir()}
    with begin(arguments(path, "--method", "random", "--pattern", "2:4"), module="start", cwd=tmp_path) as process:
        wait_until(lambda: any(str(one).startswith(f"{path}/#") for one in open_files(process.pid)))
        process.signal(how)
        status, out, err = process.finish()
    assert (status, out, err.splitlines()[-1]) == (STOPPED[how][0], "", STOPPED[how][1])
    assert {file.name for file in path.iterdir()} == before
