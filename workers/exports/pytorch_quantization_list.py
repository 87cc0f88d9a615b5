"""A Python file that switches off the quantizers of the fallback layers in a pytorch-quantization model."""

from workers.exports.mixed_precision import MixedPrecision
from workers.exports.quoting import comments, filled, listed
from workers.exports.torch_modules import notes, torch_modules

FILE = "pytorch_quantization.py"
TEMPLATE = '''\
"""Switches off the quantizers of the layers that stay in floating point. After quant_modules.initialize():

    model = Model()            # of modules with quantizers, calibrated or not
    disable_quantizers(model)  # by exact name: nothing else is touched
"""

from pytorch_quantization.nn import TensorQuantizer

${notes}QUANTIZERS = ${names}


def disable_quantizers(model):
    """Switch them off; the names of those that the model has. Raises LookupError where it lacks one of the modules."""
    modules = dict(model.named_modules())
    missing = [name for name in QUANTIZERS if name.rpartition(".")[0] not in modules]
    if missing:
        raise LookupError(f"the model has no modules for {missing}; is it wrapped in another one?")
    found = [name for name in QUANTIZERS if isinstance(modules.get(name), TensorQuantizer)]
    for name in found:
        modules[name].disable()
    return found
'''


def to_script(mixed: MixedPrecision) -> bytes:
    """The file, with what pytorch-quantization cannot express as comments."""
    found = torch_modules(mixed)
    names = [name for each in found.modules if not each.int8 for name in each.quantizers(prefix="_")]
    return filled(TEMPLATE, notes=comments(notes(mixed, found)), names=listed(names))
