"""Programs of torch.export: opened with --trust only, their weights found in the graph, the same masks as of modules."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from standin import Toy
from test_trace import conv, net
from torch import nn
from trainings import residual

from pai_cli.errors import CheckpointError, MethodOptionError, ScoreError, UntrustedPickleError
from pai_cli.files.checkpoints import open_checkpoint
from pai_cli.methods.registry import get
from pai_cli.models.network import Network, load_network, prunable_layers
from pai_cli.pruning.base import BatchNorm
from pai_cli.pruning.normalising import story_of_batch_norms
from pai_cli.pruning.run import PruneRequest, prune

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.export's own parts are deprecated in places


def exported(folder: Path, model: nn.Module, shape: tuple[int, ...], batch: int = 1, dynamic: bool = False) -> Path:
    sizes = ({0: torch.export.Dim("batch")},) if dynamic else None
    program = torch.export.export(model.eval(), (torch.randn(batch, *shape),), dynamic_shapes=sizes)
    torch.export.save(program, folder / "net.pt2")
    return folder / "net.pt2"


def loaded(path: Path) -> Network:
    return load_network(open_checkpoint(path, trust=True))


def test_without_trust_nothing_is_loaded(tmp_path: Path, pai) -> None:
    path = exported(tmp_path, nn.Linear(3, 2), (3,))
    line = (
        f"{path}: a torch.export program, which cannot be loaded without running code of its maker; save "
        "model.state_dict() as .safetensors, or give --trust if you trust its maker"
    )
    with pytest.raises(UntrustedPickleError) as caught:
        open_checkpoint(path)
    assert str(caught.value) == line.replace("--trust", "trust=True")
    done = pai("prune", path, "--method", "erk", "--density", 0.5, "-o", tmp_path / "mask.safetensors")
    assert (done.status, done.said) == (1, [f"pai: error: {line}"])
    done = pai("prune", path, "--method", "erk", "--density", 0.5, "-o", tmp_path / "mask.safetensors", "--trust")
    assert done.status == 0
    assert done.said[0].endswith(f"{path}: a program of torch.export, 6 prunable weights")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Network, Network]:
    """A network, and the program that it was exported as."""
    network = residual()
    return network, loaded(exported(tmp_path_factory.mktemp("program"), network.model, (3, 6, 6)))


@pytest.mark.parametrize("method", ["random", "uniform", "erk", "magnitude", "synflow", "phew"])
def test_masks_are_those_of_the_network_that_was_exported(both: tuple[Network, Network], method: str) -> None:
    network, program = both
    assert program.layers == network.layers
    assert program.input_shape == (3, 6, 6)
    request = PruneRequest(get(method), 0.1, rounds=3 if method == "synflow" else None)
    ours, theirs = prune(network, request), prune(program, request)
    assert all(np.array_equal(mask, theirs.masks[name]) for name, mask in ours.masks.items())


class Noisy(nn.Module):
    """Batch norm and dropout, whose modes a program carries in its operations."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop, self.fc = conv(3, 8), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.drop(torch.relu(self.norm(self.conv(x)))).mean((2, 3)))


@pytest.mark.parametrize(
    ("method", "low", "training"),
    [("snip", False, True), ("snip", True, False), ("grasp", False, False), ("grasp", True, True)],
)
def test_methods_with_data_look_at_the_batch_whatever_mode_was_exported(
    tmp_path: Path, method: str, low: bool, training: bool
) -> None:
    torch.manual_seed(0)
    model = Noisy()
    with torch.no_grad():
        model.norm.running_mean.fill_(3.0)
    program = torch.export.export(model.train(training), (torch.zeros(2, 3, 6, 6),))
    path = tmp_path / "net.pt2"
    torch.export.save(program.run_decompositions() if low else program, path)
    request = PruneRequest(get(method), 0.3)
    data = Toy(5, (3, 6, 6))
    ours = prune(Network(model, "toy", (3, 6, 6), prunable_layers(model)), request, dataset=data)
    theirs = prune(loaded(path), request, dataset=data)
    assert all(np.array_equal(mask, theirs.masks[name]) for name, mask in ours.masks.items())


@pytest.mark.parametrize(
    ("method", "how", "remedy"),
    [
        ("snip", "running", "batch_norm=batch"),
        ("fisher", None, "another method="),
        ("hutchinson", None, "batch_norm=batch"),
    ],
)
def test_batch_norms_of_a_program_have_no_running_statistics_to_take(
    tmp_path: Path, method: str, how: BatchNorm | None, remedy: str
) -> None:
    network = loaded(exported(tmp_path, Noisy(), (3, 6, 6)))
    with pytest.raises(MethodOptionError) as caught:
        prune(network, PruneRequest(get(method), 0.3, batch_norm=how), dataset=Toy(5, (3, 6, 6)))
    assert str(caught.value) == f"batch_norm=running: the network is an exported program; give {remedy}"
    assert story_of_batch_norms(network, PruneRequest(get("snip"), 0.3)) == {"batch_norm": "batch"}


