"""One webhook: to the address that was looked at, in time, and believing nothing it hears."""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from support.receiver import receiving

from controlplane.webhooks.sending import MAX_ANSWER_BYTES, Outcome, Resolve, send

NAME = "hooks.example.test"
NO_TLS = ssl.create_default_context()


class Answers:
    """A name server that gives one answer after another."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return [self.answers.pop(0)]


async def post(
    url: str, resolve: Resolve, *, tls: ssl.SSLContext = NO_TLS, loopback: bool = True,
    deadline_seconds: float = 10.0,
) -> Outcome:  # fmt: skip
    return await send(
        url, {}, b"{}", tls=tls, allow_loopback=loopback, resolve=resolve,
        deadline_seconds=deadline_seconds,
    )  # fmt: skip


async def test_the_connection_goes_to_the_address_that_was_looked_at() -> None:
    with receiving() as receiver:
        answers = Answers("127.0.0.1", "10.0.0.1")
        outcome = await post(f"http://{NAME}:{receiver.port}/a?b=c", answers)
    assert outcome == Outcome(204, None)
    assert answers.asked == [NAME]
    ((path, headers, _),) = receiver.heard
    assert (path, headers["host"]) == ("/a?b=c", f"{NAME}:{receiver.port}")


async def test_a_name_that_leads_inside_is_not_called() -> None:
    with receiving() as receiver:
        url = f"http://{NAME}:{receiver.port}/"
        outcome = await post(url, Answers("127.0.0.1"), loopback=False)
    assert outcome.error == "the name leads to an address that is not public"
    assert receiver.heard == []


async def test_an_address_in_the_url_needs_no_name_server_and_gets_no_leave() -> None:
    with receiving() as receiver:
        outcome = await post(receiver.url, Answers(), loopback=False)
    assert outcome.error == "the name leads to an address that is not public"
    assert receiver.heard == []


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "017700000001"])
async def test_an_address_in_disguise_is_seen_through(host: str) -> None:
    with receiving() as receiver:
        outcome = await send(
            f"http://{host}:{receiver.port}/", {}, b"", tls=NO_TLS, allow_loopback=False
        )
    assert not outcome.delivered
    assert receiver.heard == []


async def test_a_redirect_is_an_answer_and_not_followed() -> None:
    with receiving() as other, receiving() as receiver:
        receiver.status, receiver.headers = 307, {"location": other.url}
        outcome = await post(receiver.url, Answers())
    assert (outcome.status, outcome.delivered, other.heard) == (307, False, [])


async def test_who_is_slow_is_left_at_the_deadline() -> None:
    with receiving() as receiver:
        receiver.answering.clear()
        outcome = await post(receiver.url, Answers(), deadline_seconds=0.2)
    assert outcome == Outcome(None, "no answer within 0.2 s")


async def test_a_name_server_that_is_slow_is_left_too() -> None:
    async def never(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    outcome = await post(f"https://{NAME}/", never, deadline_seconds=0.1)
    assert outcome == Outcome(None, "no answer within 0.1 s")


async def test_of_a_long_answer_little_is_read() -> None:
    with receiving() as receiver:
        receiver.status, receiver.answer = 200, b"x" * (64 * MAX_ANSWER_BYTES)
        assert await post(receiver.url, Answers()) == Outcome(200, None)


async def test_a_name_that_is_none_is_told() -> None:
    async def unknown(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    assert await post(f"https://{NAME}/", unknown) == Outcome(None, "the name does not resolve")


@pytest.mark.parametrize(("certified", "delivered"), [(NAME, True), ("other.test", False)])
async def test_the_certificate_must_be_the_names_and_not_the_addresss(
    certified: str, delivered: bool, tmp_path: Path
) -> None:
    file = certificate(tmp_path, certified)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    with receiving(server) as receiver:
        client = ssl.create_default_context(cafile=str(file))
        url = f"https://{NAME}:{receiver.port}/"
        outcome = await post(url, Answers("127.0.0.1"), tls=client)
    assert outcome.delivered == delivered


def certificate(folder: Path, name: str) -> Path:
    """Write a key and a certificate that it signed itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file = folder / "certificate.pem"
    file.write_bytes(private + made.public_bytes(Encoding.PEM))
    return file
