"""Densities by block: OWL and AlphaPruning against the whole network and SciPy, in float64; and with any method."""

from __future__ import annotations

import json
from typing import Any

import languages
import numpy as np
import pytest
import scipy.linalg
import torch
from test_language import TEXT, folder, in_blocks, inputs_by_hooks, sequences

import pai_cli as pai
from pai_cli.errors import DensityError, LayerSelectionError, MethodOptionError, ModelFactoryError, ScoreError
from pai_cli.pruning.block_densities import hill

pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")


def shared_out(kind: str, method: str, allocation: str, density: float = 0.4, **more: Any) -> pai.Mask:
    return pai.prune(folder(kind), method, density=density, allocation=allocation, **more)


def blocks_of(mask: pai.Mask) -> tuple[list[list[str]], list[float]]:
    """The layers of each block, and the density that the mask tells of it."""
    told = json.loads(mask.metadata["densities"])
    names = in_blocks(mask)
    for block in names:
        assert len({told[name] for name in block}) == 1
    return names, [told[block[0]] for block in names]


@pytest.mark.parametrize("kind", languages.KINDS)
def test_owl_by_the_whole_network(kind: str) -> None:
    mask = shared_out(kind, "wanda", "owl", **TEXT)
    blocks, densities = blocks_of(mask)
    net = languages.load(folder(kind))
    inputs = inputs_by_hooks(net, [name for block in blocks for name in block], sequences(kind))
    shares = []
    for block in blocks:
        scores = [
            (net.get_parameter(name).T if kind == "gpt2" else net.get_parameter(name)).detach().abs().numpy()
            * np.linalg.norm(inputs[name].numpy(), axis=0)
            for name in block
        ]
        flat = np.concatenate([one.reshape(-1) for one in scores])
        shares.append(np.mean(flat > 5 * flat.mean()))
    low, high = min(shares), max(shares)
    assert low < high
    spread = np.array([(share - low) / (high - low) * 0.16 for share in shares])
    assert np.allclose(densities, spread - spread.mean() + 0.4, rtol=0, atol=1e-12)
    assert np.mean(densities) == pytest.approx(0.4, abs=1e-12)
    assert max(densities) - min(densities) == pytest.approx(0.16, abs=1e-12)
    assert mask.metadata["allocation"] == "owl"
    for block, density in zip(blocks, densities, strict=True):
        for name in block:
            side = mask[name].shape[0 if kind == "gpt2" else 1]
            assert mask[name].mean() == int(density * side + 0.5) / side


def by_hill(matrix: np.ndarray) -> float:
    values = np.sort(scipy.linalg.svdvals(matrix) ** 2)
    count = len(values) // 2
    return 1 + count / sum(np.log(values[-i] / values[-count - 1]) for i in range(1, count + 1))


@pytest.mark.parametrize("kind", languages.KINDS)
def test_alphapruning_by_singular_values(kind: str) -> None:
    mask = shared_out(kind, "magnitude", "alphapruning")
    blocks, densities = blocks_of(mask)
    net = languages.load(folder(kind))
    alphas = [np.mean([by_hill(net.get_parameter(name).detach().numpy()) for name in block]) for block in blocks]
    sizes = np.array([sum(mask[name].size for name in block) for block in blocks])
    wanted = np.array([0.7 + 0.6 * (alpha - min(alphas)) / (max(alphas) - min(alphas)) for alpha in alphas])
    wanted *= 0.6 * sizes.sum() / (wanted * sizes).sum()
    assert np.allclose(densities, 1 - wanted, rtol=0, atol=1e-9)
    assert np.average(densities, weights=sizes) == pytest.approx(0.4, abs=1e-12)
    assert not any(name.startswith("lm_head") for name in mask)
    assert (
        "the head"
        in json.loads(mask.metadata["left_whole"])["transformer.wte.weight" if kind == "gpt2" else "lm_head.weight"]
    )
    for block, density in zip(blocks, densities, strict=True):
        for name in block:
            assert mask[name].sum() == int(density * mask[name].size + 0.5)


