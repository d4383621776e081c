"""Secrets, sealed with AES-GCM under a key that is kept in a file beside the database, not in it.

Whoever gets hold of the database alone, for example in a backup, reads no secret. A secret is bound to its reference:
one that was moved to another's row does not open.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import insert, select
from sqlalchemy.engine import Connection

from innkeeper.model.ids import SecretRef
from innkeeper.ports.folders import sync_folder
from innkeeper.ports.store import StoreFailed
from innkeeper.store.database import schema
from innkeeper.store.database.rows import Row
from innkeeper.store.reader import Reader
from innkeeper.store.work.referred import forget
from innkeeper.store.work.standing import Draft
from innkeeper.store.writer import Writer

_KEY_BYTES = 32
_NONCE_BYTES = 12
_TABLE = schema.secrets


class SealedSecrets:
    """ports.store.Secrets."""

    def __init__(self, writer: Writer, reader: Reader, key: bytes) -> None:
        self._writer = writer
        self._reader = reader
        self._cipher = AESGCM(key)
        self._marker = hashlib.blake2b(key, person=b"marks", digest_size=32).digest()

    async def seal(self, secrets: Mapping[SecretRef, bytes]) -> None:
        rows = [self._row(ref, plaintext) for ref, plaintext in secrets.items()]
        if not rows:
            return

        def put(connection: Connection) -> None:
            forget(connection, [row["id"] for row in rows])
            connection.execute(insert(_TABLE), rows)

        await self._writer.ask(lambda draft: _also(draft, put))

    def _row(self, ref: SecretRef, plaintext: bytes) -> Row:
        nonce = os.urandom(_NONCE_BYTES)
        return {"id": ref.id, "nonce": nonce, "sealed": self._cipher.encrypt(nonce, plaintext, ref.id.encode())}

    def mark(self, text: bytes) -> str:
        return hashlib.blake2b(text, key=self._marker, digest_size=16).hexdigest()

    async def redeem(self, ref: SecretRef) -> bytes:
        row = await self._reader.read(lambda c: c.execute(select(_TABLE).where(_TABLE.c.id == ref.id)).one_or_none())
        if row is None:
            raise KeyError(ref.id)
        try:
            return self._cipher.decrypt(row.nonce, row.sealed, ref.id.encode())
        except InvalidTag as error:
            hint = "Was the key file replaced? Restore key and database from the same backup, or give the secret again"
            raise StoreFailed(
                f"secret {ref.id} does not open: it is damaged, or was sealed with another key. {hint}"
            ) from error

    async def discard(self, refs: Sequence[SecretRef]) -> None:
        ids = [ref.id for ref in refs]
        if ids:
            await self._writer.ask(lambda draft: _also(draft, lambda connection: forget(connection, ids)))


def _also(draft: Draft, write: Callable[[Connection], object]) -> None:
    draft.others.append(write)


def key_from(path: Path, *, sealed: bool) -> bytes:
    """The key; made on first use, that is while nothing is `sealed` yet.

    Raises:
        StoreFailed: the file is missing, damaged or open to others; says what to do.
    """
    if not path.exists():
        if sealed:
            hint = "Restore it from the backup; without it the secrets in the database are lost"
            raise StoreFailed(f"key file {path} is missing, and the database holds secrets sealed with it. {hint}")
        return _make(path)
    if path.stat().st_mode & 0o077:
        hint = f"If others may have read it, take it for known to them; then: chmod 600 {path}"
        raise StoreFailed(f"key file {path} is open to other users. {hint}")
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise StoreFailed(
            f"key file {path} is damaged: it has {len(key)} bytes, not {_KEY_BYTES}. Restore it from the backup"
        )
    return key


def _make(path: Path) -> bytes:
    """Whole or not at all, and durable before anything is sealed with it."""
    key = AESGCM.generate_key(bit_length=8 * _KEY_BYTES)
    half = path.with_name(f"{path.name}.new")
    half.unlink(missing_ok=True)
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, key)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    half.rename(path)
    sync_folder(path.parent)
    return key