@pytest.mark.parametrize("method", ["fisher", "hutchinson", "force"])
def test_programs_without_batch_norms_score_as_what_was_exported(tmp_path: Path, method: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 5))
    program = loaded(exported(tmp_path, model, (3, 2, 2), batch=2, dynamic=True))
    network = Network(model, "toy", (3, 2, 2), prunable_layers(model))
    request = PruneRequest(get(method), 0.3, rounds=4 if method == "force" else None)
    ours, theirs = (prune(one, request, dataset=Toy(5, (3, 2, 2))) for one in (network, program))
    assert all(np.array_equal(mask, theirs.masks[name]) for name, mask in ours.masks.items())


def test_every_kind_of_layer_is_found(tmp_path: Path) -> None:
    def forward(m, x):
        x = m.up(torch.relu(m.deep(m.grouped(m.stem(x)))))
        return m.plain(m.fc(x.flatten(1)))

    model = net(
        forward, stem=conv(3, 8), grouped=conv(8, 8, groups=2), deep=conv(8, 8, groups=8),
        up=nn.ConvTranspose2d(8, 4, 2, groups=2), fc=nn.Linear(4 * 25, 6), plain=nn.Linear(6, 2, bias=False),
    )  # fmt: skip
    path = exported(tmp_path, model, (3, 4, 4))
    assert set(loaded(path).layers) == set(prunable_layers(model))
    program = torch.export.load(path).run_decompositions()
    torch.export.save(program, tmp_path / "low.pt2")
    low = loaded(tmp_path / "low.pt2")
    assert set(low.layers) == set(prunable_layers(model))
    assert prune(low, PruneRequest(get("phew"), 0.2)).kept == round(
        0.2 * sum(int(np.prod(layer.shape)) for layer in prunable_layers(model))
    )


def test_attention_has_prunable_weights_and_no_flow(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(2), nn.Linear(16, 8), nn.TransformerEncoderLayer(8, 2, batch_first=True))
    network = loaded(exported(tmp_path, model, (3, 4, 4)))
    assert {"1.weight", "2.linear1.weight", "2.linear2.weight"} <= {layer.name for layer in network.layers}
    assert prune(network, PruneRequest(get("magnitude"), 0.5)).kept == round(0.5 * network.total)
    with pytest.raises(ScoreError, match=r"^synflow: layer_norm \(an operation\) divides by the size of its own input"):
        prune(network, PruneRequest(get("synflow"), 0.5, rounds=1))


def test_relu6_and_other_batch_sizes(tmp_path: Path) -> None:
    model = nn.Sequential(
        conv(3, 4), nn.BatchNorm2d(4), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    with torch.no_grad():
        model[0].weight.mul_(1000)
    network = loaded(exported(tmp_path, model, (3, 8, 8), batch=2, dynamic=True))
    assert prune(network, PruneRequest(get("synflow"), 0.5, rounds=2)).kept == round(0.5 * network.total)
    fixed = loaded(exported(tmp_path, model, (3, 8, 8), batch=4))
    assert prune(fixed, PruneRequest(get("magnitude"), 0.5)).kept == round(0.5 * fixed.total)
    assert prune(fixed, PruneRequest(get("synflow"), 0.5, rounds=1)).kept == round(0.5 * fixed.total)


def test_a_damaged_program_is_said_in_one_line(tmp_path: Path) -> None:
    path = exported(tmp_path, nn.Linear(3, 2), (3,))
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(tmp_path / "part.pt2", "w") as part:
        for name in whole.namelist():
            if not name.endswith(".json"):
                part.writestr(name, whole.read(name))
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path / "part.pt2", trust=True)
    assert "\n" not in str(caught.value)
    assert f"{tmp_path / 'part.pt2'}: the torch.export program cannot be loaded: " in str(caught.value)
    assert str(caught.value).endswith("or save model.state_dict() as .safetensors")


def test_a_program_can_hold_code_and_it_is_not_run_unasked(tmp_path: Path) -> None:
    path = tmp_path / "evil.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("evil/archive_format", "pt2")
    code = "import sys\nfrom pathlib import Path\nfrom pai_cli.files.checkpoints import open_checkpoint\n" + (
        "try:\n    open_checkpoint(Path(sys.argv[1]))\nexcept Exception as e:\n    print(type(e).__name__)\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("UntrustedPickleError\n", 0)
