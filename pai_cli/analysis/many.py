"""Reports of many masks: looked up, or measured by the workers of a pool, in the order of the files."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

from pai_cli.analysis.cache import CacheEntry, Encoded, ReportCache, decode, encode
from pai_cli.analysis.masks import AnalysisRequest, MaskReport, measure_mask
from pai_cli.analysis.places import place_of_masks, size_of
from pai_cli.analysis.transfer import NamedWeights, SentMask, SentWeights
from pai_cli.compute.device import Device, may_have_gpu
from pai_cli.compute.pieces import Here, Outcome, Pool, attempt
from pai_cli.errors import PaiError, UsageError, WorkerLostError
from pai_cli.files.checkpoints import Checkpoint
from pai_cli.files.graph_files import graph_of
from pai_cli.files.masks import Mask
from pai_cli.files.opening import open_mask
from pai_cli.files.store import Store, without_store
from pai_cli.progress import Progress, of_masks, silent
from pai_cli.spectral.network import DenseCache
from pai_cli.spectral.table import NO_LAYERS
from pai_cli.spelling import option

STEPS = 1000  # of progress a mask

QUICK = 0.4  # seconds of work that this process does before others are started, which takes them about as long

MUCH = 2 * QUICK  # seconds of work for which others are started at once

SHORT = 0.05  # seconds of a mask from which on this process only waits for others, so that they never wait for it

SMALL = 2**21  # bytes of a mask file, up to which it measures what is short beside them

LARGE = 2**27  # bytes of a mask file from which masks are measured one at a time, the cores sharing its layers


@dataclass
class _Task:
    """What all masks have in common."""

    request: AnalysisRequest
    cache: DenseCache


@dataclass(frozen=True)
class _Piece:
    """One mask to measure: by its name, and where names mean nothing, itself."""

    path: Path
    mask: Mask | None = None


AnyReport = MaskReport | Encoded
_Item = Path | Mask | Outcome[AnyReport]


def analyze_masks(
    masks: Sequence[Path | Mask],
    request: AnalysisRequest,
    progress: Progress = silent,
    *,
    pool: Pool | None = None,
    store: Store | None = None,
) -> Generator[MaskReport, None, None]:
    """A report a mask, as each is done, in the order of `masks`, files or masks in memory; one that cannot be read gives a
    report with its error, and the rest go on.

    `pool`: who measures, by default this process. `store`: what is in it is not measured again, and what is measured is
    put into it. Reports do not depend on either.
    """
    study = _Study(masks, _picklable(request), progress, ReportCache(store or without_store(), request))
    for done, outcome in enumerate(study.outcomes(pool or Here()), start=1):
        report = study.report(outcome)
        progress(done * STEPS, len(masks) * STEPS, of_masks(done, len(masks), report.path.name))
        yield report


def jobs_for(
    masks: Sequence[Path | Mask], request: AnalysisRequest, jobs: int | None, cluster: str | None
) -> int | None:
    """How many processes are to measure these masks: what was asked for, or one where a mask is so large that the cores
    share its layers; None for one a core. Raises `UsageError` for a GPU that several would have to share.
    """
    chosen = request.device not in ("cpu", Device.AUTO)
    if chosen and (cluster is not None or (jobs or 1) > 1):
        other = option("jobs" if cluster is None else "cluster")
        raise UsageError(
            f"{option('device', request.device)} measures in one process; leave {option('device')} or {other} out"
        )
    if jobs is not None or cluster is not None:
        return jobs
    alone = chosen or len(masks) < 2 or any(size_of(mask) > LARGE for mask in masks)
    return 1 if alone else None


class _Study:
    """The course of one study: what was looked up and is not shown yet."""

    def __init__(
        self, masks: Sequence[Path | Mask], request: AnalysisRequest, progress: Progress, finished: ReportCache
    ):
        self._masks = masks
        self._request = request
        self._progress = progress
        self._finished = finished
        self._cache = DenseCache()
        self._entries: deque[CacheEntry] = deque()
        self._shown = 0

    def outcomes(self, pool: Pool) -> Iterator[Outcome[AnyReport]]:
        """What the workers, or the store, say of each mask."""
        items = self._items()
        if self._request.device == Device.AUTO and may_have_gpu():
            return chain.from_iterable(self._where_quicker(pool, items))
        if self._request.device == Device.AUTO:
            self._place("cpu")
        return self._by(pool, items)

    def _place(self, device: str) -> None:
        self._request = replace(self._request, device=device)
        self._finished.measured_on(device)

    def _where_quicker(self, pool: Pool, items: Iterator[_Item]) -> Iterator[Iterable[Outcome[AnyReport]]]:
        """On a GPU or not, which is settled when the first mask is to be measured; what the store has needs neither."""
        for item in items:
            if isinstance(item, Outcome):
                yield [item]
                continue
            unfinished = 1 / (self._shown + 1)
            self._place(place_of_masks(self._masks[self._shown :], self._request, unfinished))
            yield self._by(pool, chain([item], items))

    def _by(self, pool: Pool, items: Iterator[_Item]) -> Iterator[Outcome[AnyReport]]:
        if self._request.device != "cpu":
            from pai_cli.analysis.device_study import measured_masks

            return measured_masks(items, self._request, self._tell)
        self._cache = self._finished.unmasked()
        if isinstance(pool, Here):
            return self._here(items)
        if pool.shares_files:
            return self._begun_here(pool, items)
        sent = replace(self._request, weights=_sent_weights(self._request))
        return pool.map(_encoded, _Task(sent, self._cache), _prepared(items, partial(_sent, request=self._request)))

    def _here(self, items: Iterator[_Item]) -> Iterator[Outcome[AnyReport]]:
        """Every mask in this process."""
        trust = self._request.trust
        for item in items:
            if isinstance(item, Outcome):
                yield item
                continue
            try:
                mask = open_mask(item, trust=trust) if isinstance(item, Path) else item
                outcome: Outcome[AnyReport] = Outcome(
                    measure_mask(mask, self._request, self._cache, partial(self._tell, mask.path.name))
                )
            except Exception as error:  # the caller sees what it is
                outcome = Outcome(None, error)
            yield outcome

    def _begun_here(self, pool: Pool, masks: Iterator[_Item]) -> Iterator[Outcome[AnyReport]]:
        """The first masks in this process: where they are few and small, it is done before others would have begun."""
        task = _Task(_self_contained(self._request), self._cache)
        items = _prepared(masks, partial(_sent_where_nameless, request=self._request))
        work = _encoded if self._finished.kept else _whole
        spent, measured, quickest = 0.0, 0, math.inf
        for item in items:
            if isinstance(item, Outcome):
                yield item
                continue
            begin = time.monotonic()
            outcome = attempt(self._measured, task, item)
            taken = time.monotonic() - begin
            spent, measured, quickest = spent + taken, measured + 1, min(quickest, taken)
            yield outcome
            remaining = len(self._masks) - self._shown
            # The first takes longer than others will. Where even the quickest makes much work, there is no need to see more.
            if min(spent, remaining * spent / measured) > QUICK or (measured > 1 and remaining * quickest > MUCH):
                break
        yield from pool.map(work, task, items, partial(_beside, task) if quickest < SHORT else None)

    def _items(self) -> Iterator[_Item]:
        for mask in self._masks:
            entry = self._finished.look(mask) if isinstance(mask, Path) else CacheEntry(mask.path)
            self._entries.append(entry)
            yield mask if entry.report is None else Outcome(entry.report)

    def _measured(self, task: _Task, piece: _Piece) -> AnyReport:
        """Measured in this process, telling how far it is within a mask."""
        return _measure(task, piece, partial(self._tell, piece.path.name))

    def _tell(self, name: str, layers: int, of: int) -> None:
        done, count = self._shown * STEPS + min(layers * STEPS // of, STEPS - 1), len(self._masks)
        self._progress(done, count * STEPS, of_masks(self._shown, count, name))

    def report(self, outcome: Outcome[AnyReport]) -> MaskReport:
        """The next mask's report, which is kept."""
        entry = self._entries.popleft()
        self._shown += 1
        if isinstance(outcome.error, WorkerLostError):
            return MaskReport(entry.path, {}, None, WorkerLostError(f"{entry.path}: {outcome.error.text}"))
        if isinstance(outcome.error, PaiError):
            return MaskReport(entry.path, {}, None, outcome.error)
        found = outcome.get()
        if entry.report is None:
            self._finished.keep(entry, found)
            self._finished.keep_unmasked(self._cache)
        if isinstance(found, Encoded):
            return decode(entry.path, found, layers=self._request.per_layer)
        return found if self._request.per_layer else _without_layers(found)


