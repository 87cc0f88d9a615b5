"""The whole product on a small, real network: starts the service, sweeps, shows the decision, stops everything."""

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from service.cli.connection import own_server
from service.cli.flow import Order, check_order, run_order
from service.cli.options import default_options
from service.cli.problems import say_error
from service.client import ApiProblem
from service.domain.errors import QuantsieveError
from service.domain.settings import BackendName
from service.settings import Settings

DIGITS = Path(__file__).parent / "digits"
OUT = Path("quantsieve-out")
MAX_DROP = 0.01


def main() -> int:
    """Run the demo; the exit status."""
    options = replace(
        default_options(),
        metric="top1",
        max_drop=MAX_DROP,
        backend=BackendName.ONNXRUNTIME,
        calibration_data=str(DIGITS / "calib.npz"),
    )
    order = Order(str(DIGITS / "digits.onnx"), str(DIGITS / "eval.npz"), options)
    started = time.monotonic()
    try:
        check_order(order)
        with tempfile.TemporaryDirectory(prefix="quantsieve-demo-") as folder:
            print("starting the service: API, broker and one worker on this machine", flush=True)
            # everything of its own, whatever the environment says
            settings = Settings(data_dir=Path(folder), database_url=None, broker_url=None, blob_url=None)
            with own_server(settings) as connection:
                status = run_order(connection, order, OUT)
    except (QuantsieveError, ApiProblem) as error:
        say_error(str(error))
        return 1
    print(f"\neverything is stopped; it took {time.monotonic() - started:.0f} s")
    return status


if __name__ == "__main__":
    sys.exit(main())
