"""What was measured of a mask, of a matrix, or between a mask's layers, as a program and a notebook take it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pai_cli.api.showing import Shown, Table, data_frame
from pai_cli.errors import PaiError, PictureError, UnknownNameError
from pai_cli.files.messages import some_names
from pai_cli.files.whole import told_whole
from pai_cli.spectral.catalogue import BETWEEN, EVERY
from pai_cli.spelling import for_python

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

    from pai_cli.analysis.junctions import BetweenReport
    from pai_cli.analysis.masks import MaskReport
    from pai_cli.analysis.pairs import PairReport
    from pai_cli.files.tables import Record
    from pai_cli.spectral.result import Measure
    from pai_cli.spectral.table import LayerTable

NETWORK_ONLY = "_layers"  # what ends a field that only a network's record has: over how many layers a mean is


@dataclass(frozen=True)
class Value:
    """One number with the absolute bound on its error, or the reason why there is none.

    `value`, `error`: float64, or None where there is no value; `reason`: why not, else None. Never both, never neither.
    """

    value: float | None
    error: float | None = None
    reason: str | None = None

    @staticmethod
    def of(measure: Measure) -> Value:
        """What the engine measured."""
        return Value(measure.value, measure.error, None if measure.reason is None else for_python(measure.reason))


class Values(Mapping[str, Value]):
    """Values by the names of their metrics, in the catalogue's order.

    Raises `UnknownNameError`, which is a `KeyError`, for another name.
    """

    def __init__(self, measures: Mapping[str, Measure | None], *, error: PaiError | None = None):
        self._measures: Mapping[str, Any] = measures
        self._error = error

    def __getitem__(self, metric: str) -> Value:
        if self._error is not None:
            return Value(None, None, str(self._error))
        try:
            return Value.of(self._measures[metric])
        except (KeyError, TypeError):
            raise UnknownNameError(f"no metric {metric!r}; there are {', '.join(self._measures)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._measures)

    def __len__(self) -> int:
        return len(self._measures)

    def __repr__(self) -> str:
        return repr(dict(self))


class Layer(Shown, Values):
    """One layer's graph: its values by metric, its counts as attributes.

    `name`, `shape`: of the tensor. `rows`, `columns`: all right and all left vertices; `n_R`, `n_L`: those with an edge;
    `d_R`, `d_L`: their mean degrees (None without an edge); `kept` edges of `total` weights; `density`: their quotient, 0
    to 1; `components`: connected ones; `n_regular`: left-regular subgraphs that count by the `convention`, "h23" or "f23".
    `solver`: how sigma_1 and sigma_2 of the mask were found; `outcome`: "proved", or what is not.
    """

    def __init__(self, row: LayerTable, *, weights: bool = False):
        """`row`: a table of this layer alone."""
        (layer,) = row
        super().__init__(layer.measures)
        self._row = row
        self._weights = weights
        counts = layer.counts
        self.name, self.shape = layer.name, layer.shape
        self.rows, self.columns, self.n_R, self.n_L = counts.n_R0, counts.n_L0, counts.n_R, counts.n_L
        self.d_R: float | None = counts.d_R if counts.edges else None
        self.d_L: float | None = counts.d_L if counts.edges else None
        self.kept, self.total, self.density = counts.edges, layer.parameters, counts.edges / layer.parameters
        self.components, self.n_regular = counts.components, layer.n_regular
        self.convention = layer.convention.value
        self.solver, self.outcome = layer.solver, for_python(layer.told)

    def to_dict(self) -> dict[str, Any]:
        """The layer's record: as of `pai analyze` in JSON, without what only a mask has. All of it is JSON."""
        from pai_cli.display.records import layer_records

        (record,) = layer_records(None, self._row, for_python)
        return {name: value for name, value in record.items() if _of_a_layer(name)}

    def _tables(self) -> list[Table | str]:
        from pai_cli.display.records import layer_records
        from pai_cli.display.tables import layer_table

        columns, rows = layer_table(layer_records(None, self._row, for_python), weights=self._weights)
        return [Table(self.name, columns, rows)]


