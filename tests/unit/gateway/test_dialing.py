"""How connections are made: names and addresses, and TLS that is verified. Certificates are made here."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from libs.common.settings import BadSettings, load
from services.gateway import dialing
from services.gateway.connection import UpstreamFailed
from services.gateway.dialing import Dialer, Origin, tls_context
from services.gateway.pool import Pool
from services.gateway.settings import GatewaySettings
from services.gateway.upstream import UpstreamExchange
from tests.conftest import eventually, free_port
from tests.unit.gateway.raw_upstream import answering, begin, call, listening, run, silent

HOUR = timedelta(hours=1)


@dataclass
class Authority:
    """A certificate authority that lives as long as the test."""

    directory: Path

    def __post_init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        now = datetime.now(UTC)
        builder = self._builder(self.name, self.key, now - HOUR, now + HOUR)
        certificate = builder.add_extension(constraints, critical=True).sign(self.key, hashes.SHA256())
        self.file = self.directory / "ca.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def server(self, host: str, *, until: datetime | None = None) -> ssl.SSLContext:
        """What a server needs to be `host` until then."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
        until = until or datetime.now(UTC) + HOUR
        alternative: x509.GeneralName = x509.DNSName(host)
        if host[0].isdigit():
            alternative = x509.IPAddress(ip_address(host))
        builder = self._builder(subject, key, until - 2 * HOUR, until)
        builder = builder.add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        file = self.directory / "server.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, begins: datetime, ends: datetime
    ) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self.name)
        builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
        return builder.not_valid_before(begins).not_valid_after(ends)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
async def pools(authority: Authority) -> AsyncIterator[Any]:
    """Makes pools to https origins that believe the authority."""
    made: list[Pool] = []

    def pool(port: int, host: str = "localhost", tls: ssl.SSLContext | None = None) -> Pool:
        made.append(Pool(Origin("https", host, port), 10, tls or tls_context(authority.file)))
        return made[-1]

    yield pool
    for each in made:
        await each.stop()


# -- TLS -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_an_upstream_with_a_certificate_of_a_known_authority_is_reached(
    authority: Authority, pools: Any, host: str
) -> None:
    server, names = authority.server(host), []
    server.sni_callback = lambda _, name, __: names.append(name)
    async with listening(answering, tls=server) as port:
        pool = pools(port, host)
        assert await call(pool) == b"ok"
        assert await call(pool) == b"ok"
        assert pool._count == 1, "and its connection is used again"
        assert names == ["localhost" if host == "localhost" else None], (
            "the name asked for (RFC 6066, section 3)"
        )
        pool.close_idle(older_than=0)


async def refused(pool: Pool) -> str:
    with pytest.raises(UpstreamFailed) as failed:
        await call(pool)
    assert (failed.value.reason, pool._count) == ("upstream_unreachable", 0)
    return failed.value.detail


async def test_a_certificate_of_another_host_is_refused(authority: Authority, pools: Any) -> None:
    async with listening(answering, tls=authority.server("other.example")) as port:
        detail = await refused(pools(port))
    assert detail.startswith("its certificate cannot be verified: Hostname mismatch")


async def test_an_expired_certificate_is_refused(authority: Authority, pools: Any) -> None:
    expired = authority.server("localhost", until=datetime.now(UTC) - timedelta(minutes=1))
    async with listening(answering, tls=expired) as port:
        detail = await refused(pools(port))
    assert detail == "its certificate cannot be verified: certificate has expired"


async def test_a_certificate_of_an_unknown_authority_is_refused(authority: Authority, pools: Any) -> None:
    async with listening(answering, tls=authority.server("localhost")) as port:
        detail = await refused(pools(port, tls=tls_context()))
    assert detail.startswith("its certificate cannot be verified: unable to get local issuer certificate")


async def test_what_speaks_no_tls_is_refused(pools: Any) -> None:
    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Speak plainly\r\n\r\n")

    async with listening(plain) as port:
        assert (await refused(pools(port))).startswith("TLS failed: ")


