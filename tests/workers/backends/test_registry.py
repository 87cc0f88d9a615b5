import subprocess
import sys

from service.domain.settings import BackendName
from workers.backends import registry
from workers.backends.protocol import Capability


def test_a_machine_without_the_runtimes_can_still_say_what_it_lacks() -> None:
    """None of them is loaded to find out which backends there are."""
    program = (
        "import sys\n"
        "for name in ('onnx', 'onnxruntime', 'torch', 'pytorch_quantization'): sys.modules[name] = None\n"
        "import workers.backends.registry\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_auto_is_the_first_gpu_else_the_cpu(monkeypatch) -> None:
    class Machine:
        devices = ("cpu", "cuda:0", "cuda:1")

        def capability(self) -> Capability:
            return Capability(BackendName.TORCH, True, self.devices, {})

    monkeypatch.setitem(registry.BACKENDS, BackendName.TORCH, Machine)
    device_for = registry.device_for.__wrapped__  # what is cached is the machine's own answer
    assert device_for(BackendName.TORCH, "auto") == "cuda:0"
    assert device_for(BackendName.TORCH, "cuda:1") == "cuda:1"
    Machine.devices = ("cpu",)
    assert device_for(BackendName.TORCH, "auto") == "cpu"
