"""The set-up of one machine: SQLite, the broker that the server starts by itself, files in the data folder."""

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

from service.embedded.broker import FILESYSTEM_URL
from service.settings import Settings
from tests.chaos.cluster import Cluster, socket_url


class EmbeddedCluster(Cluster):
    """Its API and its broker are one server, which starts the broker again by itself."""

    name = "embedded"

    def _urls(self) -> dict[str, Any]:
        return {"broker_url": socket_url(self.disk.folder / "data" / "broker" / "broker.sock")}

    def _api_settings(self) -> Settings:
        return self.settings.model_copy(update={"broker_url": None})

    def start_servers(self) -> None:
        """Nothing: the API's server does."""

    def stop_servers(self) -> None:
        """Nothing: they end with the API."""

    def after_migration(self) -> None:
        """Nothing: the clock is a file."""

    def mend(self) -> None:
        """Nothing: every fault ends by itself."""

    def kill_broker(self) -> int:
        """The valkey that the server keeps."""
        try:
            pid = int((self.settings.data_dir / "broker" / "valkey.pid").read_text())
            os.kill(pid, signal.SIGKILL)
        except (OSError, ValueError):
            return 0
        return 1

    def kill_database(self) -> int:
        """SQLite is no process, but a part of each: all of them at once, as where the machine loses power."""
        parts = (self.api, *self.workers)
        for each in parts:  # none may be started again before all are dead
            each.held = True
        killed = self.kill_broker() + sum(each.send(signal.SIGKILL) for each in parts)
        for each in parts:
            each.held = False
        return killed

    def jump_clock(self, seconds: float) -> None:
        """Every connection of SQLite asks this file."""
        clock = self.folder / "clock"
        new = clock.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(clock)


class FolderBrokerCluster(EmbeddedCluster):
    """The same on a machine without valkey: messages are files in a folder."""

    name = "embedded, broker in a folder"

    def _urls(self) -> dict[str, Any]:
        return {"broker_url": FILESYSTEM_URL}

    def _api_settings(self) -> Settings:
        return self.settings

    def kill_broker(self) -> int:
        """There is nothing to kill."""
        return 0

    def flush_broker(self) -> None:
        """Empty the folder."""
        for message in Path(self.settings.data_dir / "broker" / "messages").glob("*"):
            with contextlib.suppress(OSError):
                message.unlink()