class Layers(Mapping[str, Layer]):
    """A network's layers by name, in its order; `layers["conv1.weight", "dr"]` is one layer's value of a metric.

    Raises `UnknownNameError`, which is a `KeyError`, for another name.
    """

    def __init__(self, layers: LayerTable | None, *, weights: bool):
        self._layers: Any = layers
        self._places = {} if layers is None else {name: at for at, name in enumerate(layers.names)}
        self._weights = weights

    def __getitem__(self, key: Any) -> Any:
        """A `Layer`, or with the pair of a layer and a metric a `Value`."""
        if isinstance(key, tuple) and len(key) == 2:
            return self[key[0]][key[1]]
        try:
            at = self._places[key]
        except (KeyError, TypeError):
            raise UnknownNameError(f"no layer {key!r}; {_there_are(self._places)}") from None
        return Layer(self._layers[at : at + 1], weights=self._weights)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __repr__(self) -> str:
        return f"<{len(self)} layers: {', '.join(self._places)}>"


class _OfNetwork(Shown):
    """A report whose values by metric are its `network`'s."""

    network: Values

    def __getitem__(self, metric: str) -> Value:
        return self.network[metric]

    def __iter__(self) -> Iterator[str]:
        return iter(self.network)

    def __len__(self) -> int:
        return len(self.network)


