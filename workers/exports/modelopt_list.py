"""A Python file with a quant_cfg for nvidia-modelopt: the int8 layers' quantizers on, all others off.

ModelOpt matches names by fnmatch, and would quantize max pools and batch norms too: so everything is off but for what
the sweep had in int8, each name with its special characters escaped.
"""

import glob
from typing import Any

from workers.exports.mixed_precision import MixedPrecision
from workers.exports.quoting import comments, filled
from workers.exports.torch_modules import TorchModules, notes, torch_modules

FILE = "modelopt.py"
TEMPLATE = '''\
"""The decision for nvidia-modelopt (0.47 and newer, where quant_cfg is a list):

    import modelopt.torch.quantization as mtq

    mtq.quantize(model, QUANTIZE_CONFIG, forward_loop)  # forward_loop runs calibration samples through the model
    assert not absent(model)
"""

${notes}QUANTIZE_CONFIG = {
    "algorithm": "max",
    "quant_cfg": [
        {"quantizer_name": "*", "enable": False},
${entries}    ],
}
INT8_MODULES = ${modules}


def absent(model):
    """The modules in int8 that the model does not have."""
    present = {name for name, _ in model.named_modules()}
    return [name for name in INT8_MODULES if name not in present]
'''


def to_script(mixed: MixedPrecision) -> bytes:
    """The file, with what ModelOpt cannot express as comments."""
    found = torch_modules(mixed)
    int8 = [each for each in found.modules if each.int8]
    entries = "".join(f"        {entry!a},\n" for entry in _entries(found))
    modules = "[\n" + "".join(f"    {each.path!a},\n" for each in int8) + "]"
    return filled(TEMPLATE, notes=comments(notes(mixed, found)), entries=entries, modules=modules)


def _entries(found: TorchModules) -> list[dict[str, Any]]:
    entries = []
    for module in found.modules:
        if not module.int8:
            continue
        axes = (None, module.axis) if module.weighted else (None,)
        for name, axis in zip(module.quantizers(), axes, strict=True):
            entries.append({"quantizer_name": glob.escape(name), "cfg": {"num_bits": 8, "axis": axis}})
    return entries
