"""MobileNetV2, DenseNet, WideResNet and ViT: published sizes, names of torchvision and timm, methods that run on them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

import pytest
import torch
from networks import slim, slim_network
from safetensors.torch import save_file

from pai_cli.errors import ScoreError, TraceError, UnknownModelError
from pai_cli.files.checkpoints import open_checkpoint
from pai_cli.methods.registry import get
from pai_cli.models.base import shapes_of
from pai_cli.models.network import Network, init_network, load_network
from pai_cli.models.recognise import recognise
from pai_cli.models.registry import architecture
from pai_cli.models.trace import trace
from pai_cli.pruning.run import PruneRequest, prune


@pytest.fixture
def few_channels() -> Iterator[None]:
    """Networks of all layers, a quarter of the channels."""
    with slim(4):
        yield


def on_meta(name: str, classes: int) -> torch.nn.Module:
    with torch.device("meta"):
        return architecture(name, classes).build()


@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [
        ("mobilenetv2", 1000, 3_504_872),
        ("densenet121", 1000, 7_978_856),
        ("densenet169", 1000, 14_149_480),
        ("densenet201", 1000, 20_013_928),
        ("wrn-28-10", 10, 36_479_194),
        ("wrn-28-10", 100, 36_536_884),
        ("wrn-40-2", 10, 2_243_546),
        ("vit-tiny-patch16-224", 1000, 5_717_416),
        ("vit-small-patch16-224", 1000, 22_050_664),
        ("vit-base-patch16-224", 1000, 86_567_656),
        ("resnet50", 1000, 25_557_032),
        ("vgg16-imagenet", 1000, 138_357_544),
    ],
)
def test_published_numbers_of_parameters(name: str, classes: int, parameters: int) -> None:
    assert sum(parameter.numel() for parameter in on_meta(name, classes).parameters()) == parameters


@pytest.mark.parametrize(
    ("spelled", "name", "shape"),
    [
        ("mobilenet_v2", "mobilenetv2", (3, 224, 224)),
        ("mobilenetv2_100", "mobilenetv2", (3, 224, 224)),
        ("DenseNet-121", "densenet121", (3, 224, 224)),
        ("WideResNet-28-10", "wrn-28-10", (3, 32, 32)),
        ("WRN-22-3", "wrn-22-3", (3, 32, 32)),
        ("vit_base_patch16_224", "vit-base-patch16-224", (3, 224, 224)),
        ("vit_tiny_patch16", "vit-tiny-patch16-224", (3, 224, 224)),
        ("vit_small_patch32_384", "vit-small-patch32-384", (3, 384, 384)),
    ],
)
def test_spellings_and_input_shapes(spelled: str, name: str, shape: tuple[int, ...]) -> None:
    found = architecture(spelled)
    assert (found.name, found.input_shape) == (name, shape)


@pytest.mark.parametrize("name", ["wrn-27-10", "wrn-4-1", "densenet122", "vit-huge-patch16-224", "mobilenetv3"])
def test_near_misses(name: str) -> None:
    with pytest.raises(UnknownModelError):
        architecture(name)


NAMES_THERE = {
    "mobilenetv2": [
        ("features.0.0.weight", (32, 3, 3, 3)),
        ("features.1.conv.0.0.weight", (32, 1, 3, 3)),
        ("features.1.conv.1.weight", (16, 32, 1, 1)),
        ("features.1.conv.2.running_var", (16,)),
        ("features.2.conv.1.0.weight", (96, 1, 3, 3)),
        ("features.17.conv.2.weight", (320, 960, 1, 1)),
        ("features.18.0.weight", (1280, 320, 1, 1)),
        ("classifier.1.weight", (1000, 1280)),
    ],
    "densenet121": [
        ("features.conv0.weight", (64, 3, 7, 7)),
        ("features.denseblock1.denselayer6.norm1.weight", (224,)),
        ("features.denseblock4.denselayer16.conv2.weight", (32, 128, 3, 3)),
        ("features.transition3.conv.weight", (512, 1024, 1, 1)),
        ("features.norm5.running_mean", (1024,)),
        ("classifier.weight", (1000, 1024)),
    ],
    "wrn-28-10": [
        ("conv1.weight", (16, 3, 3, 3)),
        ("block1.layer.0.convShortcut.weight", (160, 16, 1, 1)),
        ("block3.layer.3.conv2.weight", (640, 640, 3, 3)),
        ("bn1.weight", (640,)),
        ("fc.weight", (1000, 640)),
    ],
    "vit-base-patch16-224": [
        ("cls_token", (1, 1, 768)),
        ("pos_embed", (1, 197, 768)),
        ("patch_embed.proj.weight", (768, 3, 16, 16)),
        ("blocks.11.attn.qkv.bias", (2304,)),
        ("blocks.0.mlp.fc1.weight", (3072, 768)),
        ("blocks.0.norm2.weight", (768,)),
        ("norm.weight", (768,)),
        ("head.weight", (1000, 768)),
    ],
}
COUNTS = {"mobilenetv2": 314, "densenet121": 727, "vit-base-patch16-224": 152}


@pytest.mark.parametrize("name", NAMES_THERE)
def test_names_are_those_of_torchvision_and_timm(name: str) -> None:
    shapes = shapes_of(architecture(name, 1000).build)
    assert {key: shapes[key] for key, _ in NAMES_THERE[name]} == dict(NAMES_THERE[name])
    assert len(shapes) == COUNTS.get(name, len(shapes))


def timm_mobilenet(classes: int) -> dict[str, tuple[int, ...]]:
    """Torchvision's names made timm's, block by block."""
    stages = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 3), (5, 3), (6, 1)]
    places = [(stage, block) for stage, blocks in stages for block in range(blocks)]
    changed = {}
    for name, shape in shapes_of(architecture("mobilenetv2", classes).build).items():
        match = re.fullmatch(r"features\.(\d+)\.conv\.([\d.]+)\.(\w+)", name)
        if match is None:
            for old, new in (("features.0.0.", "conv_stem."), ("features.0.1.", "bn1."), ("features.18.0.", "conv_head."),
                             ("features.18.1.", "bn2."), ("classifier.1.", "classifier.")):  # fmt: skip
                if name.startswith(old):
                    changed[name.replace(old, new)] = shape
            continue
        stage, block = places[int(match[1]) - 1]
        kinds = {"0.0": "conv_pw", "0.1": "bn1", "1.0": "conv_dw", "1.1": "bn2", "2": "conv_pwl", "3": "bn3"}
        if match[1] == "1":
            kinds = {"0.0": "conv_dw", "0.1": "bn1", "1": "conv_pw", "2": "bn2"}
        changed[f"blocks.{stage}.{block}.{kinds[match[2]]}.{match[3]}"] = shape
    return changed


def test_timm_s_names_of_mobilenetv2_are_recognised() -> None:
    shapes = timm_mobilenet(77)
    assert len(shapes) == 314
    found = recognise(shapes)
    assert found is not None
    assert found.description == "MobileNetV2 (timm layout, 224x224 inputs, 77 classes)"
    assert list(shapes_of(found.build)) == list(shapes)
    assert recognise(dict(sorted(shapes.items()))) is not None


@pytest.mark.usefixtures("few_channels")
def test_both_layouts_compute_the_same() -> None:
    ours = init_network("mobilenetv2", 5, 0).model
    found = recognise(timm_mobilenet(5))
    assert found is not None
    theirs = found.build().eval()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(ours(x), theirs(x))


def test_what_is_not_recognised_says_how_to_go_on(tmp_path) -> None:
    save_file({"conv_stem.weight": torch.zeros(4, 3, 3, 3), "head.bias": torch.zeros(3)}, tmp_path / "net.safetensors")
    with pytest.raises(UnknownModelError) as caught:
        load_network(open_checkpoint(tmp_path / "net.safetensors"))
    assert str(caught.value) == (
        f"{tmp_path / 'net.safetensors'}: names and shapes of its 2 tensors match no known architecture (names as timm has "
        "them: where timm is installed, model=timm.models:NAME makes a network of it); give model=NAME, or "
        "module:factory or file.py:factory and, where no data tell it, input_shape="
    )


SMALL = {"mobilenetv2": 53, "densenet121": 121, "wrn-16-1": 12 + 2 + 2}  # of width 1 the first shortcut is an identity


@cache
def network_of(name: str) -> Network:
    """Made once: nothing that is asked of a network changes it."""
    with slim(4):
        return init_network(name, 10, 0)


@pytest.mark.parametrize("method", ["synflow", "phew", "erk"])
@pytest.mark.parametrize("name", SMALL)
def test_methods_run_on_the_convolutional_ones(name: str, method: str) -> None:
    network = network_of(name)
    assert len(network.layers) == SMALL[name]
    rounds, density = (2 if method == "synflow" else None), (0.05 if method == "phew" else 0.3)
    result = prune(network, PruneRequest(get(method), density, rounds=rounds, input_shape=(3, 32, 32)))
    assert result.kept == round(density * network.total)
    assert result.connected is True


@pytest.mark.parametrize("classes", [3])
def test_vit_takes_the_methods_that_need_no_flow(classes: int) -> None:
    network = slim_network("vit-tiny-patch16-224", classes)
    assert len(network.layers) == 50
    assert network.model(torch.zeros(1, 3, 224, 224)).shape == (1, classes)
    for method in ("random", "magnitude", "erk", "uniform"):
        assert prune(network, PruneRequest(get(method), 0.25)).connected is None
    with pytest.raises(ScoreError) as caught:
        prune(network, PruneRequest(get("synflow"), 0.25))
    assert str(caught.value) == (
        "synflow: blocks.0.norm1 (LayerNorm) divides by the size of its own input, so no flow passes it unchanged; "
        "give another method="
    )
    with pytest.raises(TraceError) as caught_trace:
        prune(network, PruneRequest(get("phew"), 0.25))
    assert re.fullmatch(
        r"the wiring of the network cannot be followed: 'blocks\.0\.attn' calls \w+, which mixes its inputs so that units "
        r"cannot be told apart; take a method= that needs no wiring, such as erk",
        str(caught_trace.value),
    )


def test_a_dense_block_s_concatenations_are_followed() -> None:
    graph = trace(network_of("densenet121").model, (3, 32, 32))
    third = next(call for call in graph.calls if call.layer.name == "features.denseblock1.denselayer3.conv1.weight")
    names = [graph.calls[wire.source].layer.name for wire in third.wires]
    assert [(name, int(wire.units[0]), int(wire.places[0]), len(wire.units))
            for name, wire in zip(names, third.wires, strict=True)] == [
        ("features.conv0.weight", 0, 0, 16),
        ("features.denseblock1.denselayer1.conv2.weight", 0, 16, 8),
        ("features.denseblock1.denselayer2.conv2.weight", 0, 24, 8),
    ]  # fmt: skip


def test_an_inverted_residual_is_followed() -> None:
    graph = trace(network_of("mobilenetv2").model, (3, 32, 32))
    call = next(call for call in graph.calls if call.layer.name == "features.4.conv.0.0.weight")
    names = {graph.calls[wire.source].layer.name for wire in call.wires}
    assert names == {"features.3.conv.2.weight", "features.2.conv.2.weight"}


@pytest.mark.usefixtures("few_channels")
@pytest.mark.parametrize("name", ["mobilenetv2", "densenet121", "wrn-16-1", "vit-tiny-patch16-224"])
def test_init_makes_a_checkpoint_that_is_recognised(pai, tmp_path, monkeypatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert pai("init", name, "--classes", 7).status == 0
    assert (
        load_network(open_checkpoint(tmp_path / f"{name}.safetensors")).description == architecture(name, 7).description
    )
    if name != "densenet121":  # which is pruned above, and would take longest
        done = pai("prune", f"{name}.safetensors", "--method", "magnitude", "--density", 0.1, "--format", "json")
        assert done.status == 0


def test_relu6_is_no_ceiling_for_the_flow() -> None:
    network = slim_network("mobilenetv2")
    with torch.no_grad():
        for parameter in network.model.parameters():
            parameter.mul_(100)
    before = [type(module) for module in network.model.modules()]
    assert prune(network, PruneRequest(get("synflow"), 0.5, rounds=1, input_shape=(3, 32, 32))).connected is True
    assert [type(module) for module in network.model.modules()] == before
