"""The mask of the weights that enough masks keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pai_cli.files.masks import Mask, MaskToWrite
from pai_cli.mining.networks import teller


def consensus(masks: Sequence[Mask], support: int, story: Mapping[str, str]) -> MaskToWrite:
    """Each weight that at least `support` of the masks keep, whichever level is mined; `story` is added to its metadata.

    Kept weight by weight, so a kernel that many masks keep by different weights of it may keep none.
    """
    found = {}
    for name in masks[0].names:
        count = np.zeros(masks[0].shapes[name], np.int32)
        for mask in masks:
            count += mask.array(name)
        found[name] = count >= support
    kept = sum(int(np.count_nonzero(mask)) for mask in found.values())
    total = sum(mask.size for mask in found.values())
    metadata = {
        "method": "consensus",
        "density": repr(kept / total if total else 0.0),
        "support": str(support),
        "masks": str(len(masks)),
        **story,
    }
    known = teller(masks)
    return MaskToWrite(found, {name: known.layout(name) for name in found}, metadata)
