"""Architectures, their recognition by names and shapes, factories, and networks with their prunable weights."""

import hashlib
import itertools
import os
import re
import sys
import textwrap
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from networks import slim, slim_network
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import pai_cli as pai
from pai_cli.errors import (
    CheckpointError,
    LayerSelectionError,
    MethodOptionError,
    ModelFactoryError,
    NotFiniteError,
    OutputError,
    StateDictMismatchError,
    UnknownModelError,
)
from pai_cli.files.checkpoints import open_checkpoint
from pai_cli.models.base import Architecture, shapes_of, unmade, with_memory
from pai_cli.models.factory import load_factory
from pai_cli.models.network import init_network, load_network, prunable_layers, save_checkpoint
from pai_cli.models.recognise import recognise
from pai_cli.models.registry import FAMILIES, architecture, known_names
from pai_cli.models.weightless import network_called
from pai_cli.spectral.layout import Layout

NAMES = [name for name in known_names() if name != "mlp-A-B-...-Z"] + ["mlp-20-15-5"]
ONE_OF_EACH = (
    *("resnet18", "resnet18-3x3", "resnet50", "resnet50-3x3", "resnet8", "resnet8-1x1", "wrn-16-8"),
    *("vgg11", "vgg11-imagenet", "vgg11-bn", "vgg11-bn-imagenet"),
    *("mobilenetv2", "densenet121", "vit-tiny-patch16-224", "lenet-5", "lenet-300-100", "mlp-20-15-5"),
)
"""The shallowest of each family and of each of its variants: deeper ones have the same blocks, only more of them."""

OF_EVERY_DEPTH = [name for name in NAMES if not re.search("mlp|-3x3|-1x1|-bn|-imagenet", name) or name in ONE_OF_EACH]
"""The variants of a family have their numbers of blocks in common."""


def on_meta(name, classes=10):
    with torch.device("meta"):
        return architecture(name, classes).build()


def one_line(caught, folder=None):
    text = str(caught.value)
    assert "\n" not in text
    return text.replace(str(folder) + os.sep, "") if folder else text


def saved(folder, tensors, name="net.safetensors"):
    """A checkpoint of these tensors, or of this module's."""
    path = folder / name
    state = tensors.state_dict() if isinstance(tensors, nn.Module) else tensors
    (save_file if path.suffix == ".safetensors" else torch.save)(dict(state), path)
    return open_checkpoint(path)


# Registry


@pytest.mark.parametrize(
    ("name", "weights", "tensors"),
    [
        ("resnet20", 268_336, 20),
        ("resnet20-1x1", 270_896, 22),
        ("resnet56", 848_944, 56),
        ("vgg16-bn", 14_715_584, 14),
        ("vgg11-bn", 9_222_848, 9),
        ("vgg19-bn", 20_024_000, 17),
        ("resnet34", 21_272_768, 37),
        ("resnet18", 11_172_032, 21),
        ("resnet18-3x3", 11_164_352, 21),
        ("resnet50", 23_475_392, 54),
        ("lenet-300-100", 266_200, 3),
        ("lenet-5", 61_470, 5),
        ("vgg16-imagenet", 134_289_088, 16),
    ],
)
def test_prunable_weights(name, weights, tensors):
    layers = prunable_layers(on_meta(name))
    assert sum(int(np.prod(layer.shape)) for layer in layers) == weights
    assert len(layers) == tensors
    assert {layer.layout for layer in layers} == {Layout()}


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_forward_gives_one_logit_a_class(name):
    known = architecture(name, 5)
    with slim(), torch.no_grad():
        logits = with_memory(on_meta(name, 5)).eval()(torch.ones(2, *known.input_shape))
    assert logits.shape == (2, 5)
    assert known.classes == 5


def test_names_are_spelled_freely():
    assert architecture("ResNet18_3x3").name == "resnet18-3x3"
    assert architecture("VGG16_BN").name == "vgg16-bn"
    assert architecture("MLP_784_10").name == "mlp-784-10"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("vgg16bn", " (did you mean 'vgg16-bn'?)"),
        ("lenet5", " (did you mean 'lenet-5'?)"),
        ("transformer", ""),
        ("mlp", ""),
        ("mlp-5", None),
        ("mlp-0-5", None),
        ("resnet19", None),
        ("", ""),
    ],
)
def test_unknown_name(name, hint):
    with pytest.raises(UnknownModelError) as caught:
        architecture(name)
    text = one_line(caught)
    assert text.startswith(f"unknown model {name!r}{hint or ''}")
    assert text.endswith(f"; known are {', '.join(known_names())}")
    assert hint is None or ("did you mean" in text) is bool(hint)


def test_torchvision_names():
    names = list(on_meta("resnet18").state_dict())
    assert names[:6] == [
        "conv1.weight",
        "bn1.weight",
        "bn1.bias",
        "bn1.running_mean",
        "bn1.running_var",
        "bn1.num_batches_tracked",
    ]
    assert len(names) == 122
    for name in ("layer1.0.conv1.weight", "layer2.0.downsample.0.weight", "layer2.0.downsample.1.running_var"):
        assert name in names
    assert names[-2:] == ["fc.weight", "fc.bias"]
    assert "layer1.0.downsample.0.weight" in on_meta("resnet50").state_dict()