def _prepared(
    items: Iterator[_Item], piece: Callable[[Path | Mask], _Piece | Outcome[AnyReport]]
) -> Iterator[_Piece | Outcome[AnyReport]]:
    """Masks as who measures takes them; what is done already as it is."""
    return (item if isinstance(item, Outcome) else piece(item) for item in items)


def _encoded(task: _Task, piece: _Piece) -> AnyReport:
    """What a worker does whose answers are stored, or go over a network: a third of the report's own bytes."""
    return encode(_measured_quietly(task, piece))


def _whole(task: _Task, piece: _Piece) -> MaskReport:
    """What a process of this machine does for answers that are only shown: the report itself is quicker to send."""
    report = _measured_quietly(task, piece)
    return report if task.request.per_layer else _without_layers(report)


def _measured_quietly(task: _Task, piece: _Piece) -> MaskReport:
    return _measure(task, piece, lambda layers, of: None)  # noqa: ARG005


def _beside(task: _Task, piece: _Piece) -> Outcome[AnyReport] | None:
    """What this process measures beside the others: in one thread and little memory; None for a larger mask."""
    return attempt(_measured_quietly, task, piece) if size_of(piece.mask or piece.path) <= SMALL else None


def _without_layers(report: MaskReport) -> MaskReport:
    return report if report.report is None else replace(report, report=replace(report.report, layers=NO_LAYERS))


