"""One number per sample: how a variant's output differs from fp32's, and whether it is right.

All are float64 arrays of shape (N,). ``mse`` and ``signal`` are means over the output's elements; ``cosine`` is the
cosine of the angle between the outputs. Where the output holds class scores, axis 1 is the class, and further axes
are positions over which a sample's value is the mean:
``kl`` is KL(fp32 ‖ variant) of the softmax (of the rows themselves where fp32's output is a distribution already),
``agreement`` 1.0 where the arg-max is fp32's. With labels: ``correct``, ``correct5`` (more than 5 classes),
``cross_entropy``. Of equal scores the lower class wins, as in NumPy's arg-max. A position whose label is none of the
classes is never right and adds nothing to the cross entropy. A NaN or infinity in an output never comes here: the
recorder refuses it.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]

LABELLED = ("correct", "correct5", "cross_entropy")
TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True)
class Scored:
    """An output in float64, shape (N, ...), with its log-probabilities where it holds class scores."""

    values: Floats
    log_probabilities: Floats | None


def is_distribution(output: Array) -> bool:
    """Whether the rows over axis 1 are probabilities already: none negative, each summing to 1 within 1e-3."""
    if not holds_class_scores(output):
        return False
    rows = output.astype(np.float64)
    return bool((rows >= 0).all() and np.allclose(rows.sum(axis=1), 1.0, atol=1e-3))


def holds_class_scores(output: Array) -> bool:
    """Whether axis 1 can be classes: at least two of them, in floating point."""
    return output.ndim >= 2 and output.shape[1] >= 2 and bool(np.issubdtype(output.dtype, np.floating))


def scored(output: Array, *, distribution: bool) -> Scored:
    """Prepare an output for comparison; ``distribution``: as ``is_distribution`` says of fp32's."""
    values = output.astype(np.float64)
    if not holds_class_scores(output):
        return Scored(values, None)
    if distribution:
        return Scored(values, np.log(np.maximum(values, TINY)))
    shifted = values - values.max(axis=1, keepdims=True)
    return Scored(values, shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def against_reference(reference: Scored, variant: Scored) -> dict[str, Floats]:
    """The measures that need no labels."""
    ref, out = _flat(reference.values), _flat(variant.values)  # (N, D)
    found = {
        "mse": np.square(out - ref).mean(axis=1),
        "signal": np.square(ref).mean(axis=1),
        "cosine": _cosine(ref, out),
    }
    if reference.log_probabilities is not None and variant.log_probabilities is not None:
        p, q = reference.log_probabilities, variant.log_probabilities  # (N, C, ...)
        kl = (np.exp(p) * (p - q)).sum(axis=1)
        found["kl"] = np.maximum(_over_positions(kl), 0.0)  # rounding alone makes it negative
        # of the scores themselves: their softmax rounds small differences away
        same = reference.values.argmax(axis=1) == variant.values.argmax(axis=1)
        found["agreement"] = _over_positions(same.astype(np.float64))
    return found


def against_labels(variant: Scored, labels: Array) -> dict[str, Floats]:
    """The measures that need integer class labels of shape (N, ...); labels outside the classes are never right."""
    q = variant.log_probabilities
    if q is None or labels.shape != (q.shape[0], *q.shape[2:]) or not np.issubdtype(labels.dtype, np.integer):
        return {}
    classes = q.shape[1]
    integers = labels.astype(np.int64)
    known = (integers >= 0) & (integers < classes)
    index = np.where(known, integers, 0)[:, None]  # (N, 1, ...)
    own = np.take_along_axis(q, index, axis=1)[:, 0]
    # rank of the label's score; on a tie the lower class wins, as arg-max has it
    lower = np.arange(classes).reshape(1, -1, *[1] * (q.ndim - 2)) < index
    scores = variant.values
    score = np.take_along_axis(scores, index, axis=1)  # (N, 1, ...)
    rank = ((scores > score) | ((scores == score) & lower)).sum(axis=1)
    found = {
        "correct": _over_positions(((rank < 1) & known).astype(np.float64)),
        "cross_entropy": _over_positions(np.where(known, -own, 0.0)),
    }
    if classes > 5:
        found["correct5"] = _over_positions(((rank < 5) & known).astype(np.float64))
    return found


def uncertainty(reference: Scored) -> Floats | None:
    """1 - Σ p² of fp32's class probabilities p, (N,): what any small error's KL divergence grows with.

    (To second order it is half the variance, over the classes, of the error of their scores.) None without classes.
    """
    if reference.log_probabilities is None:
        return None
    return _over_positions(1.0 - np.square(np.exp(reference.log_probabilities)).sum(axis=1))


def _flat(values: Floats) -> Floats:
    return values.reshape(len(values), -1)


def _cosine(ref: Floats, out: Floats) -> Floats:
    norms = np.linalg.norm(ref, axis=1) * np.linalg.norm(out, axis=1)
    same = (ref == out).all(axis=1)
    # two zero vectors point the same way; a zero and a non-zero one have nothing in common
    cosine: Floats = np.where(
        norms > 0, (ref * out).sum(axis=1) / np.where(norms > 0, norms, 1.0), same.astype(np.float64)
    )
    return np.clip(cosine, -1.0, 1.0)  # rounding alone leaves the range


def _over_positions(values: Floats) -> Floats:
    means: Floats = values.reshape(len(values), -1).mean(axis=1)
    return means