@pytest.mark.parametrize(
    ("name", "indices"),
    [
        ("vgg16", [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]),
        ("vgg16-bn", [0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40]),
        ("vgg11-bn", [0, 4, 8, 11, 15, 18, 22, 25]),
    ],
)
def test_vgg_indices(name, indices):
    layers = prunable_layers(on_meta(name))
    assert [layer.name for layer in layers] == [f"features.{i}.weight" for i in indices] + ["classifier.weight"]


def test_option_a_shortcut_pads_with_zeros():
    network = architecture("resnet20").build().eval()
    shortcut = network.get_submodule("layer2.0.shortcut")
    x = torch.randn(1, 16, 4, 4)
    out = shortcut(x)
    assert out.shape == (1, 32, 2, 2)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert not out[:, :8].any()
    assert not out[:, 24:].any()


@pytest.mark.parametrize("name", ["resnet20-1x1", "resnet50-3x3", "vgg11-bn", "lenet-5", "lenet-300-100"])
def test_every_parameter_is_used(name):
    network = slim_network(name).model.train()
    shape = architecture(name).input_shape
    network(torch.randn(2, *shape)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_initialisation():
    conv = architecture("vgg11-bn").build().features[8]
    fan_out = conv.out_channels * 9
    assert conv.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.02)
    assert not conv.bias.any()
    layer = architecture("resnet20").build().get_submodule("layer3.1.conv1")
    assert layer.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)


# Recognition


@cache
def shapes_in(name, classes):
    return shapes_of(architecture(name, classes).build)


def renamed(name, classes, *changes):
    shapes = dict(shapes_in(name, classes))
    for old, new in changes:
        shapes = {re.sub(old, new, key): shape for key, shape in shapes.items()}
    return shapes


VARIANTS = [
    ("resnet18", [(r"\.downsample\.", ".shortcut."), (r"^fc\.", "linear.")]),
    ("resnet18-3x3", [(r"\.downsample\.", ".shortcut."), (r"^fc\.", "linear.")]),
    ("resnet50-3x3", [(r"\.downsample\.", ".shortcut.")]),
    ("resnet20", [(r"^linear\.", "fc.")]),
    ("resnet20-1x1", [(r"\.shortcut\.", ".downsample."), (r"^linear\.", "fc.")]),
    ("resnet56-1x1", [(r"\.shortcut\.", ".downsample.")]),
    ("vgg16-bn", [(r"^classifier\.", "fc.")]),
    ("vgg16-bn-imagenet", [(r"^classifier\.0", "classifier.1"), (r"^classifier\.3", "classifier.4")]),
]


def assert_recognised(shapes, name, classes):
    found = recognise(shapes)
    assert found is not None
    assert (found.name, found.classes) == (name, classes)
    return found


@pytest.mark.parametrize(
    ("name", "classes"), [(name, (7, 1000)[at % 2]) for at, name in enumerate(OF_EVERY_DEPTH) if "mlp" not in name]
)
def test_recognised(name, classes):
    shapes = renamed(name, classes)
    found = assert_recognised(shapes, name, classes)
    assert found.input_shape == architecture(name).input_shape
    if name in ONE_OF_EACH:
        assert shapes_of(found.build) == shapes
        # in any order
        assert recognise(dict(sorted(shapes.items()))).description == architecture(name, classes).description


@pytest.mark.parametrize(("name", "changes"), VARIANTS)
def test_name_variants_are_recognised(name, changes):
    shapes = renamed(name, 7, *changes)
    assert shapes_of(assert_recognised(shapes, name, 7).build) == shapes


@pytest.mark.parametrize("name", ["resnet18", "resnet20", "vgg16-bn"])
def test_counters_may_be_missing(name):
    shapes = {key: shape for key, shape in renamed(name, 7).items() if not key.endswith("num_batches_tracked")}
    assert recognise(shapes).name == name


