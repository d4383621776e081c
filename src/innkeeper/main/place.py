"""Where one installation lives. Everything derives from the data directory, so that two on one machine never meet.

DATA/ innkeeper.db  secret.key  api.sock  api-token  lock  host-id  kvm.json
      pool/      disks and templates          seeds/     cloud-init's disks
      machines/  sockets and logs             agent/     what the agent keeps
      workshop/  the compiled guest program
/run/innkeeper/TAG/   what network services read; of no use after a reboot
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from innkeeper.model.cluster import Cluster
from innkeeper.model.codec import NotReadable, decode
from innkeeper.model.ids import HostId
from innkeeper.model.network import NetworkWanted
from innkeeper.ports.folders import sync_folder
from innkeeper.ports.launcher import Users

# Read once, here: which installation a daemon serves when it is not told.
DATA_FOLDER = Path(os.environ.get("INN_DATA", "/var/lib/innkeeper"))
_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"
_SOCKET_MOST = 107  # bytes, from unix(7)


class CannotServe(Exception):
    """The daemon cannot run here; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Place:
    data: Path

    @property
    def tag(self) -> str:
        """`ik` and four characters drawn from the data directory's path: marks what is ours in the kernel."""
        number = _drawn_from(self.data)
        return "ik" + "".join(_LETTERS[number // 36**i % 36] for i in range(4))

    @property
    def users(self) -> Users:
        """As whom this installation's machines run; drawn from the path, too."""
        return Users(_drawn_from(self.data) // 36**4 % Users.BLOCKS)

    @property
    def volatile(self) -> Path:
        return Path("/run/innkeeper") / self.tag

    @property
    def socket(self) -> Path:
        return self.data / "api.sock"

    def make(self) -> None:
        """
        Raises:
            CannotServe: it cannot be written, or its path is too long for a socket.
        """
        if len(os.fsencode(self.socket.absolute())) > _SOCKET_MOST:
            raise CannotServe(
                f"the path of the data directory {self.data} is too long for a socket; choose a shorter one"
            )
        self._refuse_twins()
        try:
            # Others may pass through, to the socket that its own mode guards; what is secret is closed by itself.
            self.data.mkdir(parents=True, exist_ok=True, mode=0o711)
            self.volatile.mkdir(parents=True, exist_ok=True, mode=0o755)
            (self.data / "agent").mkdir(exist_ok=True, mode=0o700)
            self._note()
        except PermissionError as error:
            raise CannotServe(
                f"{error.filename} cannot be made by user {os.geteuid()}: run `inn serve` as root"
            ) from error
        except OSError as error:
            raise CannotServe(
                f"the data directory {self.data} cannot be made: {error.strerror} ({error.filename})"
            ) from error

    def _refuse_twins(self) -> None:
        """Few letters and few blocks of users: two installations could draw the same, and reach each other."""
        for note in self.volatile.parent.glob("*/data"):
            theirs = Path(note.read_text().strip())
            if theirs == self.data.resolve() or not theirs.is_dir():
                continue
            other = Place(theirs)
            if self.tag == other.tag or self.users == other.users:
                raise CannotServe(
                    f"{self.data} and {theirs} would use the same names and users in the kernel: choose another --data"
                )

    def _note(self) -> None:
        """For `_refuse_twins` of others."""
        draft = self.volatile / ".data.draft"
        draft.write_text(f"{self.data.resolve()}\n")
        draft.replace(self.volatile / "data")

    def lock(self) -> int:
        """Held as long as the descriptor is open: one daemon for one data directory.

        Raises:
            CannotServe: another daemon has it.
        """
        try:
            fd = os.open(self.data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise CannotServe(f"{self.data / 'lock'} cannot be made: {error.strerror}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            raise CannotServe(
                f"another daemon (pid {holder}) serves {self.data}: stop it first, or give another --data"
            ) from None
        # One block, kept for ever: a full disk is no reason not to serve.
        os.pwrite(fd, f"{os.getpid()}\n".ljust(32).encode(), 0)
        return fd

    def check_database(self, cluster: Cluster, *, accepted: bool) -> None:
        """Refuse a database that is older than what this host has obeyed: restored from a backup, or begun anew.

        What such a database does not know would be taken for leftovers, and removed. The revision of each network's
        last wanted state, which the agent keeps, tells how far the database was. `accepted`: the agent forgets what
        it obeyed, so that orders of the older database are not refused as stale, and repair removes what has no row.

        Raises:
            CannotServe: it is older, and that was not accepted.
        """
        kept = self.data / "agent"
        obeyed = max((_generation(path) for path in (kept / "networks").glob("*.json")), default=0)
        if obeyed <= cluster.revision:
            return
        if accepted:
            for folder in ("networks", "records"):
                shutil.rmtree(kept / folder, ignore_errors=True)
            return
        disks = {path.stem for path in (self.data / "pool" / "volumes").glob("*.qcow2")} - set(cluster.volumes)
        named = ", ".join(sorted(disks)[:5])
        raise CannotServe(
            f"the database in {self.data} is older than this host: it stands at revision {cluster.revision}, and "
            f"orders up to {obeyed} were obeyed. It does not know {len(disks)} disks here ({named}), "
            "which would be removed. Restore a newer database; or save those disks from pool/volumes, "
            "then start once with --accept-database"
        )

    def host_id(self) -> HostId:
        """This machine's id, drawn once, durable before anybody hears it.

        Raises:
            CannotServe: the file is damaged.
        """
        path = self.data / "host-id"
        if not path.exists():
            draft = path.with_suffix(".draft")
            with draft.open("w") as file:
                file.write(f"h-{uuid.uuid4().hex[:12]}\n")
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
            sync_folder(self.data)
        found = path.read_text().strip()
        if re.fullmatch("h-[0-9a-f]{12}", found) is None:
            raise CannotServe(
                f"{path} is damaged. This finds what belongs there, most often named first: "
                f"grep -aoE 'h-[0-9a-f]{{12}}' {self.data / 'innkeeper.db'} | sort | uniq -c | sort -rn"
            )
        return HostId(found)


def _drawn_from(data: Path) -> int:
    return int.from_bytes(hashlib.sha256(str(data.resolve()).encode()).digest()[:8], "big")


def _generation(path: Path) -> int:
    try:
        return decode(path.read_text(), NetworkWanted).generation
    except (NotReadable, OSError):
        return 0  # torn by a power failure; the others tell
