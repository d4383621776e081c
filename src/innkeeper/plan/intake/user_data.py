"""Whether user-data can mean anything to cloud-init, before a machine is launched with it.

User-data is passed on byte for byte; this only finds what would silently do nothing: a beginning that cloud-init
ignores with a line in a log inside the guest, and YAML that it cannot load. What a #cloud-config says is not judged:
that is the schema of the guest's cloud-init, whose version we do not know.

YAML from strangers can be a bomb: nesting that exhausts the stack, merges (`<<`) that multiply with each line, half a
million values in a mebibyte, a number whose digits take minutes. So its events are walked and bounded first, which
needs neither recursion nor expansion and ends with the first excess, and only then are values built. What is let
through may still take half a second: callers that serve others check in a thread.

Messages never repeat what user-data says: it may hold secrets. YAML's own words name tags and single characters only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import yaml

SIZE_BYTES_MAX = 1 << 20
_DEPTH_MAX = 100
_ALIASES_MAX = 1000
_ALIASES_WITH_MERGES_MAX = 30
# Mappings, lists and single values, each alias counted as all that it stands for: so much may merges make. Real ones
# have hundreds.
_PARTS_MAX = 50_000
_NUMBER_MAX = 1000  # characters; 1:30:00 is a number to the base of 60, whose value takes the square of its length

# cloud-init loads with PyYAML's own scanner, which is stricter than libyaml in a few corners, and twelve times slower.
_EXACT_MAX = 32 << 10  # characters
_EXACT_PARTS_MAX = 5000

_NUMERIC = "0123456789:_+-. \t\r\n"

_BOM = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"
# cloud-init skips leading blanks and regards no case; it looks for MIME's header in the first 4096 bytes.
_MIME = b"mime-version:"
_MIME_WITHIN = 4096
_CLOUD_CONFIG = b"#cloud-config"
_ARCHIVE = b"#cloud-config-archive"
_OTHERS = (
    b"#cloud-config-jsonp",
    b"#!",
    b"#include",  # and #include-once
    b"#cloud-boothook",
    b"#part-handler",
    b"#upstart-job",
    b"## template: jinja",
)
# What the constructors of PyYAML let through for values that a tag, or their look, gives a type that they do not fit.
_ODD_VALUES = (ValueError, LookupError, TypeError, AttributeError, OverflowError)
_KNOWN = "#cloud-config, #! (a script), #include, #cloud-boothook, #part-handler, ## template: jinja"


def check_user_data(data: bytes) -> str | None:
    """None if it is fine; else what is wrong, with the place where there is one."""
    if not data.strip():
        return "user-data is empty"
    if len(data) > SIZE_BYTES_MAX:
        return f"user-data has {len(data)} bytes, more than {SIZE_BYTES_MAX}: let the guest fetch the rest by #include"
    if data.startswith(_GZIP) or _MIME in data[:_MIME_WITHIN].lower():
        return None
    if data.startswith(_BOM):
        return "user-data begins with a byte order mark, which hides its first line: save it as plain UTF-8"
    return _check_text(data, data.lstrip()[:64].lower())


def _check_text(data: bytes, start: bytes) -> str | None:
    if start.startswith(_OTHERS):
        return None
    if start.startswith(_ARCHIVE):
        return _check_yaml(data, yaml.SequenceStartEvent, "a list")
    if start.startswith(_CLOUD_CONFIG):
        return _check_yaml(data, yaml.MappingStartEvent, "a mapping (key: value)")
    if start.startswith(b"content-type:"):
        return "user-data is MIME without the header «MIME-Version: 1.0», and cloud-init would not take it for MIME"
    return f"user-data begins with nothing that cloud-init knows; its first line must be {_KNOWN}, or MIME headers"


def _check_yaml(data: bytes, wanted: type[yaml.Event], words: str) -> str | None:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        return f"user-data is not UTF-8 text: byte {error.start + 1} cannot be read"
    try:
        counts = _Counts()
        problem = _check_events(text, counts, wanted, words)
        if problem is None and isinstance(_load(text, counts.extent.parts), set):
            problem = f"user-data must be {words}, not a set (!!set)"
    except yaml.MarkedYAMLError as error:
        return f"user-data is not valid YAML: {_place(error.problem_mark)}{error.problem or error.context}"
    except yaml.YAMLError as error:
        return f"user-data is not valid YAML: {_one_line(error)}"
    except _ODD_VALUES:
        return "user-data holds a value that does not fit its type in YAML, such as a date that never was, or !!int no"
    return problem


@dataclass(slots=True)
class _Extent:
    """How much there is, each alias counted as all that it stands for.

    `loops` are aliases within what they stand for. `opened` has the anchor of each collection that has not ended, and
    the parts before it; `standing_for` the parts that an alias of an anchor stands for, 0 while that is open.
    """

    parts: int = 0
    loops: int = 0
    opened: list[tuple[str | None, int]] = field(default_factory=list)
    standing_for: dict[str, int] = field(default_factory=dict)

    def add_value(self, anchor: str | None) -> None:
        self.parts += 1
        self._stand(anchor, 1)

    def add_alias(self, anchor: str | None) -> None:
        parts = self.standing_for.get(anchor or "", 1)
        self.loops += not parts
        self.parts += parts or 1

    def begin(self, anchor: str | None) -> None:
        self.opened.append((anchor, self.parts))
        self._stand(anchor, 0)
        self.parts += 1

    def end(self) -> None:
        anchor, before = self.opened.pop()
        self._stand(anchor, self.parts - before)

    def _stand(self, anchor: str | None, parts: int) -> None:
        if anchor is not None:
            self.standing_for[anchor] = parts


@dataclass(slots=True)
class _Counts:
    """Of what makes YAML dangerous, so far."""

    documents: int = 0
    aliases: int = 0
    merges: int = 0
    number_length: int = 0
    extent: _Extent = field(default_factory=_Extent)

    def add(self, event: yaml.Event) -> None:
        match event:
            case yaml.DocumentStartEvent():
                self.documents += 1
            case yaml.AliasEvent():
                self.aliases += 1
                self.extent.add_alias(event.anchor)
            case yaml.ScalarEvent():
                self._add_scalar(event)
            case yaml.CollectionStartEvent():
                self.extent.begin(event.anchor)
            case yaml.CollectionEndEvent():
                self.extent.end()
            case _:
                pass

    def _add_scalar(self, event: yaml.ScalarEvent) -> None:
        self.extent.add_value(event.anchor)
        self.merges += event.value == "<<"
        # A quoted one without a tag is text, whatever it looks like.
        if not event.implicit[1] and ":" in event.value and not event.value.strip(_NUMERIC):
            self.number_length = max(self.number_length, len(event.value))

    def excess(self) -> str | None:
        if len(self.extent.opened) > _DEPTH_MAX:
            return f"more than {_DEPTH_MAX} levels within each other"
        if self.aliases > (_ALIASES_WITH_MERGES_MAX if self.merges else _ALIASES_MAX):
            return f"{self.aliases} aliases (*name), more than anybody needs"
        if self.merges and self.extent.loops:
            return "an alias (*name) within what it stands for, beside merges (<<)"
        if self.number_length > _NUMBER_MAX:
            return f"a number of {self.number_length} characters: put it in quotes if it is text"
        if self.extent.parts > _PARTS_MAX:
            return f"more than {_PARTS_MAX} values (aliases count in full): let the guest fetch the rest by #include"
        return None


def _load(text: str, parts: int) -> object:
    if len(text) <= _EXACT_MAX and parts <= _EXACT_PARTS_MAX:
        return yaml.safe_load(text)
    return yaml.load(text, Loader=yaml.CSafeLoader)


def _check_events(text: str, counts: _Counts, wanted: type[yaml.Event], words: str) -> str | None:
    root: yaml.Event | None = None
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        counts.add(event)
        if root is None and isinstance(event, yaml.NodeEvent):
            root = event
        if excess := counts.excess():
            return f"user-data cannot be taken: {_place(event.start_mark)}{excess}"
    if counts.documents > 1:
        return f"user-data holds {counts.documents} YAML documents, cloud-init reads one: remove the lines with ---"
    empty = root is None or (isinstance(root, yaml.ScalarEvent) and not root.value)
    if not empty and not isinstance(root, wanted):
        return f"user-data must be {words} after its first line"
    return None


class _Mark(Protocol):
    """PyYAML has two classes of marks, one of them in C."""

    line: int
    column: int


def _place(mark: _Mark | None) -> str:
    return "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
