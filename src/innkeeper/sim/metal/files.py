"""Files of a simulated guest: a tree with folders, links, pipes and one device, as strict as a kernel.

A few folders are always there; whatever else is was made by somebody. Nothing has an owner.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from posixpath import basename, dirname, join

_LINKS_MOST = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestFile:
    """`mode` says its kind as well, as in `st_mode`. The data of a link is where it leads."""

    mode: int
    data: bytes = b""


_ALWAYS = {path: GuestFile(mode=stat.S_IFDIR | 0o755) for path in ("/", "/dev", "/etc", "/root", "/tmp")}
_ALWAYS["/dev/null"] = GuestFile(mode=stat.S_IFCHR | 0o666)


class Tree:
    """A view on what was made on one disk. Paths that do not begin at the root begin in root's home."""

    def __init__(self, made: dict[str, GuestFile]) -> None:
        self._made = made

    def end_of(self, path: str) -> str | None:
        """Where a path ends once all links are followed; nothing need be there. None: there is no way."""
        rest, at, links = join("/root", path).split("/"), "/", 0
        while rest:
            part = rest.pop(0)
            if part in ("", "."):
                continue
            if not self.is_folder(at) or links > _LINKS_MOST:
                return None
            found = self._at(here := dirname(at) if part == ".." else join(at, part))
            if found is not None and stat.S_ISLNK(found.mode):
                rest, links = [*found.data.decode().split("/"), *rest], links + 1
                at = "/" if found.data.startswith(b"/") else at
            else:
                at = here
        return None if path.endswith("/") and not self.is_folder(at) else at

    def entry_of(self, path: str) -> str | None:
        """As `end_of`, but the last part is not followed."""
        folder = self.end_of(dirname(path) or ".")
        name = basename(path)
        return self.end_of(path) if name in ("", ".", "..") or folder is None else join(folder, name)

    def read(self, path: str) -> GuestFile | None:
        end = self.end_of(path)
        return None if end is None else self._at(end)

    def entry(self, path: str) -> GuestFile | None:
        """Not followed, where it is a link."""
        end = self.entry_of(path)
        return None if end is None else self._at(end)

    def make(self, path: str, file: GuestFile) -> bool:
        """False: there is no folder for it, or something is there."""
        end = self.entry_of(path)
        if end is None or self._at(end) is not None or not self.is_folder(dirname(end)):
            return False
        self._made[end] = file
        return True

    def write(self, path: str, file: GuestFile) -> bool:
        """In place of what is at the path's end, which is no folder. False: there can be no file."""
        end = self.end_of(path)
        if end is None or self.is_folder(end) or not self.is_folder(dirname(end)):
            return False
        self._made[end] = file
        return True

    def move(self, path: str, target: str) -> bool:
        """A file; as rename(2) does, a link at the target is replaced, not followed."""
        source, end = self.entry_of(path), self.entry_of(target)
        if source not in self._made or end is None or not self.is_folder(dirname(end)) or self.is_folder(end):
            return False
        self._made[end] = self._made.pop(source)
        return True

    def remove(self, path: str) -> None:
        """With all that is in it. What is always there stays."""
        end = self.entry_of(path)
        for made in [made for made in self._made if made == end or made.startswith(f"{end}/")]:
            del self._made[made]

    def is_folder(self, path: str) -> bool:
        found = self._at(path)
        return found is not None and stat.S_ISDIR(found.mode)

    def _at(self, path: str) -> GuestFile | None:
        return self._made.get(path) or _ALWAYS.get(path)
