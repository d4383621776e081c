"""Which SSH keys are let through, and what is said about the rest."""

from __future__ import annotations

import base64
import struct

import pytest
from cryptography.hazmat.primitives import serialization as ser
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from innkeeper.plan.intake.ssh_key import check_ssh_key, too_many


def public(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    return key.public_key().public_bytes(ser.Encoding.OpenSSH, ser.PublicFormat.OpenSSH).decode()


def private(key: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey, form: ser.PrivateFormat) -> str:
    return key.private_bytes(ser.Encoding.PEM, form, ser.NoEncryption()).decode()


def field(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def body(*fields: bytes) -> str:
    return base64.b64encode(b"".join(field(f) for f in fields)).decode()


SECRET = ed25519.Ed25519PrivateKey.from_private_bytes(b"\7" * 32)
ED25519 = public(SECRET)
RSA = rsa.generate_private_key(65537, 2048)
POINT = SECRET.public_key().public_bytes(ser.Encoding.Raw, ser.PublicFormat.Raw)
SK_ED25519 = "sk-ssh-ed25519@openssh.com " + body(b"sk-ssh-ed25519@openssh.com", POINT, b"ssh:")

GOOD = (
    ED25519,
    f"{ED25519} me@desk",
    f"  {ED25519} Zoë's own key\n",
    f"{ED25519}\tme@desk",
    public(RSA),
    public(ec.generate_private_key(ec.SECP256R1())),
    public(ec.generate_private_key(ec.SECP384R1())),
    public(ec.generate_private_key(ec.SECP521R1())),
    SK_ED25519,
    f"no-pty {ED25519} me",
    f'from="10.0.0.0/8, ::1",command="echo \\"a b\\"" {ED25519} me',
)
BAD = (
    ("", "empty"),
    ("  \n", "empty"),
    ("me@desk", "does not begin with a type"),
    ("hello world", "does not begin with a type"),
    ("ssh-ed25519", "ends after its type"),
    ("ssh-ed25519 !!!!", "no base64"),
    (ED25519[:-8], "damaged"),
    (ED25519.replace("ssh-ed25519", "ssh-rsa", 1), "damaged"),
    ("ssh-ed25519 " + body(b"ssh-ed25519", POINT, b"more"), "damaged"),
    ("ssh-ed25519 " + body(b"ssh-ed25519", POINT[:31]), "damaged"),
    ("ecdsa-sha2-nistp256 " + body(b"ecdsa-sha2-nistp256", b"nistp256", b"\4" + b"\1" * 64), "damaged"),
    ("ssh-rsa " + body(b"ssh-rsa", b"\3", b"\x7f" * 64), "511 bits"),
    ("ssh-dss " + body(b"ssh-dss", b"\1", b"\1", b"\1", b"\1"), "DSA"),
    ("ssh-ed25519-cert-v01@openssh.com AAAA", "not known"),
    ("ssh-tomorrow AAAA", "not known"),
    (f"{ED25519}\n{ED25519}", "one line"),
    (f"{ED25519} \x1b[31mred", "one line"),
    (f"{ED25519} {'x' * 20_000}", "more than any key"),
    ("---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n", "ssh-keygen -i"),
    (f'command="never closed {ED25519}', "does not begin with a type"),
)
PRIVATE = (
    private(SECRET, ser.PrivateFormat.OpenSSH),
    private(SECRET, ser.PrivateFormat.PKCS8),
    private(RSA, ser.PrivateFormat.TraditionalOpenSSL),
    "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n",
    "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n",
    f"{ED25519}\n" + private(SECRET, ser.PrivateFormat.OpenSSH),
)


@pytest.mark.parametrize("text", GOOD, ids=range(len(GOOD)))
def test_good(text: str) -> None:
    assert check_ssh_key(text) is None


@pytest.mark.parametrize("text,says", BAD, ids=range(len(BAD)))
def test_bad(text: str, says: str) -> None:
    problem = check_ssh_key(text)
    assert problem is not None
    assert says in problem
    assert problem.isprintable()


@pytest.mark.parametrize("text", PRIVATE, ids=range(len(PRIVATE)))
def test_a_private_key_is_called_what_it_is_and_never_repeated(text: str) -> None:
    problem = check_ssh_key(text)
    assert problem is not None
    assert "PRIVATE" in problem
    for line in text.splitlines():
        assert line not in problem


@settings(max_examples=400, deadline=None)
@given(text=st.one_of(st.text(max_size=200), st.text(max_size=60).map(lambda t: f"ssh-ed25519 {t}")))
def test_no_text_crashes_it_and_no_other_text_passes(text: str) -> None:
    if check_ssh_key(text) is None:
        assert ED25519.split()[1] in text


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, 50), bit=st.integers(0, 7))
def test_a_flipped_bit_in_the_frame_is_found(at: int, bit: int) -> None:
    """All but the key's own 32 bytes, where any value is some key."""
    raw = bytearray(base64.b64decode(ED25519.split()[1]))
    frame = [n for n in range(len(raw)) if n < len(raw) - 32]
    raw[frame[at % len(frame)]] ^= 1 << bit
    assert check_ssh_key("ssh-ed25519 " + base64.b64encode(raw).decode()) is not None


def test_many_keys_fit_into_an_order_and_more_are_too_many() -> None:
    assert too_many([]) is None
    assert too_many([ED25519] * 100) is None
    assert too_many([ED25519] * 101) == "101 SSH keys were given, and an instance takes 100"
    long = f"{ED25519} {'ß' * 1000}"
    for keys in ([long] * 6, [f"{ED25519} {'x' * 16_000}"] * 3, ["x" * (1 << 20)]):
        said = too_many(keys)
        assert said is not None
        assert "characters together" in said
    assert too_many([long] * 5) is None