@pytest.mark.parametrize("name", ONE_OF_EACH)
@pytest.mark.parametrize("change", ["misshapen", "missing", "unexpected"])
def test_not_recognised(name, change):
    shapes = renamed(name, 10)
    weights = [key for key, shape in shapes.items() if len(shape) > 1]
    victim = weights[len(weights) // 2]
    if change == "misshapen":
        shapes[victim] = (shapes[victim][0] + 1, *shapes[victim][1:])
    elif change == "missing":
        del shapes[victim]
    else:
        shapes["extra.weight"] = (3, 3, 3)
    assert recognise(shapes) is None


def test_other_recognised_forms():
    narrow = {"features.0.weight": (64, 3, 3, 3)}
    assert recognise(narrow) is None
    assert recognise({}) is None
    vgg = renamed("vgg16-bn", 10, (r"^classifier\.", "classifier.6."))
    vgg |= {"classifier.1.weight": (512, 512), "classifier.4.weight": (512, 512)}
    vgg |= {"classifier.1.bias": (512,), "classifier.4.bias": (512,)}
    vgg["classifier.6.weight"] = (10, 512)
    assert recognise(vgg).description == "VGG-16 (batch norm, 32x32 inputs, three linear layers, 10 classes)"
    no_bias = {
        key: shape
        for key, shape in renamed("vgg16-bn", 10).items()
        if key == "classifier.bias" or not (key.endswith(".bias") and len(shapes_at(key)) == 4)
    }
    assert recognise(no_bias).name == "vgg16-bn"
    grey = renamed("resnet18-3x3", 10) | {"conv1.weight": (64, 1, 3, 3)}
    assert recognise(grey).input_shape == (1, 32, 32)
    colour = renamed("lenet-5", 10) | {"conv1.weight": (6, 3, 5, 5)}
    assert recognise(colour).input_shape == (3, 32, 32)
    assert recognise(colour | {"fc1.weight": (120, 256)}).input_shape == (3, 28, 28)


def shapes_at(bias):
    return shapes_in("vgg16-bn", 10)[bias.removesuffix("bias") + "weight"]


def test_descriptions():
    assert architecture("resnet34").description == "ResNet-34 (torchvision layout, 7x7 stem, 10 classes)"
    assert architecture("resnet20-1x1", 7).description == "ResNet-20 (CIFAR layout, 1x1 shortcuts, 7 classes)"
    wide = recognise({key: doubled(key, shape) for key, shape in renamed("resnet32", 100).items()})
    assert wide.description == "ResNet-32 (CIFAR layout, option A shortcuts, width 32, 100 classes)"


def doubled(key, shape):
    """The shape in a network of twice the width, its input channels and classes as they are."""
    if key.startswith("linear."):
        return (shape[0], *[2 * size for size in shape[1:]])
    return tuple(2 * size if i == 0 or (i == 1 and key != "conv1.weight") else size for i, size in enumerate(shape))


# Names and shapes of every family, to be put together at random.
VOCABULARY = sorted(
    {"conv1.weight", "layer1.0.conv1.weight", "features.0.weight", "classifier.weight", "fc.weight", "x", "", "a.b.c.d"}
    | {
        name
        for known in ("resnet18", "resnet20-1x1", "resnet50", "vgg11-bn", "vgg16-imagenet", "lenet-5", "lenet-300-100")
        for name in shapes_of(architecture(known).build)
    }
)
SIZES = st.one_of(st.integers(0, 9), st.sampled_from([16, 64, 300, 512, 784, 4096, 25088, 10**9, 2**62, 2**63 - 1]))


@given(st.dictionaries(st.sampled_from(VOCABULARY), st.lists(SIZES, max_size=5).map(tuple), max_size=30))
def test_no_names_and_shapes_are_too_odd_to_be_told_from_a_network(shapes):
    for found in (*(family.guess(shapes) for family in FAMILIES), recognise(shapes)):
        assert found is None or isinstance(found, Architecture)


@given(
    st.sampled_from(["resnet18", "resnet20", "resnet20-1x1", "vgg11-bn", "vgg13-imagenet", "lenet-5", "lenet-300-100"]),
    st.data(),
)
def test_no_changed_shape_raises(name, data):
    shapes = renamed(name, 10)
    for victim in data.draw(st.lists(st.sampled_from(sorted(shapes)), min_size=1, max_size=3)):
        shapes[victim] = data.draw(st.lists(SIZES, max_size=5).map(tuple))
    for found in (*(family.guess(shapes) for family in FAMILIES), recognise(shapes)):
        assert found is None or isinstance(found, Architecture)


@pytest.mark.parametrize(
    ("name", "victim", "shape"),
    [
        ("vgg11", "features.0.weight", (64,)),
        ("vgg11", "features.0.weight", ()),
        ("resnet20", "layer1.0.conv1.weight", ()),
        ("resnet18", "layer1.0.conv1.weight", ()),
        ("resnet18", "layer1.0.conv1.weight", (2**62, 1, 1, 1)),
        ("lenet-5", "fc3.weight", (0, 84)),
    ],
)
def test_odd_shapes_are_not_recognised(name, victim, shape):
    changed = renamed(name, 10) | {victim: shape}
    if name == "vgg11":
        changed["features.99.weight"] = (64, 3, 3, 3)  # as many convolutions as before
    assert recognise(changed) is None


# MLPs


def chain(sizes, names, biases=True):
    shapes = {}
    for i, name in enumerate(names):
        shapes[f"{name}.weight"] = (sizes[i + 1], sizes[i])
        if biases:
            shapes[f"{name}.bias"] = (sizes[i + 1],)
    return shapes


@given(
    st.lists(st.integers(1, 60), min_size=2, max_size=14),
    st.sampled_from(["fc{}", "net.{}", "layers.{}.linear", "block{}.0"]),
    st.booleans(),
)
def test_mlp_of_any_sizes_is_recognised(sizes, pattern, biases):
    names = [pattern.format(2 * i) for i in range(len(sizes) - 1)]
    shapes = chain(sizes, names, biases)
    for order in (shapes, dict(sorted(shapes.items()))):
        found = recognise(order)
        assert found.name == "mlp-" + "-".join(map(str, sizes))
        assert shapes_of(found.build) == order
        assert found.input_shape == (sizes[0],)


@given(st.lists(st.integers(1, 500), min_size=2, max_size=8, unique=True), st.data())
def test_mlp_in_any_order_is_found_by_its_chain(sizes, data):
    shapes = chain(sizes, [f"fc{'7654321'[i]}" for i in range(len(sizes) - 1)])
    assume(tuple(sizes[:3]) != (784, 300, 100))
    shuffled = dict(data.draw(st.permutations(list(shapes.items()))))
    assert recognise(shuffled).name == "mlp-" + "-".join(map(str, sizes))


@pytest.mark.parametrize(
    ("shapes", "name"),
    [
        (chain([784, 300, 100, 7], ["fc1", "fc2", "fc3"]), "lenet-300-100"),
        (chain([784, 64, 10], ["input", "output"]), "mlp-784-64-10"),
        (chain([8, 8, 8], ["linear", "dense"]), "mlp-8-8-8"),  # the file's order, which is not the alphabet's
        (chain([8, 8, 8], ["dense", "linear"]), None),  # alphabetical: no telling which comes first
        (chain([8, 5, 4], ["net.fc", "net.fc.fc"]), None),  # a layer inside a layer
        (chain([8, 5, 4], ["fc.modules", "fc2"]), None),  # no module can have that name
        (chain([8, 5, 4], ["fc1", "fc2"]) | {"fc1.bias": (4,)}, None),
        (chain([8, 5, 4], ["fc1", "fc2"]) | {"fc3.bias": (4,)}, None),
        # Shapes that chain, of layers that are not in a row.
        (chain([64] * 5, ["q_proj", "k_proj", "v_proj", "out_proj"]), None),
        (chain([64] * 5, ["q", "v", "k", "o"]), None),
        (chain([10, 32, 32, 32], ["trunk", "policy", "value"]), None),
        (chain([10, 32, 32, 32], ["fc", "head2", "head1"]), None),
        (chain([32, 32, 32, 5], ["x2h", "h2h", "out"]), None),
        (chain([32, 64, 32], ["w1", "w2"]), None),
        (chain([8, 5, 4], ["output", "input"]), None),
        (chain([8, 5, 4], ["features.0", "classifier"]), "mlp-8-5-4"),
        (chain([8, 5, 4], ["linear_relu_stack.0", "linear_relu_stack.2"]), "mlp-8-5-4"),
        (chain([8, 5, 4], ["0", "2"]), "mlp-8-5-4"),
        ({"a.weight": (5, 8), "b.weight": (4, 6)}, None),
        ({"a": (5, 8)}, None),
        ({".weight": (5, 8)}, None),
        ({"weight": (5, 8), "bias": (5,)}, None),
        (chain([4] * 15, [f"fc{'x' * i}" for i in range(14)]), None),
    ],
)
def test_mlp_cases(shapes, name):
    found = recognise(shapes)
    assert (found and found.name) == name


def timed(shapes):
    start = time.process_time()
    found = recognise(shapes)
    assert time.process_time() - start < 5.0
    return found


def test_the_order_of_an_mlp_is_not_searched_for_in_vain():
    words = sorted(["dense", "fc", "features", "ff", "hidden", "layer", "linear", "main", "mlp", "net", "stack"])
    square = {f"{word}.weight": (16, 16) for word in words}
    assert timed(square | {"z.weight": (7, 5)}) is None
    assert timed(square) is None
    several = {f"{word}.weight": (16, 16 + i) for i, word in enumerate(words)}
    assert timed(several) is None
    # Every size as often entered as left, by every way between 12 of them, and one layer that no way leads to.
    ways = {f"fc{i}.layer{j}.weight": (10 + j, 10 + i) for i, j in itertools.permutations(range(12), 2)}
    assert timed(ways | {"z.weight": (7, 5)}) is None
    assert timed(ways | {"z.weight": (10, 5)}) is None  # many orders


def test_a_long_mlp_in_any_order_is_found():
    names = [f"fc{i % 10}.layer{i // 10}.0" for i in range(100)]
    shapes = chain(range(100, 201), names)
    assert timed(dict(sorted(shapes.items()))).name == "mlp-" + "-".join(map(str, range(100, 201)))


def test_mlp_input_and_description():
    assert recognise(chain([784, 50, 10], ["fc1", "fc2"])).input_shape == (1, 28, 28)
    found = recognise(chain([3072, 50, 10], ["fc1", "fc2"], biases=False))
    assert found.input_shape == (3, 32, 32)
    assert found.description == "MLP 3072-50-10 (without biases, 10 classes)"
    assert architecture("lenet-300-100", 7).description == "LeNet-300-100 (7 classes)"


# Factories

FACTORIES = """
    import torch
    from torch import nn
    import helper_of_the_file

    text = "no function"

    def build():
        torch.randn(3)
        return nn.Linear(3, 2)

    def fails():
        raise RuntimeError("first line\\nsecond line")

    def leaves():
        raise SystemExit(3)

    def nothing():
        return None

    def needs(width):
        return nn.Linear(width, 2)

    def lazy():
        return nn.LazyLinear(3)

    class Nets:
        small = staticmethod(build)
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """A folder with `nets.py` and what it imports, which is the current folder."""
    name = f"nets_{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:8]}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(FACTORIES))
    (tmp_path / "helper_of_the_file.py").write_text("")
    (tmp_path / "broken.py").write_text("def (:\n")
    (tmp_path / "imports.py").write_text("import no_such_module_anywhere\n")
    (tmp_path / "leaves.py").write_text("raise SystemExit\n")
    monkeypatch.chdir(tmp_path)
    yield name
    sys.modules.pop("helper_of_the_file", None)
    sys.modules.pop(name, None)


@pytest.mark.parametrize("spec", ["{}.py:build", "./{}.py:Nets.small", "{}:build", "{}:Nets.small"])
def test_factory(nets, spec):
    before, state = list(sys.path), torch.get_rng_state()
    assert isinstance(load_factory(spec.format(nets)), nn.Linear)
    assert sys.path == before
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("call", ["(width=4)", "(4)", "(width = 4,)"])
def test_factory_with_arguments(nets, call):
    assert load_factory(f"{nets}.py:needs{call}").weight.shape == (2, 4)


BARE = "it is called without arguments, which may follow it in brackets"
LITERALS = "the arguments in brackets must be literals, such as (classes=10, width=0.5)"
FAILURES = [
    ("build", "give package.module:factory or file.py:factory, its arguments in brackets"),
    (":build", "give package.module:factory or file.py:factory, its arguments in brackets"),
    ("{}:", "give package.module:factory or file.py:factory, its arguments in brackets"),
    ("none.py:build", "no such file: none.py; correct the path before the colon"),
    (
        "no_such_module_anywhere:build",
        "module 'no_such_module_anywhere' cannot be imported: ModuleNotFoundError: No module named "
        "'no_such_module_anywhere'; run from the folder it is in, or give file.py:factory",
    ),
    (
        "imports.py:build",
        "imports.py cannot be imported: ModuleNotFoundError: No module named 'no_such_module_anywhere'; "
        "correct the file",
    ),
    ("leaves.py:build", "leaves.py cannot be imported: SystemExit; correct the file"),
    ("{}.py:absent", "no 'absent' there; name a function or class that stands in it"),
    ("{}.py:text", "'text' is of type str, not callable; name a function"),
    ("{}.py:fails", f"the factory failed: RuntimeError: first line; {BARE}"),
    ("{}.py:leaves", f"the factory failed: SystemExit: 3; {BARE}"),
    ("{}.py:nothing", "the factory returned NoneType; it must return a torch.nn.Module"),
    ("{}.py:lazy", "the network has lazy parameters; run a batch through it inside the factory"),
    (
        "{}.py:needs",
        f"the factory failed: TypeError: needs() missing 1 required positional argument: 'width'; {BARE}",
    ),
    ("{}.py:needs(__import__('os'))", LITERALS),
    ("{}.py:needs(width=1 + 2)", LITERALS),
    ("{}.py:needs(**{{}})", LITERALS),
    ("{}.py:needs(3", "give package.module:factory or file.py:factory, its arguments in brackets"),
    (
        "{}.py:needs(height=3)",
        "the factory failed: TypeError: needs() got an unexpected keyword argument 'height'; it is called with the "
        "arguments in brackets",
    ),
]


@pytest.mark.parametrize(("spec", "message"), FAILURES)
def test_factory_failures(nets, spec, message):
    before = list(sys.path)
    with pytest.raises(ModelFactoryError) as caught:
        load_factory(spec.format(nets))
    assert one_line(caught) == f"model={spec.format(nets)}: {message}"
    assert sys.path == before


def test_factory_with_a_syntax_error(nets):
    with pytest.raises(ModelFactoryError, match=r"broken.py cannot be imported: SyntaxError: .*; correct the file"):
        load_factory("broken.py:build")


# Networks


def test_load_recognised(tmp_path):
    source = init_network("resnet20", 7, 1).model
    network = load_network(saved(tmp_path, source))
    assert network.description == "ResNet-20 (CIFAR layout, option A shortcuts, 7 classes)"
    assert network.input_shape == (3, 32, 32)
    assert network.total == 268_336 - 3 * 64
    assert [layer.name for layer in network.layers][:2] == ["conv1.weight", "layer1.0.conv1.weight"]
    assert not network.model.training
    for name, tensor in source.state_dict().items():
        assert torch.equal(network.model.state_dict()[name], tensor)
    assert network.parameter("conv1.weight").requires_grad
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(network.model(x), source(x))


def test_load_leaves_random_numbers_alone(tmp_path):
    checkpoint = saved(tmp_path, init_network("lenet-5", 10, 0).model)
    state = torch.get_rng_state()
    load_network(checkpoint)
    load_network(checkpoint, "lenet-5")
    init_network("lenet-5", 10, 3)
    assert torch.equal(torch.get_rng_state(), state)


def test_missing_counters_become_zero(tmp_path):
    state = init_network("resnet20", 10, 1).model.state_dict()
    state = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    network = load_network(saved(tmp_path, state))
    assert network.model.bn1.num_batches_tracked.item() == 0


@pytest.mark.parametrize(
    ("kept", "loaded"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_precision(tmp_path, kept, loaded, suffix):
    state = {n: t.to(kept) for n, t in init_network("lenet-300-100", 10, 1).model.state_dict().items()}
    network = load_network(saved(tmp_path, state, f"net.{suffix}"))
    assert {tensor.dtype for tensor in network.model.parameters()} == {loaded}
    assert torch.equal(network.parameter("fc1.weight"), state["fc1.weight"].to(loaded))


def test_named_model_takes_classes_and_names_of_the_checkpoint(tmp_path):
    state = init_network("resnet20-1x1", 7, 1).model.state_dict()
    state = {re.sub("^linear", "fc", n.replace("shortcut", "downsample")): t for n, t in state.items()}
    network = load_network(saved(tmp_path, state), "ResNet20_1x1", (3, 16, 16))
    assert list(network.model.state_dict()) == list(state)
    assert network.input_shape == (3, 16, 16)
    other = init_network("lenet-300-100", 12, 1).model
    assert load_network(saved(tmp_path, other), "mlp-784-300-100-12").model.fc3.out_features == 12


def test_named_model_that_does_not_fit(tmp_path):
    checkpoint = saved(tmp_path, init_network("resnet20-1x1", 7, 1).model)
    with pytest.raises(StateDictMismatchError) as caught:
        load_network(checkpoint, "resnet20")
    assert one_line(caught, tmp_path) == (
        "net.safetensors does not fit ResNet-20 (CIFAR layout, option A shortcuts, 7 classes); unexpected in it: "
        "'layer2.0.shortcut.0.weight', 'layer2.0.shortcut.1.bias', 'layer2.0.shortcut.1.num_batches_tracked', "
        "'layer2.0.shortcut.1.running_mean', 'layer2.0.shortcut.1.running_var' and 7 more; "
        "it matches resnet20-1x1: leave model= out"
    )


def test_mismatch_in_every_way(tmp_path):
    state = init_network("mlp-6-5-4", 4, 1).model.state_dict()
    state["more"] = state.pop("fc2.bias")
    state["fc1.weight"] = torch.zeros(5, 7)
    with pytest.raises(StateDictMismatchError) as caught:
        load_network(saved(tmp_path, state), "mlp-6-5-4")
    assert one_line(caught, tmp_path) == (
        "net.safetensors does not fit MLP 6-5-4 (4 classes); missing from the checkpoint: 'fc2.bias'; "
        "unexpected in it: 'more'; of another shape: 'fc1.weight' is (5, 7), must be (5, 6); choose another model="
    )


def test_weights_alone_are_told_by_shape(tmp_path):
    """A network that nobody knows: methods that look at its weights alone need no more."""
    torch.manual_seed(0)
    state = {
        "enc.a.weight": torch.randn(6, 5),
        "enc.b.weight": torch.randn(4, 3, 3, 3),
        "embedding.weight": torch.randn(9, 2),
        "scale": torch.randn(4, 4, 4),
        "enc.a.bias": torch.randn(6),
    }
    path = tmp_path / "odd.pt"
    torch.save(state, path)
    mask = pai.prune(path, "magnitude", density=0.5)
    assert {name: one.shape for name, one in mask.items()} == {"enc.a.weight": (6, 5), "enc.b.weight": (4, 3, 3, 3)}
    values = torch.cat([state[name].abs().flatten() for name in mask])
    cut = values.sort(descending=True).values[69]
    for name, one in mask.items():
        assert np.array_equal(one, (state[name].abs() > cut).numpy())
    assert (mask.layouts["enc.a.weight"].known, mask.layouts["enc.b.weight"].known) == (True, False)
    for method in ("synflow", "phew"):
        with pytest.raises(UnknownModelError, match="match no known architecture"):
            pai.prune(path, method)
    torch.save({"scale": state["scale"]}, path)
    with pytest.raises(UnknownModelError, match="1 tensors match no known architecture"):
        pai.prune(path, "magnitude")


def test_unrecognised(tmp_path):
    with pytest.raises(UnknownModelError) as caught:
        load_network(saved(tmp_path, nn.Conv2d(3, 4, 5)))
    assert one_line(caught, tmp_path) == (
        "net.safetensors: names and shapes of its 2 tensors match no known architecture; "
        "give model=NAME, or module:factory or file.py:factory and, where no data tell it, input_shape="
    )
    with pytest.raises(UnknownModelError, match=r"^unknown model 'resnet21'"):
        load_network(saved(tmp_path, nn.Conv2d(3, 4, 5)), "resnet21")


@pytest.mark.parametrize(("value", "word"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_not_finite(tmp_path, value, word, dtype):
    state = {n: t.to(dtype) for n, t in init_network("mlp-6-5-4", 4, 1).model.state_dict().items()}
    state["fc2.weight"][1, 2] = value
    state["fc2.weight"][3, 3] = np.nan
    with pytest.raises(NotFiniteError) as caught:
        load_network(saved(tmp_path, state))
    assert one_line(caught, tmp_path) == (
        f"net.safetensors: tensor 'fc2.weight' holds {word} at index 7; "
        "take a checkpoint from before the weights diverged"
    )


@pytest.mark.parametrize(("dtype", "kind"), [(torch.bool, "bool"), (torch.int8, "int8")])
def test_integers_are_no_weights(tmp_path, dtype, kind):
    state = init_network("mlp-6-5-4", 4, 1).model.state_dict()
    state["fc2.weight"] = torch.ones(4, 5, dtype=dtype)
    with pytest.raises(CheckpointError) as caught:
        load_network(saved(tmp_path, state))
    assert one_line(caught, tmp_path) == (
        f"net.safetensors: tensor 'fc2.weight' holds {kind}, not weights; is this a mask?"
    )


class WithExtraState(nn.Linear):
    """State that is no tensor, as some modules keep."""

    def get_extra_state(self):
        return {"version": 1}

    def set_extra_state(self, state):
        raise AssertionError("nothing to restore it from")


def with_extra_state():
    return WithExtraState(3, 2)


def test_state_that_is_no_tensor_is_left_out(tmp_path):
    save_checkpoint(tmp_path / "net.safetensors", with_extra_state())
    network = load_network(open_checkpoint(tmp_path / "net.safetensors"), f"{__name__}:with_extra_state")
    assert network.total == 6


def test_factory_network(tmp_path, nets):
    torch.manual_seed(0)
    checkpoint = saved(tmp_path, nn.Linear(3, 2))
    network = load_network(checkpoint, f"{nets}.py:build", (3,))
    assert network.description == f"the network of {nets}.py:build"
    assert network.input_shape == (3,)
    assert [layer.name for layer in network.layers] == ["weight"]
    np.testing.assert_array_equal(network.parameter("weight").detach().numpy(), checkpoint.array("weight"))
    with pytest.raises(StateDictMismatchError, match=r"; change the factory, or choose another model=$"):
        load_network(saved(tmp_path, nn.Linear(4, 2)), f"{nets}.py:build")


def test_unpickled_module(tmp_path):
    torch.save(nn.DataParallel(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()).half()), tmp_path / "net.pt")
    checkpoint = open_checkpoint(tmp_path / "net.pt", trust=True)
    network = load_network(checkpoint)
    assert network.description == "Sequential (unpickled)"
    assert network.input_shape is None
    assert network.layers[0].name == "0.weight"
    with torch.no_grad():
        network.parameter("0.weight").zero_()
    assert load_network(checkpoint).parameter("0.weight").any()


class Varied(nn.Module):
    """Grouped, transposed, one- and three-dimensional, tied, frozen; an embedding and a norm beside."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 6)
        self.grouped = nn.Conv2d(4, 8, 3, groups=2)
        self.up = nn.ConvTranspose2d(6, 4, 3, groups=2)
        self.line = nn.Conv1d(2, 3, 5)
        self.solid = nn.ConvTranspose3d(2, 3, 2)
        self.norm = nn.LayerNorm(6)
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 6)
        self.second.weight = self.first.weight
        self.decoder = nn.Linear(6, 7, bias=False)
        self.decoder.weight = self.embedding.weight
        self.line.weight.requires_grad_(False)


