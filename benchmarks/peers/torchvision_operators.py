"""Makes ``import torchvision`` work beside a CPU build of torch; import it first.

The registry's torchvision is linked against CUDA. Beside a torch without it its operators do not load, and the import
ends with "operator torchvision::nms does not exist". AIMET needs the package's Python parts only, and
these need the operators declared, not defined.
"""

import torch

OPERATORS = (
    "nms",
    "qnms",
    "roi_align",
    "qroi_align",
    "_roi_align_backward",
    "ps_roi_align",
    "_ps_roi_align_backward",
    "roi_pool",
    "_roi_pool_backward",
    "ps_roi_pool",
    "_ps_roi_pool_backward",
    "deform_conv2d",
    "_deform_conv2d_backward",
)

library = torch.library.Library("torchvision", "FRAGMENT")
for operator in OPERATORS:
    if not hasattr(torch.ops.torchvision, operator):
        library.define(f"{operator}(Tensor input) -> Tensor")
