"""Everything that can go wrong for a person, by name.

Each message is one line: what, where, and which parameter or value would fix it. The command line prints it and
exits with `status`; a library user catches the class.
"""

from pai_cli.printable import as_line
from pai_cli.spelling import for_python, for_shell


def install(extra: str) -> str:
    """What installs the packages of an extra, as a shell takes it: zsh makes something of brackets that are not quoted."""
    return f"pip install 'pai-cli[{extra}]'"


class PaiError(Exception):
    """Something could not be done; the text is one printable line for a person, whatever names stand in it.

    `text`: the message as it was made, its parameters named by `spelling.option`: what another message is made of.
    """

    status = 1
    """The command line's exit status: 1 could not be done, 2 wrong usage. It is the class that says which: an error about
    what was asked for has 2, one about files, networks and machines as they are has 1, whatever the message names.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        """The message as a program is told it: `density=`."""
        return as_line(for_python(self.text))

    @property
    def in_shell(self) -> str:
        """The message as the command line tells it, with flags."""
        return as_line(for_shell(self.text))


class CheckpointError(PaiError):
    """A checkpoint is missing, damaged, or holds what no network can use."""


class UntrustedPickleError(CheckpointError):
    """A pickle needs code to be loaded, and the user does not trust it."""


class UnknownModelError(PaiError):
    """A checkpoint's architecture is not recognised, or a model name is unknown."""


class UnknownModelNameError(UnknownModelError):
    """No architecture is called so."""

    status = 2


class ModelFactoryError(PaiError):
    """`package.module:factory` could not be imported, called, or gave no network."""


class ModelSpecError(ModelFactoryError):
    """What should be `package.module:factory` is not spelled so."""

    status = 2


class StateDictMismatchError(PaiError):
    """A checkpoint and a model differ in names or shapes."""


class TraceError(PaiError):
    """The order and wiring of a network's layers cannot be found out."""


class MaskError(PaiError):
    """A mask file is missing, damaged, or not a mask."""


class MaskMismatchError(MaskError):
    """A mask and a checkpoint differ in names or shapes."""


class AmbiguousMaskError(MaskError):
    """A mask file could be of several kinds."""


class UnknownMaskKindError(PaiError):
    """The name of a kind of foreign mask is unknown."""

    status = 2


class OutputError(PaiError):
    """An output file cannot be written."""


class DensityError(PaiError):
    """A density is out of range or keeps no weight."""

    status = 2


class DensitiesError(DensityError):
    """A file of layers' densities is missing, damaged, or has one that is none."""

    status = 1


class LayerSelectionError(PaiError):
    """A glob of layer names matches nothing, or leaves nothing."""

    status = 2


class NoLayerError(LayerSelectionError):
    """A file or a network has no layer that could be pruned or measured."""

    status = 1


class UnknownMethodError(PaiError):
    """A pruning method's name is unknown, or none is given."""

    status = 2


class UnusableMethodError(UnknownMethodError):
    """A pruning method of another distribution fails to load."""

    status = 1


class MethodOptionError(PaiError):
    """An option does not apply to the chosen pruning method, or one that it needs is missing."""

    status = 2


class ScoreError(PaiError):
    """A method's scores overflowed or are not finite."""


class CollapseError(PaiError):
    """A layer lost every weight, and the user asked for that to be refused, or the network gives NaN without them."""


class UnknownMetricError(PaiError):
    """A metric's name is unknown, or it needs weights that were not given."""

    status = 2


class SolverError(PaiError):
    """A solver was asked for that cannot run here."""


class DeviceError(PaiError):
    """The device asked for is not there."""


class ResumeError(PaiError):
    """A search or a training cannot be continued from what is on disk."""


class NotFiniteError(PaiError):
    """An array has NaN or infinite values."""


class ArrayError(PaiError, ValueError):
    """An array is not what the engine takes: its library, type, shape, or an entry."""


class ParameterError(PaiError, ValueError):
    """A number or a choice that a caller set is out of range, or of another type."""

    status = 2


class UsageError(ParameterError):
    """Parameters that exclude each other, do nothing together, or are missing."""


class UnknownNameError(PaiError, KeyError):
    """A report has no layer, or no metric, of that name."""


class MissingPackageError(PaiError, ImportError):
    """Something needs a package that is not installed."""


class DataError(PaiError):
    """Data is missing, damaged, of no known kind, or does not fit the network."""


class PictureError(PaiError):
    """A picture or a report cannot be made."""


class SuffixError(OutputError, PictureError):
    """The name of a file to write ends as that of another format."""

    status = 2


class CompositeError(PaiError):
    """An arithmetic expression of metrics cannot be read."""

    status = 2


class TableError(PaiError):
    """A table of metrics or of accuracies is missing, damaged, or says what cannot be."""


class ColumnError(TableError):
    """A table has no column of the name that was asked for."""

    status = 2


class RecipeError(PaiError):
    """A number of a training recipe is out of range, or one does not apply to this network, data or machine."""

    status = 2


class TrainingError(PaiError):
    """A network cannot be trained, or its loss is no longer finite."""


class WorkerLostError(PaiError):
    """The process that worked on a piece died, and so did those that tried it again."""


class ClusterError(PaiError):
    """A cluster cannot be reached, or its workers cannot do the work."""


class StoreError(PaiError):
    """The file of finished work cannot be used."""


class NotPortableError(PaiError):
    """A network cannot be sent to another process."""


class CompactError(PaiError):
    """A network cannot be made smaller without changing what it gives, or nothing of it would be left."""


class MiningError(PaiError):
    """Subgraphs cannot be mined: a support that nothing can have, or a collection too large to search."""


class SupportError(MiningError):
    """What should be a support is none, or is more than the graphs that were given."""

    status = 2


class EdgeListError(PaiError):
    """A file of edges is missing, or has a line that is no edge."""