async def test_a_handshake_that_hangs_ends_with_the_connect_timeout(pools: Any) -> None:
    gone = asyncio.Event()

    async def hanging(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass
        gone.set()

    async with listening(hanging) as port:
        pool = pools(port)
        with pytest.raises(UpstreamFailed, match=r"no connection within 0.2 s"):
            await begin(UpstreamExchange(pool), connect=0.2)
        assert pool._count == 0
        await asyncio.wait_for(gone.wait(), 5)


async def test_large_requests_and_answers_pass_over_tls(authority: Authority, pools: Any) -> None:
    body = b"x" * 4_000_000

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        received = await reader.readexactly(len(body))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + received)

    async with listening(echo, tls=authority.server("localhost")) as port:
        exchange = UpstreamExchange(pools(port))
        assert await run(exchange, body) == body
        exchange.release()


async def test_a_tls_upstream_that_stops_reading_is_given_up_too(authority: Authority, pools: Any) -> None:
    async with listening(silent, tls=authority.server("localhost")) as port:
        exchange = UpstreamExchange(pools(port))
        with pytest.raises(UpstreamFailed, match="stopped reading the request"):
            async with asyncio.timeout(5):
                await begin(exchange, b"x" * 50_000_000, timeout=60.0, idle=0.3)
        exchange.release()


def test_old_versions_of_tls_and_unverified_hosts_are_out_of_the_question() -> None:
    context = tls_context()
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)


def test_a_file_of_authorities_that_cannot_be_used_is_a_wrong_setting(authority: Authority) -> None:
    key = "a" * 43 + "="
    given = {"gateway_session_key": key, "gateway_ca_file": authority.file}
    assert load(GatewaySettings, **given).gateway_ca_file == authority.file
    for wrong in (Path("/nowhere"), Path(__file__)):
        with pytest.raises(BadSettings, match=r"LOCKGATE_GATEWAY_CA_FILE: .*must be a file of certificates"):
            load(GatewaySettings, **given | {"gateway_ca_file": wrong})


# -- names and addresses ---------------------------------------------------------------------------


@pytest.fixture
def black_hole() -> Iterator[tuple[str, int]]:
    """An address that never answers: a server whose line of connections is full."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield server.getsockname()


def resolving_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    def lookup(host: str, port: int, flags: int = 0) -> list[dialing.Address]:
        return [(socket.AF_INET, address) for address in addresses]

    monkeypatch.setattr(dialing, "_lookup", lookup)


async def test_an_address_that_does_not_answer_does_not_hold_up_the_next(
    monkeypatch: pytest.MonkeyPatch, black_hole: tuple[str, int]
) -> None:
    async with listening(answering) as port:
        resolving_to(monkeypatch, black_hole, ("127.0.0.1", free_port()), ("127.0.0.1", port))
        pool = Pool(Origin("http", "many.example", port), 10)
        async with asyncio.timeout(3):
            assert await call(pool) == b"ok"
        await pool.stop()


async def test_when_no_address_works_the_first_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving_to(monkeypatch, ("127.0.0.1", free_port()), ("127.0.0.1", free_port()))
    assert await refused(Pool(Origin("http", "many.example", 80), 10)) == "it refuses connections"


def test_the_families_of_addresses_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    six, four = socket.AF_INET6, socket.AF_INET
    found = [(six, 1, 6, "", "a"), (six, 1, 6, "", "b"), (four, 1, 6, "", "c"), (four, 1, 6, "", "d")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert dialing._lookup("h", 1) == [(six, "a"), (four, "c"), (six, "b"), (four, "d")]


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 70 + ".example"])
async def test_a_name_without_an_address_says_so(host: str) -> None:
    assert await refused(Pool(Origin("http", host, 80), 10)) == "its host name cannot be resolved"


async def test_a_lookup_that_hangs_is_one_for_all_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    go_on, lookups = threading.Event(), 0

    def lookup(host: str, port: int, flags: int = 0) -> list[dialing.Address]:
        nonlocal lookups
        if flags:
            raise socket.gaierror
        lookups += 1
        go_on.wait(5)
        return [(socket.AF_INET, ("127.0.0.1", port))]

    monkeypatch.setattr(dialing, "_lookup", lookup)
    async with listening(answering) as port:
        dialer = Dialer(Origin("http", "slow.example", port), None)
        impatient = asyncio.create_task(dialer.dial())
        await eventually(lambda: lookups == 1)
        impatient.cancel()
        others = [asyncio.create_task(dialer.dial()) for _ in range(20)]
        await asyncio.sleep(0.05)
        go_on.set()
        for connection in await asyncio.gather(*others):
            connection.close()
        assert lookups == 1
        await asyncio.sleep(0.01)
