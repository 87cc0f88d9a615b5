"""Names that people know: the module path, the same whether a model came as ONNX or as torch.export."""

from collections import Counter

from service.domain.layers import Operation

# how an operation without weights of its own is called inside its module
SUFFIX = {Operation.MATMUL: "matmul", Operation.ADD: "add", Operation.AVERAGE_POOL: "avg_pool"}


class Names:
    """Hands out names in topological order; a repeated one gets ``_1``, ``_2`` and so on."""

    def __init__(self) -> None:
        self._repeats: Counter[str] = Counter()
        self._used: set[str] = set()

    def of_weighted(self, path: str) -> str:
        """The name of a layer that owns weights: its module path."""
        return self._unique(path)

    def of_unweighted(self, path: str, operation: Operation) -> str:
        """The name of an operation inside the module at ``path`` ("" for the top)."""
        suffix = SUFFIX.get(operation, operation.lower())
        return self._unique(f"{path}.{suffix}" if path else suffix)

    def _unique(self, name: str) -> str:
        unique = name
        while unique in self._used:  # "fc_1" may be the second "fc" or a module of that name
            self._repeats[name] += 1
            unique = f"{name}_{self._repeats[name]}"
        self._used.add(unique)
        return unique