def varied():
    return Varied()


EXPECTED = [
    ("grouped.weight", (8, 2, 3, 3), Layout(groups=2)),
    ("up.weight", (6, 2, 3, 3), Layout(groups=2, transposed=True)),
    ("line.weight", (3, 2, 5), Layout()),
    ("solid.weight", (2, 3, 2, 2, 2), Layout(transposed=True)),
    ("first.weight", (6, 6), Layout()),
    ("decoder.weight", (7, 6), Layout()),
]


@pytest.mark.parametrize("drop", [False, True])
def test_layers_of_a_varied_network(tmp_path, drop):
    source = Varied()
    save_checkpoint(tmp_path / "net.safetensors", source)
    state = load_file(tmp_path / "net.safetensors")
    if drop:  # as files that keep a tied tensor once
        del state["second.weight"], state["embedding.weight"]
    checkpoint = saved(tmp_path, state, "again.safetensors")
    network = load_network(checkpoint, f"{__name__}:varied")
    assert [(layer.name, layer.shape, layer.layout) for layer in network.layers] == EXPECTED
    assert network.total == sum(int(np.prod(shape)) for _, shape, _ in EXPECTED)
    assert network.model.second.weight is network.model.first.weight
    assert torch.equal(network.parameter("embedding.weight"), source.embedding.weight)
    assert not network.parameter("line.weight").requires_grad
    assert network.parameter("up.weight").requires_grad


