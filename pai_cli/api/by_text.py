"""Pruning a language model by what a text sends through it, for `prune`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pai_cli.api.inputs import Amount, globs_of, open_source, path_of, tell_network
from pai_cli.api.masks import Mask
from pai_cli.api.piecewise import Written
from pai_cli.api.progress import shown_by
from pai_cli.api.requests import request_of, tell_pruning
from pai_cli.errors import MethodOptionError, UsageError
from pai_cli.files.atomic import is_special
from pai_cli.files.messages import some_names
from pai_cli.files.provenance import provenance, typed
from pai_cli.refusals import Idle
from pai_cli.spelling import option
from pai_cli.telling import note, warn

if TYPE_CHECKING:
    from pai_cli.data.text import Calibration
    from pai_cli.files.checkpoints import Checkpoint
    from pai_cli.models.language import LanguageModel
    from pai_cli.models.network import Network
    from pai_cli.pruning.base import Method
    from pai_cli.pruning.by_block import BlockMasks
    from pai_cli.pruning.request import PruneRequest
    from pai_cli.pruning.trained import TrainingOptions

Text = str | Path | Sequence[str]
HF = "hf"

IDLE = (
    Idle(
        ("text", "sequences", "sequence_length"),
        "{it}: {method.name} reads no text; leave {it} out (methods that take it: {takers.text})",
        where=lambda call: not call.method.text and call.allocation is None,
    ),
    Idle(
        ("text", "sequences", "sequence_length"),
        f"{{it}}: {option('allocation', '{allocation}')} reads no text, and {{method.name}} neither; leave {{it}} out",
        where=lambda call: not call.method.text and call.allocation not in (None, "owl"),
    ),
    Idle(
        ("pattern", "densities", "scope", "effective"),
        f"{{it}}: {option('allocation', '{allocation}')} gives each block its density; leave one out",
        beside=("allocation",),
    ),
    Idle(
        ("head",),
        f"{{it}}: {{method.name}} prunes a head as any layer; leave {{it}} out (it is of methods with {option('text')}, and "
        f"of {option('allocation')})",
        where=lambda call: not call.method.text and call.allocation is None,
    ),
    Idle(
        ("allocation",),
        "{value}: {method.name} fixes the density of each layer; leave {it} out",
        where=lambda call: call.method.allocation != "none",
    ),
    Idle(
        ("scope", "ties", "shuffle", "reinit", "effective", "stability", "input_shape"),
        "{it}: {method.name} prunes a language model matrix by matrix, as its paper has it; leave {it} out",
        where=lambda call: call.method.text,
    ),
    Idle(
        ("model",),
        f"{{value}}: {{method.name}} takes the network that transformers makes of a folder, {option('model', HF)}; leave "
        "{it} out",
        where=lambda call: call.method.text and call.model != HF,
    ),
    Idle(
        ("model",),
        f"{{value}}: {option('allocation', '{allocation}')} takes the network that transformers makes of a folder, "
        f"{option('model', HF)}; leave {{it}} out",
        where=lambda call: call.allocation is not None and call.model != HF,
    ),
)


def text_path(text: Any) -> Path | None:
    """The file or folder of a text; None where a program gives strings, or nothing."""
    return path_of(text) if isinstance(text, (str, Path)) else None


@dataclass(frozen=True)
class ByText:
    """What was asked of a method that reads a text, as `prune` takes it, and what was read of that."""

    asked: Mapping[str, Any]
    method: Method
    amount: Amount
    written: Written
    weights: Path | None

    def prune(self, rounds: int | str | None, training: TrainingOptions) -> Mask:
        """Prune the folder. Raises what `pai.prune` raises."""
        asked, data = self.asked, self.asked["data"]
        self._check_text(option("method", self.method.name))
        source = open_source(asked["checkpoint"], trust=asked["trust"])
        if self.weights is not None:
            from pai_cli.files.model_folders import check_source

            check_source(source)
        if source.config is not None:
            source = in_experts(source, globs_of(asked["ignore"]))
        request = request_of(
            self.method,
            self.amount,
            asked,
            rounds=rounds,
            data=data if data is None or isinstance(data, str) else "in memory",
            training=training if training.given() else None,
        )
        from pai_cli.models.language import open_language_model
        from pai_cli.pruning.by_block import amounts_of
        from pai_cli.pruning.request import check_options

        check_options(request)
        model = open_language_model(source, request.device, head=asked["head"])
        amounts_of(model, request)
        network = _network(model)
        tell_network(source, network)
        text = self._text(model)
        if asked["allocation"] is not None:
            request = self._shared_out(model, request, text)
        found = self._found(model, network, request, text)
        return self._mask(source, network, request, text, found)

    def allocated(self, source: Checkpoint, network: Network, request: PruneRequest) -> tuple[Network, PruneRequest]:
        """The network of the blocks alone, and the request with a density for each; for a method that reads no text."""
        from pai_cli.models.language import open_language_model
        from pai_cli.pruning.run import check_request

        check_request(network, request, has_samples=True)  # before any work
        asked, name = self.asked, self.asked["allocation"]
        if _read_by(name):
            self._check_text(option("allocation", name))
        model = open_language_model(source, request.device, head=asked["head"])
        request = self._shared_out(model, request, self._text(model) if _read_by(name) else None)
        inside = {layer.name for layer in model.layers}
        layers = tuple(layer for layer in network.layers if layer.name in inside)
        return replace(network, layers=layers, whole=model.whole), request

    def _check_text(self, who: str) -> None:
        if self.asked["text"] is None:
            raise MethodOptionError(f"{who}: reads a text; give {option('text')}")

    def _shared_out(self, model: LanguageModel, request: PruneRequest, text: Calibration | None) -> PruneRequest:
        """The request with densities by block."""
        from pai_cli.pruning.block_densities import alphapruning, owl

        name = self.asked["allocation"]
        assert request.density is not None  # others are refused beside it
        with shown_by(self.asked["progress"], name) as bar:
            if name == "owl":
                assert text is not None
                given = owl(model, request.density, text.tokens, request.device, bar)
            else:
                given = alphapruning(model, request.density, request.device, bar)
        each = [density for _, density in given]
        note(f"{name}: densities from {min(each):.4g} to {max(each):.4g}, one a block")
        told = (("allocation", name), *(() if text is None else _story(text).items()))
        return replace(request, density=None, densities=given, story=told)

    def _text(self, model: LanguageModel) -> Calibration:
        """The sequences, of which is said how many they are."""
        from pai_cli.data.text import Wanted, calibration

        given, asked = self.asked["text"], self.asked
        strings = isinstance(given, Sequence) and all(isinstance(one, str) for one in given)
        if not isinstance(given, Path) and not strings:
            raise UsageError(f"{option('text')}: give a path, or strings, not {type(given).__name__}")
        wanted = Wanted(asked["sequences"], asked["sequence_length"], model.vocabulary, model.positions)
        found = calibration(text_path(given) or tuple(given), model.checkpoint.path.parent, wanted, asked["seed"])
        note(f"{found}{', drawn by the seed' if found.drawn else ''}")
        for remark in found.remarks:
            note(f"{found.name}: {remark}")
        if asked["seed"] and not found.drawn:
            note(
                f"{option('seed', asked['seed'])}: no more sequences are there than are used; every seed gives this mask"
            )
        return found

    def _found(self, model: LanguageModel, network: Network, request: PruneRequest, text: Calibration) -> BlockMasks:
        """The masks; and the weights, written block by block."""
        from pai_cli.files.model_folders import new_folder
        from pai_cli.pruning.by_block import prune_blocks

        source = model.checkpoint
        told = {"source_sha256": source.sha256, "method": request.method.name, **provenance(typed())}
        folder = (
            nullcontext() if self.weights is None else new_folder(source, self.weights, told, force=self.written.force)
        )
        with shown_by(self.asked["progress"], request.method.name) as bar, folder as new:
            found = prune_blocks(model, request, text.tokens, None if new is None else new.write, bar)
            tell_pruning(found.summary, network, no_collapse=self.written.no_collapse)
        if found.unseen:
            warn(f"no token of the text came into {some_names(found.unseen)}: pruned by the weights' size alone")
        in_doubt = _in_doubt(source, found)
        for doubt in dict.fromkeys(in_doubt.values()):
            names = [name for name, why in in_doubt.items() if why == doubt]
            warn(f"{some_names(names)}: left whole: {doubt}")
        if new is not None:
            left = f"; left out: {some_names(new.left_out)}" if new.left_out else ""
            note(f"wrote {self.weights}: the folder, with {request.method.name}'s weights, 0 where pruned{left}")
        return found

    def _mask(
        self, source: Checkpoint, network: Network, request: PruneRequest, text: Calibration, found: BlockMasks
    ) -> Mask:
        """The mask, written where it is to be."""
        from pai_cli.files.mask_pieces import MaskOutline, write_mask_pieces
        from pai_cli.files.stacks import part_names, stacked_layouts, stacked_masks, stacked_shapes, whole_stacks
        from pai_cli.pruning.output import run_metadata

        layers = {layer.name: layer for layer in found.summary.layers}
        stacks, path = whole_stacks(source.stacks, layers), self.written.path
        shapes = stacked_shapes({name: layer.shape for name, layer in layers.items()}, stacks)
        layouts = stacked_layouts({name: layer.layout for name, layer in layers.items()}, stacks)
        whole = network.whole.beside(_in_doubt(source, found), {**source.shapes, **source.stacks})
        told = _story(text)
        told |= {"no_text_came_into": ", ".join(found.unseen)} if found.unseen else {}
        metadata = {
            **run_metadata(found.summary, request, source.sha256),
            **replace(network, whole=whole).story,
            **told,
            **provenance(typed()),
        }
        if path is None:
            masks = stacked_masks(found.masks, stacks)
            return Mask(masks, layouts=layouts, metadata=metadata, summary=found.summary)
        parts = {name: part_names(name, shape) if name in stacks else [name] for name, shape in shapes.items()}
        outline = MaskOutline(shapes, layouts, metadata)
        write_mask_pieces(
            path,
            outline,
            lambda name: map(found.flat, parts[name]),
            packed=self.written.packed,
            force=self.written.force,
        )
        if is_special(path):
            return Mask.elsewhere(path, found.summary)
        mask = Mask.load(path)
        mask.summary = found.summary
        return mask


def in_experts(source: Checkpoint, ignore: tuple[str, ...]) -> Checkpoint:
    """The checkpoint, its experts that are in one tensor as the matrices they are. Raises `LayerSelectionError`."""
    from pai_cli.files.stacks import check_ignored
    from pai_cli.models.prunable import with_experts

    found = with_experts(source)
    check_ignored(found.stacks, ignore)
    return found


def _in_doubt(source: Checkpoint, found: BlockMasks) -> dict[str, str]:
    """Tensors that are left whole, for what comes into them cannot be told, and why."""
    from pai_cli.files.stacks import places_of

    places = places_of(source.stacks, source.stacks)
    return {places.get(name, (name, 0))[0]: f"inputs are not known: {why}" for name, why in found.doubts.items()}


def _read_by(allocation: str) -> bool:
    return allocation == "owl"


def _story(text: Calibration) -> dict[str, str]:
    """What a mask file tells of the text."""
    count, length = text.tokens.shape
    return {"text": text.name, "sequences": str(count), "sequence_length": str(length)}


def _network(model: LanguageModel) -> Network:
    """A language model as other networks are told of: its layers and what it leaves whole."""
    from pai_cli.models.network import Network
    from pai_cli.models.prunable import aliases_of

    aliases = aliases_of(model.checkpoint, model.network, model.layers)
    return Network(model.network, model.description, None, model.layers, aliases=aliases, whole=model.whole)
