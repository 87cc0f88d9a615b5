"""The command line. Never imports torch or a runtime: what needs them is a worker process."""

from service.cli.root import main

__all__ = ["main"]