def nothing_to_prune():
    return nn.LayerNorm(4)


def test_nothing_to_prune(tmp_path):
    with pytest.raises(LayerSelectionError) as caught:
        load_network(saved(tmp_path, nn.LayerNorm(4)), f"{__name__}:nothing_to_prune")
    assert one_line(caught, tmp_path) == (
        f"net.safetensors: the network of {__name__}:nothing_to_prune has no convolution or linear weight to prune; "
        "choose another model="
    )


def test_parametrised_weights_are_not_listed():
    network = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)), nn.Linear(3, 2))
    assert [layer.name for layer in prunable_layers(network)] == ["1.weight"]


# Initialising and saving


def test_init_is_decided_by_the_seed():
    one, same, other = (init_network("resnet20", 10, seed).model.state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["conv1.weight"], other["conv1.weight"])


@pytest.mark.parametrize("seed", [-1, 2**63, 10**26])
def test_init_with_a_seed_out_of_range(seed):
    with pytest.raises(MethodOptionError) as caught:
        init_network("lenet-5", 10, seed)
    assert str(caught.value) == f"seed={seed}: must be 0 to 9223372036854775807"


def test_init_with_the_largest_seed():
    assert init_network("lenet-5", 10, 2**63 - 1).total == 61_470


@pytest.mark.parametrize("classes", [10**12, 10**18, 10**26])
def test_init_with_too_many_classes(classes):
    with pytest.raises(UnknownModelError) as caught:
        init_network("resnet20", classes, 0)
    assert str(caught.value) == (f"resnet20 with {classes:,} classes does not fit in memory; choose a smaller network")