class Report(_OfNetwork):
    """What was measured of one mask.

    `report["dr_imdb"]` is the network's value, as of `network`: the mean over the layers where it is present, over
    `counted["dr_imdb"]` of them; of the network as a whole are `layer_density`, `effective_share`, `log_paths` and the
    like. `layers`: each layer's values; empty where `summary=True` was asked for. `path`: of the mask file, None for a mask
    that is none; `name`: what it is called. `kept` of the `total` weights of the measured layers are kept, which is
    `density`, 0 to 1; `network_density`: of the whole network, where layers that have no mask keep all of their weights;
    None without a checkpoint, and where not all of the mask was measured. `convention`: whose gaps and subgraphs these are,
    "h23" or "f23". `collapsed`: layers without any weight; `unproved`: those with singular values that are not proved to be
    the two largest; `unanswered`: those where a solver ended without any. `left_whole`: tensors of the checkpoint that no
    mask covers, each with the reason; without one, those that the mask's file tells of. `metadata`: what the mask says of
    itself. `error`: of a mask among several that could not be measured, why; it has no layers then, and each of its values
    has that reason.

    Shows itself as a table, in a terminal and in a notebook.
    """

    def __init__(self, measured: MaskReport, *, weights: bool = False, in_memory: bool = False):
        self.measured = measured
        self.weights = weights
        self.name = str(measured.path)
        self.path: Path | None = None if in_memory else measured.path
        self.metadata = dict(measured.metadata)
        self.error = measured.error
        network = measured.report
        self.network = Values(_blank() if network is None else network.measures, error=measured.error)
        self.layers = Layers(None if network is None else network.layers, weights=weights)
        self.counted: dict[str, int] = {} if network is None else dict(network.counted)
        self.kept = 0 if network is None else network.kept
        self.total = 0 if network is None else network.total
        self.density = None if network is None else network.density
        self.network_density = None if measured.count is None else measured.count.density
        self.convention = None if network is None else network.convention.value
        self.collapsed = () if network is None else network.collapsed
        self.unproved = () if network is None else network.unproved
        self.unanswered = () if network is None else network.unanswered
        self.left_whole: dict[str, str] = dict(
            told_whole(measured.metadata) if measured.whole is None else measured.whole.reasons
        )

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON has it: `mask`, `metadata`, `left_whole`, and the records of `pai analyze` in JSON, those of
        `layers` and that of the `network`.
        """
        *layers, network = self._records()
        return {
            "mask": self.name,
            "metadata": self.metadata,
            "left_whole": self.left_whole,
            "layers": layers,
            "network": network,
        }

    def to_pandas(self) -> pd.DataFrame:
        """A row a layer: names, counts, values and their errors. Raises `MissingPackageError` without pandas."""
        from pai_cli.display.records import ANALYZE_FIELDS

        return data_frame(
            self._records()[:-1], [name for name in ANALYZE_FIELDS if name == "mask" or _of_a_layer(name)]
        )

    def plot(self, figure: FigureBase | None = None) -> list[Axes]:
        """dr and dr_imdb from layer to layer, against their bounds: the picture of `pai analyze`.

        `figure`: where to draw, by default a new one of pyplot. Gives matplotlib's axes. Raises `PictureError` without
        matplotlib (extra plot), and for a report without layers.
        """
        from pai_cli.display.figures.canvas import axes_of
        from pai_cli.display.figures.layers import LayerProfile, profile_picture

        network = self.measured.report
        if network is None or not network.layers:
            told = "could not be measured" if network is None else "its report has no layers; leave summary=True out"
            raise PictureError(f"{self.name}: nothing to draw: {told}")
        return axes_of(profile_picture([LayerProfile.of(self.name, network)]), figure)

    def _records(self) -> list[Record]:
        from pai_cli.display.records import mask_records

        return mask_records(self.measured, summary=False, spell=for_python)

    def _tables(self) -> list[Table | str]:
        from pai_cli.display.tables import layer_table

        if self.error is not None:
            return [f"{self.name}: not measured: {self.error}"]
        columns, rows = layer_table(self._records(), weights=self.weights)
        return [Table(self.name, columns, rows, total=True)]


class Pair(Values):
    """Two consecutive layers, `reader` reading what `writer` writes: its values by `compatibility`, `copeland`, `overlap`.

    `outputs`: of the writer, those that the reader has columns for, `live` of them with a kept weight; `columns`: how many
    columns those are.
    """

    def __init__(self, pair: PairReport):
        super().__init__(pair.measures)
        self.writer, self.reader = pair.writer, pair.reader
        self.outputs, self.live, self.columns = pair.outputs, pair.live, pair.columns


class JunctionReport(_OfNetwork):
    """What was measured of one mask between consecutive layers.

    `report["overlap"]` is the network's value, as of `network`: the mean over the pairs where it is present, over
    `counted["overlap"]` of them. `pairs`: each pair's, by (writer, reader). `whole`: layers of the pairs that the mask does
    not have, so that all of their weights are kept. `path`, `name`, `error`: as of `Report`.
    """

    def __init__(self, measured: BetweenReport, *, summary: bool = False, in_memory: bool = False):
        self.measured = measured
        self.name = str(measured.path)
        self.path: Path | None = None if in_memory else measured.path
        self.error = measured.error
        self.network = Values(measured.measures or dict.fromkeys(_between_names()), error=measured.error)
        self.pairs = {} if summary else {(pair.writer, pair.reader): Pair(pair) for pair in measured.pairs}
        self.counted = dict(measured.counted)
        self.whole = measured.whole
        self._summary = summary

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON has it: `mask`, and the records of `pai analyze` between layers in JSON, those of `pairs`
        and that of the `network`.
        """
        *pairs, network = self._records()
        return {"mask": self.name, "pairs": pairs, "network": network}

    def to_pandas(self) -> pd.DataFrame:
        """A row a pair. Raises `MissingPackageError` without pandas."""
        from pai_cli.display.junctions import FIELDS

        columns = [name for name in FIELDS if name != "level" and not name.endswith("_pairs")]
        return data_frame(self._records()[:-1], columns)

    def _records(self) -> list[Record]:
        from pai_cli.display.junctions import FIELDS, between_records

        records = between_records(self.measured, summary=self._summary, spell=for_python)
        return [{name: record[name] for name in FIELDS} for record in records]

    def _tables(self) -> list[Table | str]:
        from pai_cli.display.junctions import between_records, between_table

        if self.error is not None:
            return [f"{self.name}: not measured: {self.error}"]
        columns, rows = between_table(between_records(self.measured, summary=self._summary, spell=for_python))
        return [Table(self.name, columns, rows, total=True)]


def _of_a_layer(field: str) -> bool:
    return field not in ("mask", "level", "network_density") and not field.endswith(NETWORK_ONLY)


def _blank() -> dict[str, None]:
    return dict.fromkeys(EVERY)


def _between_names() -> tuple[str, ...]:
    return tuple(BETWEEN)


def _there_are(names: Mapping[str, object]) -> str:
    return f"there are {some_names(names)}" if names else "there are none: summary=True leaves them out"