def _measure(task: _Task, piece: _Piece, layer_done: Callable[[int, int], object]) -> MaskReport:
    mask = piece.mask or open_mask(piece.path, trust=task.request.trust)
    return measure_mask(mask, task.request, task.cache, layer_done)


def _sent(mask: Path | Mask, request: AnalysisRequest) -> _Piece | Outcome[AnyReport]:
    """The mask as it travels to a worker that does not, a graph by itself with its weights; or its fault."""
    try:
        found = open_mask(mask, trust=request.trust) if isinstance(mask, Path) else mask
        return _Piece(found.path, SentMask.of(found, request.layers) if graph_of(found) is None else found)
    except PaiError as error:
        return Outcome(None, error)


def _sent_where_nameless(mask: Path | Mask, request: AnalysisRequest) -> _Piece | Outcome[AnyReport]:
    """A file by its name, for workers that share it; a mask in memory itself."""
    return _Piece(mask) if isinstance(mask, Path) else _sent(mask, request)


def _sent_weights(request: AnalysisRequest) -> SentWeights | None:
    return None if request.weights is None else SentWeights(request.weights, request.layers)


def _picklable(request: AnalysisRequest) -> AnalysisRequest:
    """The request with its checkpoint by name, as an open file does not travel."""
    weights = request.weights
    if not isinstance(weights, Checkpoint) or not weights.files:
        return request
    return replace(request, weights=NamedWeights(weights.path, trust=request.trust, opened=weights))


def _self_contained(request: AnalysisRequest) -> AnalysisRequest:
    """The request with weights that have a name, or that go along: a network in memory is in no file to be opened."""
    if not isinstance(request.weights, Checkpoint):
        return request
    return replace(request, weights=_sent_weights(request))