@pytest.mark.parametrize("name", ["mlp-100000000-100000000", "mlp-999999999999999999-999999999999999999"])
def test_names_of_networks_too_large(tmp_path, name):
    with pytest.raises(UnknownModelError, match=r" does not fit in memory; choose a smaller network$"):
        init_network(name, None, 0)
    # Of a checkpoint, names and shapes are compared before memory is taken.
    with pytest.raises((UnknownModelError, StateDictMismatchError), match=r" does not fit "):
        load_network(saved(tmp_path, nn.Conv2d(3, 4, 5)), name)


@pytest.mark.parametrize("name", ["mlp-9999999999-9999999-10", "mlp-9999999999-99999999999999-10"])
def test_names_of_networks_without_weights_that_are_too_large(name):
    with pytest.raises(UnknownModelError, match=r"^MLP .* does not fit in memory; choose a smaller network$"):
        network_called(name, None, {})


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OverflowError("int too large to convert"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000 bytes"),
        RuntimeError("Storage size calculation overflowed with sizes=[4611686018427387904, 8]"),
        TypeError("empty(): argument 'size' failed to unpack with error \"Overflow when unpacking long long\""),
    ],
)
def test_what_is_said_of_a_network_too_large(error):
    assert str(unmade("ResNet-20", error)) == "ResNet-20 does not fit in memory; choose a smaller network"


