"""ONNX's pooling operators in torch."""

import torch
from torch import Tensor
from torch.nn import functional

from workers.models.onnx_to_torch_node import Made, Rule, Site, plain, refusal
from workers.models.onnx_to_torch_windows import Window, padded, sides, symmetric, window_of

AVERAGE = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}
LARGEST = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}


def average_pool(x: Tensor, window: Window, *, ceil: bool, count_padding: bool) -> Tensor:
    """AveragePool: x (N, C, D1 ... Dn). ``count_padding``: padding counts as elements of value zero."""
    kernel, strides = list(window.kernel), list(window.strides)
    pool, around = AVERAGE[len(kernel)], sides(x, window)
    same = symmetric(around)
    if same is not None:
        return pool(x, kernel, strides, same, ceil, count_padding)

    def pooled(tensor: Tensor) -> Tensor:
        return pool(padded(tensor, around, 0.0), kernel, strides, 0, ceil)

    return pooled(x) if count_padding else pooled(x) / pooled(torch.ones_like(x))


def max_pool(x: Tensor, window: Window, *, ceil: bool) -> Tensor:
    """MaxPool: x (N, C, D1 ... Dn)."""
    kernel, strides, dilations = (list(each) for each in (window.kernel, window.strides, window.dilations))
    around = sides(x, window)
    same = symmetric(around)
    # torch takes no more padding than half the window
    if same is None or any(2 * pad > size for pad, size in zip(same, kernel, strict=True)):
        x, same = padded(x, around, -torch.inf), [0] * len(kernel)
    return LARGEST[len(kernel)](x, kernel, strides, same, dilations, ceil)


def global_average_pool(x: Tensor) -> Tensor:
    """(N, C, D1 ... Dn) to (N, C, 1 ... 1)."""
    return x.mean(tuple(range(2, x.ndim)), keepdim=True)


def global_max_pool(x: Tensor) -> Tensor:
    """(N, C, D1 ... Dn) to (N, C, 1 ... 1)."""
    return x.amax(tuple(range(2, x.ndim)), keepdim=True)


def _pool_window(site: Site) -> Window:
    window = window_of(site, site.attribute("kernel_shape", [1]))
    if len(window.kernel) not in AVERAGE:
        raise refusal(site.node, f"over {len(window.kernel)} axes is not written out")
    return window


def _average_pool(site: Site) -> Made:
    window = _pool_window(site)
    site.only("dilations", [1] * len(window.kernel))
    flags = {
        "ceil": bool(site.attribute("ceil_mode", 0)),
        "count_padding": bool(site.attribute("count_include_pad", 0)),
    }
    return Made(average_pool, (site.value(0), window), flags)


def _max_pool(site: Site) -> Made:
    return Made(max_pool, (site.value(0), _pool_window(site)), {"ceil": bool(site.attribute("ceil_mode", 0))})


POOLS: dict[str, Rule] = {
    "AveragePool": _average_pool,
    "GlobalAveragePool": plain(global_average_pool),
    "GlobalMaxPool": plain(global_max_pool),
    "MaxPool": _max_pool,
}
