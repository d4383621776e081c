"""Who is asking: the kernel's word on a UNIX socket, a token on TCP.

On the UNIX socket the connecting process's user and groups are asked from the kernel (SO_PEERCRED, SO_PEERGROUPS);
root, the daemon's own user and members of the group `innkeeper` are administrators, everybody else is nobody here. On
TCP a bearer token is compared in constant time.
"""

from __future__ import annotations

import errno
import grp
import hmac
import os
import pwd
import socket
import struct
from dataclasses import dataclass
from typing import Any

from starlette.requests import HTTPConnection

from innkeeper.api.problems import Problem
from innkeeper.model.host import Principal, Role
from innkeeper.model.plans import Refusal, Why

GROUP = "innkeeper"
_SO_PEERGROUPS = 59  # socket(7) knows it since Linux 4.13, Python does not
_CREDENTIALS = struct.Struct("=iII")  # pid, uid, gid
_GROUPS_BYTES = 1024  # what Python's getsockopt takes; who is in more groups is looked up by name


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The process at the other end of a UNIX socket, as the kernel knew it when it connected. `name` is its user's."""

    uid: int
    name: str
    groups: frozenset[int]


def peer_of(transport: Any) -> Peer | None:
    """None when the connection is not over a UNIX socket."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family != socket.AF_UNIX:
        return None
    _, uid, gid = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return Peer(uid=uid, name=_user_name(uid), groups=frozenset((gid, *_groups(sock, uid))))


def _groups(sock: Any, uid: int) -> tuple[int, ...]:
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
        return tuple(os.getgrouplist(_user_name(uid), 0))
    return tuple(number for (number,) in struct.iter_unpack("=I", raw))


class Identity:
    """`token` None: nobody is let in over TCP."""

    def __init__(self, token: str | None, group: str = GROUP) -> None:
        self._token = token
        self._group = group

    def __call__(self, connection: HTTPConnection) -> Principal:
        """The principal of a request.

        Raises:
            Problem: 401 without or with a wrong token, 403 for a local user who is neither root nor in the group.
        """
        peer = getattr(connection.state, "peer", None)
        return self._by_peer(peer) if peer is not None else self._by_token(connection)

    def _by_peer(self, peer: Peer) -> Principal:
        if peer.uid not in (0, os.geteuid()) and _number_of(self._group) not in peer.groups:
            hint = f"As root: usermod -aG {self._group} {peer.name}; then log in again. A new group: restart inn serve"
            reason = f"{peer.name} is neither root nor in group {self._group}"
            raise Problem(Refusal(why=Why.FORBIDDEN, reason=reason, hint=hint))
        return Principal(name=peer.name, role=Role.ADMINISTRATOR)

    def _by_token(self, connection: HTTPConnection) -> Principal:
        scheme, _, given = connection.headers.get("authorization", "").partition(" ")
        if self._token is None or scheme.lower() != "bearer" or not _same(given.strip(), self._token):
            hint = "Send Authorization: Bearer TOKEN; the token is in the daemon's data directory, file api-token"
            raise Problem(Refusal(why=Why.FORBIDDEN, reason="no valid token", hint=hint), 401)
        return Principal(name="token", role=Role.ADMINISTRATOR)


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), token.encode())


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _number_of(group: str) -> int | None:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return None
