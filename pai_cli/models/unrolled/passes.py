"""One pass through an unrolled network, and one back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from pai_cli.models.unrolled.folded import Folded, aligned
from pai_cli.models.unrolled.steps import Fixed, Use
from pai_cli.models.unrolled.tape import Tape

T = TypeVar("T")


def forwards(
    tape: Tape, given: T, used: Callable[[Use, T], T], applied: Callable[[Fixed, list[T]], Sequence[T]]
) -> list[T]:
    """What the network returns where `given` enters. `used`: what a layer gives of what it reads; `applied`: other steps."""
    values = {0: given}
    for number, step in enumerate(tape.steps):
        taken = [values[one] for one in step.inputs]
        if isinstance(step, Use):
            values[step.outputs[0]] = used(step, taken[0])
        else:
            assert isinstance(step, Fixed)
            values.update(zip(step.outputs, applied(step, taken), strict=True))
        for over in tape.over_after.get(number, ()):
            del values[over]
    return [values[one] for one in tape.outputs]


def backwards(tape: Tape, returned: Mapping[int, Folded], used: Callable[[Use, Folded], Folded]) -> Folded:
    """What comes back to the network's input where `returned` comes to these values.

    `used`: what a layer passes back of what comes to it.
    """
    gradients = dict(returned)

    def there(number: int) -> Folded:
        return gradients.pop(number, None) or Folded.constant(tape.shapes[number], 0)

    for step in reversed(tape.steps):
        if isinstance(step, Use):
            found = [used(step, there(step.outputs[0]))]
        elif any(one in gradients for one in step.outputs):
            assert isinstance(step, Fixed)
            found = step.back([there(one) for one in step.outputs], [tape.shapes[one] for one in step.inputs])
        else:
            continue
        for number, one in zip(step.inputs, found, strict=True):
            before = gradients.get(number)
            gradients[number] = one if before is None else _sum(before, one)
    return there(0)


def _sum(one: Folded, other: Folded) -> Folded:
    first, second = aligned([one, other])
    return Folded(first.values + second.values, first.places)
