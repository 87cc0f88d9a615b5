"""Probes over a torch graph: what every layer's int8 error does to the output, by a few backward passes.

A layer's error is delta = (its output in int8) − (its output in fp32), both from fp32 inputs. In the graph every layer
adds t · delta to its output, with t = 0 for each sample: the derivative of any number u·z of the output z by t is what
the layer's error does to that number, to first order. So nothing changes forward, one backward pass gives the
derivatives of all layers, and a layer's gradient is gone as soon as it has met the layer's delta.

The directions u of a sample, with v random signs, p the softmax of its D outputs, and M positions (1 where the output
is one row of class scores): v / √D gives the mean squared error; v · √(p / M) against the log-probabilities twice the
KL divergence; −1 / M at the label against the log-probabilities the change of the cross-entropy. The second has the
expectation of the usual Fisher probe (log p(y), y drawn from the softmax) and far less variance: a draw of y is most
often the likely class, which teaches little, and rarely another one, which then counts for much.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from service.domain.errors import InvalidInput, first_line
from workers.backends.protocol import Array, OutOfMemory
from workers.backends.torch_probe_graph import Forward, ProbeGraph, Split
from workers.backends.torch_session import TorchSession
from workers.backends.torch_tree import is_out_of_memory
from workers.data.binding import Batch
from workers.engine.probe_settings import ProbeSettings
from workers.engine.probe_signs import signs
from workers.engine.probe_sums import Floats, MeanSums, PairSums, ProbeSums
from workers.metrics.per_sample import holds_class_scores


class TorchProbe:
    """Probes layers of a session, all of them or those named. They need ranges. Not thread-safe, as the session."""

    def __init__(self, session: TorchSession, layers: frozenset[str] | None = None) -> None:
        self._session = session
        self._layers = tuple(each.id for each in session.facts.layers if layers is None or each.id in layers)
        reasons = {each: session.unusable(frozenset({each})) for each in self._layers}
        self._unusable = {layer: reason for layer, reason in reasons.items() if reason is not None}
        self._graph = ProbeGraph(session.layer_of, self._layers, frozenset(self._unusable))
        self._splits: dict[int, list[Split]] = {}

    def sums(self, batches: Iterable[Batch], settings: ProbeSettings) -> ProbeSums:
        """All batches' samples, at least one. The same samples in the same batches give the same bits again.

        Raises InvalidInput where the output has no gradients or the model mixes samples, OutOfMemory where a
        micro-batch is too large.
        """
        output = self._position(settings.output)
        self._session.select(frozenset(self._layers) - set(self._unusable))
        total: ProbeSums | None = None
        for batch in batches:
            for part in _parts(batch, self._session.facts.batch_size or settings.micro_batch):
                try:
                    found = self._part(part, output, settings)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    message = f"probing {len(part.indices)} samples at a time does not fit: {first_line(error)}"
                    raise OutOfMemory(message) from error
                total = found if total is None else total + found
        if total is None:
            raise ValueError("no batches to probe")
        return total

    def _position(self, output: str) -> int:
        specs = self._session.facts.outputs
        position = next((index for index, each in enumerate(specs) if each.name == output), None)
        if position is None:
            names = ", ".join(each.name for each in specs)
            raise InvalidInput(
                f"metric.output: the model has no output {output!r}; it has {names}", field="metric.output"
            )
        if "float" not in specs[position].dtype:
            raise InvalidInput(
                f"metric.output: output {output!r} is {specs[position].dtype}, and probes need a floating-point one "
                "that has gradients; measure with method: exact",
                field="metric.output",
            )
        return position

    def _part(self, part: Batch, output: int, settings: ProbeSettings) -> ProbeSums:
        run = self._graph.forward(self._session.tensors(part.inputs), output, self._splits_for(part, output))
        return self._backward(run, part, settings)

    def _splits_for(self, part: Batch, output: int) -> list[Split]:
        if output in self._splits:
            return self._splits[output]
        few = part if self._session.facts.batch_size else next(_parts(part, 2))
        splits = self._graph.find_splits(self._session.tensors(few.inputs), output, samples=len(few.indices))
        if len(few.indices) > 1:  # one sample alone cannot show where samples stand
            self._splits[output] = splits
        return splits

    def _backward(self, run: Forward, part: Batch, settings: ProbeSettings) -> ProbeSums:
        z, n = run.output, len(part.indices)
        size = int(np.prod(z.shape[1:]))
        drawn = np.stack([signs(settings.seed, int(each), probes=settings.probes, size=size) for each in part.indices])
        v = torch.zeros((settings.probes, *z.shape), dtype=z.dtype)
        v[:, :n] = torch.from_numpy(drawn.swapaxes(0, 1)).reshape(settings.probes, n, *z.shape[1:])
        v = v.to(z.device)
        mse = [run.derivatives(z, each / size**0.5)[:n] for each in v]
        kl, loss = self._of_scores(run, part, v, settings)
        run.close()
        failed = [self._layers.index(each) for each in self._failures(run)]
        flat = z.detach().reshape(len(z), -1)[:n].double()
        return ProbeSums(
            layers=self._layers,
            samples=n,
            probes=settings.probes,
            mse=PairSums.of(_without(np.stack(mse), failed)),
            kl=None if kl is None else PairSums.of(_without(kl, failed)),
            loss=None if loss is None else MeanSums.of(_without(loss, failed)),
            spread=float((flat - flat.mean(0)).square().mean(1).sum()),
            spread_freedom=n - 1,
            failures=self._failures(run),
            constants=run.constants,
        )

    def _of_scores(
        self, run: Forward, part: Batch, v: torch.Tensor, settings: ProbeSettings
    ) -> tuple[Floats | None, Floats | None]:
        """The derivatives for the KL divergence, (probes, n, L), and the loss changes, (n, L)."""
        z, n = run.output, len(part.indices)
        if not holds_class_scores(np.empty(z.shape[:2] + (0,) * (z.ndim - 2), np.float32)):
            return None, None
        log_p = z.clamp_min(torch.finfo(z.dtype).tiny).log() if settings.distribution else z.log_softmax(1)
        positions = z[0, 0].numel()
        root = (log_p.detach().exp() / positions).sqrt()
        kl = np.stack([run.derivatives(log_p, each * root)[:n] for each in v])
        at_label = _at_label(part.targets, log_p) if settings.loss else None
        if at_label is None:
            return kl, None
        slope = run.derivatives(log_p, at_label / -positions)[:n]
        # the second-order part of a cross-entropy is the KL divergence, and for small errors no smaller than the first
        return kl, slope + 0.5 * np.square(kl).mean(axis=0)

    def _failures(self, run: Forward) -> dict[str, str]:
        return self._unusable | {self._layers[index]: reason for index, reason in run.failures.items()}


def _parts(batch: Batch, size: int) -> Iterator[Batch]:
    for start in range(0, len(batch.indices), size):
        cut = slice(start, start + size)
        inputs = {name: each[cut] for name, each in batch.inputs.items()}
        yield Batch(inputs, None if batch.targets is None else batch.targets[cut], batch.indices[cut])


def _without(values: Floats, failed: Sequence[int]) -> Floats:
    values[..., failed] = 0.0
    return values


def _at_label(targets: Array | None, log_p: torch.Tensor) -> torch.Tensor | None:
    """Ones at the labels, shaped as the log-probabilities; None where the labels are no classes of these."""
    if targets is None or targets.shape[1:] != tuple(log_p.shape[2:]) or not np.issubdtype(targets.dtype, np.integer):
        return None
    labels = torch.zeros((len(log_p), *targets.shape[1:]), dtype=torch.int64)
    labels[: len(targets)] = torch.from_numpy(targets.astype(np.int64))
    labels = labels.to(log_p.device)
    known = ((labels >= 0) & (labels < log_p.shape[1])).to(log_p.dtype)
    found = torch.zeros_like(log_p, requires_grad=False)
    return found.scatter_(1, labels.clamp(0, log_p.shape[1] - 1)[:, None], known[:, None])
