"""How far a build is, told from what mmdebstrap says. Pure.

mmdebstrap has no total, but apt says how many packages it is going to install before it starts, so each package can be
counted in the stage that it is in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# What mmdebstrap announces, how far that is, and how we say it.
_STAGES = (
    ("I: running apt-get update", 0.02, "reading the mirror's package lists"),
    ("I: downloading packages with apt", 0.08, "downloading packages"),
    ("I: extracting archives", 0.20, "unpacking packages"),
    ("I: installing essential packages", 0.25, "installing the essential packages"),
    ("I: installing remaining packages", 0.40, "installing packages"),
    ("I: running --customize-hook", 0.82, "adjusting the system"),
    ("I: success", 0.85, "packages are in place"),
)
_NEWLY = re.compile(r"(\d+) newly installed")
_GET = re.compile(r"Get:\d+ .* (\S+) \S+ \S+ \[")
_WORK = re.compile(r"(Unpacking|Setting up) (\S+)")


@dataclass(slots=True)
class Listener:
    """Feed it every line; ask for the fraction and the words after each."""

    fraction: float = 0.0
    words: str = "starting"
    _stage: int = -1
    _expected: int = 0
    _seen: int = 0

    def hear(self, line: str) -> bool:
        """True when something changed."""
        for index, (mark, fraction, words) in enumerate(_STAGES):
            if line.startswith(mark) and index > self._stage:
                self._stage, self._expected, self._seen = index, 0, 0
                self.fraction, self.words = fraction, words
                return True
        if found := _NEWLY.search(line):
            self._expected = int(found[1])
        return self._package(line)

    def _package(self, line: str) -> bool:
        found = _GET.match(line) or _WORK.match(line)
        if not found or not self._expected or not 0 <= self._stage < len(_STAGES) - 1:
            return False
        self._seen += 1
        # Downloading passes each package once, installing twice.
        passes = self._expected * (1 if line.startswith("Get:") else 2)
        start, end = _STAGES[self._stage][1], _STAGES[self._stage + 1][1]
        self.fraction = start + (end - start) * min(1.0, self._seen / passes)
        self.words = f"{_STAGES[self._stage][2]} ({found[found.lastindex or 1]})"
        return True
