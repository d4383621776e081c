"""Whether a text is one public SSH key that a guest's sshd will accept, and whether several are not too many."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

_TYPES = {
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
}
_RSA_BITS_MIN = 1024  # sshd's own limit
_LENGTH_MAX = 16 * 1024
_MANY = 100
_TOTAL_MAX = 32 << 10  # as they are written into orders, which stay below 64 KiB
_PRIVATE = ("PRIVATE KEY", "PuTTY-User-Key-File")


def too_many(keys: Sequence[str]) -> str | None:
    """None if they are few enough for one instance; else what is too much."""
    if len(keys) > _MANY:
        return f"{len(keys)} SSH keys were given, and an instance takes {_MANY}"
    # What is long already is not written out to be measured.
    length = sum(map(len, keys))
    length = length if length > _TOTAL_MAX else len(json.dumps(list(keys)))
    if length > _TOTAL_MAX:
        return f"the SSH keys have {length} characters together, and an instance takes {_TOTAL_MAX}"
    return None


def check_ssh_key(text: str) -> str | None:
    """None if it is fine; else what is wrong. Never repeats the text: it may be a private key."""
    if any(mark in text for mark in _PRIVATE):
        return (
            "this is a PRIVATE key: never give it to anybody. Give the public one, the file of the same name with"
            " .pub; and if the private one has left your machine just now, make a new pair with ssh-keygen"
        )
    line = text.strip()
    if not line:
        return "the SSH key is empty"
    if line.startswith("---- BEGIN SSH2 PUBLIC KEY"):
        return "the SSH key is in the format of other programs: convert it with `ssh-keygen -i -f FILE`"
    if len(line) > _LENGTH_MAX:
        return f"the SSH key has {len(line)} characters, more than any key"
    if len(line.splitlines()) > 1 or not line.replace("\t", " ").isprintable():
        return "the SSH key must be one line: give several keys one by one"
    return _check_words(_words(line))


def _words(line: str) -> list[str]:
    """Type, key and comment, without the options that may stand before them (`no-pty`, `from="10.0.0.1, ::1"`)."""
    first = line.split(maxsplit=1)[0]
    if _is_type(first):
        return line.split(maxsplit=2)
    quoted = False
    for at, character in enumerate(line):
        if character == '"' and line[at - 1 : at] != "\\":
            quoted = not quoted
        elif character.isspace() and not quoted:
            return line[at:].split(maxsplit=2)
    return []


def _is_type(word: str) -> bool:
    return word in _TYPES or word.startswith(("ssh-", "ecdsa-", "sk-"))


def _check_words(words: list[str]) -> str | None:
    if not words or not _is_type(words[0]):
        return "the SSH key does not begin with a type, such as ssh-ed25519: give the content of a .pub file"
    kind = words[0]
    if kind == "ssh-dss":
        return "the SSH key is a DSA key, which SSH servers no longer accept: make one with `ssh-keygen -t ed25519`"
    if kind not in _TYPES:
        return f"SSH keys of type {kind} are not known: make one with `ssh-keygen -t ed25519`"
    if len(words) < 2:
        return f"the SSH key ends after its type, {kind}: it was not copied completely"
    try:
        base64.b64decode(words[1], validate=True)
    except ValueError:
        return "the SSH key is damaged (no base64): copy it again, without line breaks"
    return _check_key(kind, words[1])


def _check_key(kind: str, body: str) -> str | None:
    try:
        key = load_ssh_public_key(f"{kind} {body}".encode())
    except (ValueError, UnsupportedAlgorithm):
        return f"the SSH key is damaged (it is no {kind} key inside): copy it again, completely"
    if isinstance(key, RSAPublicKey) and key.key_size < _RSA_BITS_MIN:
        return f"the SSH key has {key.key_size} bits, which SSH servers refuse: make one with `ssh-keygen -t ed25519`"
    return None
