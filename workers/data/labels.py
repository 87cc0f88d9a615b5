"""Targets as they are scored: integer class labels, or whatever else the caller stored."""

from collections.abc import Mapping, Sequence

import numpy as np

from workers.data.stored import Array

MOST_COUNTED_CLASSES = 10_000


def as_targets(stored: Array) -> Array:
    """Integer labels of shape (samples,) become int64; all else stays as it is."""
    if stored.ndim == 1 and stored.dtype.kind in "iu":
        return stored.astype(np.int64)
    return stored


def count_classes(targets: Array | None, class_names: Sequence[str] | None = None) -> Mapping[str, int] | None:
    """How many samples each class has, by its name where there are names; None where targets are no class labels."""
    if targets is None or targets.ndim != 1 or targets.dtype != np.int64:
        return None
    labels, counts = np.unique(targets, return_counts=True)
    if len(labels) > MOST_COUNTED_CLASSES:
        return None
    names = class_names or ()
    pairs = zip(labels.tolist(), counts.tolist(), strict=True)
    return {names[label] if 0 <= label < len(names) else str(label): count for label, count in pairs}