@pytest.mark.parametrize("method", ["magnitude", "wanda"])
def test_the_head_has_the_density_of_the_network(method: str) -> None:
    mask = shared_out("llama", method, "alphapruning", head=True, **(TEXT if method == "wanda" else {}))
    assert json.loads(mask.metadata["densities"])["lm_head.weight"] == 0.4
    assert mask["lm_head.weight"].mean() == pytest.approx(0.4, abs=0.02)
    assert set(json.loads(mask.metadata["left_whole"])) == {"model.embed_tokens.weight"}


def test_hill_of_a_known_spectrum() -> None:
    values = torch.tensor([1.0, 2, 4, 8, 16], dtype=torch.float64)  # k = 2: ln 16/4 + ln 8/4 = 3 ln 2
    assert hill(torch.diag(values.sqrt())) == pytest.approx(1 + 2 / (3 * np.log(2)), rel=1e-12)
    wide = torch.randn(7, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert hill(wide) == pytest.approx(hill(wide.T), rel=1e-12)
    assert hill(wide) == pytest.approx(hill(5 * wide), rel=1e-12)
    assert hill(wide) == pytest.approx(by_hill(wide.numpy()), rel=1e-9)
    for wrong, line in ((torch.eye(4), "its spectrum is flat"), (torch.ones(4, 4), "half of its spectrum is 0")):
        with pytest.raises(ScoreError, match=f"^a: {line}.*leave allocation= out$"):
            hill(wrong, "a")


@pytest.mark.parametrize("method", ["random", "sparsegpt", "wanda"])
def test_any_method_takes_them(method: str) -> None:
    more = TEXT if method != "random" else {"model": "hf"}
    mask = shared_out("llama", method, "alphapruning", **more)
    wanted = blocks_of(shared_out("llama", "magnitude", "alphapruning"))
    assert blocks_of(mask)[1] == wanted[1]
    assert mask.density == pytest.approx(0.4, abs=0.02)


def test_the_seed_draws_the_text_that_outliers_are_counted_on(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="pai"):
        mask = shared_out("llama", "magnitude", "owl", seed=3, **TEXT)
    assert not any("every seed gives this mask" in record.getMessage() for record in caplog.records)
    assert (mask.metadata["text"], mask.metadata["sequences"]) == ("the text", "6")


def test_blocks_that_are_alike_share_alike(tmp_path: Any) -> None:
    made = languages.network("llama")
    with torch.no_grad():
        for name, parameter in made.model.layers[0].named_parameters():
            made.model.layers[1].get_parameter(name).copy_(parameter)
    mask = pai.prune(languages.save(made, tmp_path / "net"), "magnitude", density=0.4, allocation="alphapruning")
    assert blocks_of(mask)[1] == pytest.approx([0.4, 0.4], abs=1e-12)


def test_what_cannot_be() -> None:
    with pytest.raises(
        DensityError, match=r"^allocation=owl: densities would go from -0\.03 to 0\.13 at density=0\.05; each must"
    ):
        shared_out("llama", "wanda", "owl", 0.05, **TEXT)
    with pytest.raises(MethodOptionError, match=r"^seed=-1: must be 0 to"):
        shared_out("llama", "magnitude", "owl", seed=-1, **TEXT)
    with pytest.raises(LayerSelectionError, match=r"^ignore=zzz: matches none of"):
        shared_out("llama", "magnitude", "owl", ignore="zzz", **TEXT)
    with pytest.raises(MethodOptionError, match=r"^allocation=owl: reads a text; give text=$"):
        shared_out("llama", "magnitude", "owl")
    with pytest.raises(ModelFactoryError, match="a text is read by a Hugging Face model; give its folder"):
        pai.prune(torch.nn.Sequential(torch.nn.Linear(6, 5)), "magnitude", density=0.5, allocation="alphapruning")
    with pytest.raises(pai.Error, match=r"^allocation='olw': give one of owl, alphapruning$"):
        shared_out("llama", "magnitude", "olw")