@pytest.mark.parametrize(
    "make", [lambda _: network_called("lenet-5", None, {}), load_network], ids=["alone", "weights"]
)
def test_a_network_that_cannot_be_made_for_another_reason(tmp_path, monkeypatch, make):
    checkpoint = saved(tmp_path, init_network("lenet-5", None, 0).model)

    def fails(_network):
        raise RuntimeError("no kernel for this.\nstack")

    monkeypatch.setattr("pai_cli.models.weightless.with_memory", fails)
    monkeypatch.setattr("pai_cli.models.network.with_memory", fails)
    with pytest.raises(UnknownModelError) as caught:
        make(checkpoint)
    told = r"LeNet-5 (28x28 inputs, 10 classes) cannot be made (no kernel for this); give another model="
    assert str(caught.value) == told


@pytest.mark.parametrize("name", ["mlp-", "resnet", "vgg"])
def test_names_with_endless_numbers(name):
    with pytest.raises(UnknownModelError, match=r"^unknown model "):
        architecture(f"{name}{'1' * 5000}-10")


def test_a_checkpoint_that_claims_more_than_memory(tmp_path):
    torch.save({"a.weight": torch.ones(1).expand(10**7, 10**7)}, tmp_path / "x.pt")  # a few hundred bytes
    with pytest.raises(
        CheckpointError, match=r"1,3\d\d bytes make tensors of 400,000,000,000,000 bytes, which are expanded"
    ):
        load_network(open_checkpoint(tmp_path / "x.pt"))


