"""A network connection that can be cut or held: a port that passes everything on to another, until it does not."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

PIECE_BYTES = 2**16
RESET_WHEN_CLOSED = struct.pack("ii", 1, 0)


@dataclass
class Line:
    """Passes on what comes to ``port``. Cut, it resets every connection, and each new one. Held, it swallows all
    that comes, and says so to nobody; released, it passes that on.
    """

    target: int
    port: int
    cut_after: int | None = None
    """So many bytes towards the target until it is cut by itself; None: it is not."""
    back_after: int | None = None
    """So many bytes from the target until it is cut by itself."""
    is_cut: bool = False
    _sockets: list[socket.socket] = field(default_factory=list)
    _flows: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._flows.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Reset all connections, from now on."""
        self.is_cut = True
        sockets, self._sockets = self._sockets, []
        for each in sockets:
            _reset(each)

    def mend(self) -> None:
        """Whole again, and not to be cut by itself."""
        self.is_cut, self.cut_after, self.back_after = False, None, None

    def hold(self) -> None:
        """From now on nothing gets through, and no connection ends."""
        self._flows.clear()

    def release(self) -> None:
        """All gets through again, what came meanwhile first."""
        self._flows.set()

    def take(self, connection: socket.socket) -> None:
        """A new connection."""
        if self.is_cut:
            _reset(connection)
            return
        try:
            onward = socket.create_connection(("127.0.0.1", self.target))
        except OSError:  # the target is away for now
            _reset(connection)
            return
        self._sockets += [connection, onward]
        for source, sink, towards in ((connection, onward, True), (onward, connection, False)):
            threading.Thread(target=self._pass_on, args=(source, sink, towards), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, towards: bool) -> None:
        try:
            while piece := source.recv(PIECE_BYTES):
                self._flows.wait()
                if self._uses_up(len(piece), towards):
                    self.cut()
                    return
                sink.sendall(piece)
            self._flows.wait()
            sink.shutdown(socket.SHUT_WR)
        except OSError:  # one end was reset, and so the other is to be
            self._flows.wait()
            for each in (source, sink):
                _reset(each)

    def _uses_up(self, size: int, towards: bool) -> bool:
        if towards and self.cut_after is not None:
            self.cut_after -= size
            return self.cut_after < 0
        if not towards and self.back_after is not None:
            self.back_after -= size
            return self.back_after < 0
        return False


def _reset(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_WHEN_CLOSED)
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


@contextmanager
def cut_line(target: int) -> Iterator[Line]:
    """A line to a port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        line = Line(target, int(listener.getsockname()[1]))
        listening = threading.Event()

        def accept() -> None:
            listening.set()
            with contextlib.suppress(OSError):
                while True:
                    line.take(listener.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        listening.wait()
        yield line
        line.cut()
        listener.shutdown(socket.SHUT_RDWR)
