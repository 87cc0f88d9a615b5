import subprocess
import sys


def test_a_machine_without_the_runtimes_can_still_say_what_it_lacks() -> None:
    """None of them is loaded to find out which backends there are."""
    program = (
        "import sys\n"
        "for name in ('onnx', 'onnxruntime', 'torch', 'pytorch_quantization'): sys.modules[name] = None\n"
        "import workers.backends.registry\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
