"""The embedded server without a worker, as a process that can be killed: ``python -m tests.chaos.server``.

With a broker URL in the environment it is the API alone.
"""

import signal
import threading

from service.embedded.server import EmbeddedServer
from service.settings import Settings
from tests.chaos import skewed

if __name__ == "__main__":
    skewed.install()
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    with EmbeddedServer(Settings(), with_worker=False):
        stopped.wait()