def test_the_classes_of_an_mlp_are_in_its_name():
    assert init_network("mlp-20-10", None, 0).description == "MLP 20-10 (10 classes)"
    assert init_network("mlp-20-7", 7, 0).description == "MLP 20-7 (7 classes)"
    assert init_network("lenet-5", None, 0).description == "LeNet-5 (28x28 inputs, 10 classes)"
    with pytest.raises(MethodOptionError) as caught:
        init_network("mlp-20-10", 7, 0)
    assert str(caught.value) == ("classes=7: mlp-20-10 has 10, its last size; leave classes= out, or change the name")


INIT_FAULTS = [
    (["resnet20", "--seed", 10**26], f"--seed {10**26}: must be 0 to 9223372036854775807"),
    (["lenet-5", "--seed", -1], "--seed -1: must be 0 to 9223372036854775807"),
    (
        ["resnet20", "--classes", 10**12],
        "resnet20 with 1,000,000,000,000 classes does not fit in memory; choose a smaller network",
    ),
    (
        ["mlp-20-10", "--classes", 7],
        "--classes 7: mlp-20-10 has 10, its last size; leave --classes out, or change the name",
    ),
]


@pytest.mark.parametrize(("words", "line"), INIT_FAULTS)
def test_init_says_what_is_wrong_in_one_line(pai, tmp_path, monkeypatch, words, line):
    monkeypatch.chdir(tmp_path)
    done = pai("init", *words)
    assert (done.status, done.out, done.said) == (2 if line.startswith("--") else 1, "", [f"pai: error: {line}"])
    assert not list(tmp_path.iterdir())


def test_saved_file_is_the_same_bytes_and_comes_back(tmp_path):
    network = init_network("lenet-300-100", 10, 0)
    metadata = {key: key.upper() for key in "zyxwvuts"}
    for name in ("a", "b"):
        save_checkpoint(tmp_path / f"{name}.safetensors", network, metadata)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata() == metadata
    again = load_network(open_checkpoint(tmp_path / "a.safetensors"))
    assert again.description == network.description
    for name, tensor in network.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor)
    with pytest.raises(OutputError, match=r"exists already; force=True replaces it$"):
        save_checkpoint(tmp_path / "a.safetensors", network)
    save_checkpoint(tmp_path / "a.safetensors", network, force=True)
    assert open_checkpoint(tmp_path / "a.safetensors").shapes == again_shapes(again)


def again_shapes(network):
    return {name: tuple(tensor.shape) for name, tensor in network.model.state_dict().items()}


def test_a_file_without_a_function(tmp_path: Path) -> None:
    checkpoint = tmp_path / "m.safetensors"
    save_checkpoint(checkpoint, init_network("mlp-4-3-2", None, 0))
    with pytest.raises(ModelFactoryError) as caught:
        load_network(open_checkpoint(checkpoint), "net.py")
    assert str(caught.value) == "model=net.py: say which function in it makes the network, as net.py:NAME"


def test_a_wrapper_s_prefix_is_named(tmp_path: Path) -> None:
    checkpoint = tmp_path / "m.safetensors"
    save_file({"net.odd.weight": torch.zeros(2, 3), "net.w": torch.zeros(5, 7, 3)}, checkpoint)
    with pytest.raises(
        UnknownModelError, match=r"\(every name begins with 'net\.': was it saved from inside a wrapper\?\)"
    ):
        load_network(open_checkpoint(checkpoint))
