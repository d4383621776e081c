"""Names: which are allowed, and how an object is found by name or id prefix.

Names follow the rule of host names (RFC 1123 label), since guests and the network's name service use them as such.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from innkeeper.model.cluster import Cluster
from innkeeper.model.host import Host
from innkeeper.model.ids import PREFIXES, HostId, InstanceId, Kind, NetworkId, ProjectId, Ref, SnapshotId, TemplateId
from innkeeper.model.instance import Instance, Snapshot
from innkeeper.model.network import Network
from innkeeper.model.plans import Noun, Refusal, Why
from innkeeper.model.template import Template

_LABEL = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_ID_WORD = re.compile(r"(i|t|vol|net|nic|h|p|op|snap)-[0-9a-f]{12}")
_ID_BEGINNING = {kind: re.compile(rf"{prefix}-[0-9a-f]{{1,12}}") for kind, prefix in PREFIXES.items()}
_LABEL_KEY = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE_MOST = 255
_LABELS_MOST = 64
_PREFIX_MIN = 3  # characters; shorter prefixes find the wrong thing too easily

N = TypeVar("N", Instance, Template, Network, Host, Snapshot)


def bad_name(name: str, kind: Kind) -> Refusal | None:
    """Template names may hold dots too, as Debian's and Ubuntu's versions do; those of snapshots may be dates.

    Ids, and beginnings of them, are accepted wherever names are. So a name is neither an id of any kind nor what may be
    the beginning of one of its own kind; it would hide the object that has that id.
    """
    label = name.replace(".", "-") if kind in (Kind.TEMPLATE, Kind.SNAPSHOT) else name
    reason = f"{name[:70]!r} cannot be the name of {_an(kind.value)}"
    dated = kind is Kind.SNAPSHOT and label[:1].isdigit()
    if not _LABEL.fullmatch(f"d{label[1:]}" if dated else label):
        first = "" if kind is Kind.SNAPSHOT else ", begins with a letter"
        hint = f"A name has 1 to 63 of the characters a-z, 0-9 and -{first} and does not end with -"
        return Refusal(why=Why.INVALID, reason=reason, hint=hint)
    if _ID_WORD.fullmatch(name) or _ID_BEGINNING[kind].fullmatch(name):
        hint = "Choose one that cannot be taken for it: ids are accepted wherever names are"
        return Refusal(why=Why.INVALID, reason=f"{reason}: it reads as the beginning of an id", hint=hint)
    return None


def bad_labels(labels: Mapping[str, str]) -> Refusal | None:
    """They are shown on terminals and may become filters: short, printable, with keys that need no quoting."""
    hint = "A key has 1 to 63 letters, digits and . _ / -; a value up to 255 printable characters"
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key):
            return Refusal(why=Why.INVALID, reason=f"{key[:70]!r} cannot be the key of a label", hint=hint)
        if len(value) > _LABEL_VALUE_MOST or not value.isprintable():
            return Refusal(why=Why.INVALID, reason=f"label {key} cannot have {value[:70]!r} as its value", hint=hint)
    if len(labels) > _LABELS_MOST:
        reason = f"{len(labels)} labels are more than {_LABELS_MOST}"
        return Refusal(why=Why.INVALID, reason=reason, hint="Keep what you know elsewhere, and its key here")
    return None


def _an(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def name_claim(kind: Kind, project: ProjectId | None, name: str) -> Ref:
    """Claimed by whoever gives a name, or leaves one that it may have to go back to."""
    return Ref(kind, f"{project or ''}/{name}")


def taken(cluster: Cluster, project: ProjectId, name: str) -> Refusal | None:
    """Names of instances are unique in their project."""
    holder = cluster.named(Kind.INSTANCE, project, name)
    if holder is None:
        return None
    return Refusal(
        why=Why.CONFLICT,
        reason=f"there is an instance named {name} already ({holder})",
        hint=f"Choose another name, or delete that one: inn delete {name}",
    )


def find_instance(cluster: Cluster, project: ProjectId, word: str) -> Instance | Refusal:
    """By exact name, else by id or an unambiguous id prefix."""
    key = cluster.named(Kind.INSTANCE, project, word)
    if key is not None:
        return cluster.instances[InstanceId(key)]
    mine = (i for i in cluster.instances.values() if i.project == project)
    return _by_prefix(mine, word, Kind.INSTANCE, "See: inn list")


def find_template(cluster: Cluster, project: ProjectId, word: str) -> Template | Refusal:
    """By `name` (its newest version), `name:version`, id or id prefix.

    A word that fits one of everybody's and one of the project's own is refused: neither must hide the other. Planners
    give no such names; rows of older releases may have them.
    """
    name, _, version = word.partition(":")
    ready = [t for t in cluster.templates.values() if t.image is not None and t.project in (None, project)]
    found = [t for t in ready if t.name == name and (not version or str(t.version) == version)]
    if len({t.project for t in found}) > 1:
        return _two_owners(word, found)
    if found:
        return max(found, key=lambda t: t.version)
    return _by_prefix(ready, word, Kind.TEMPLATE, "See: inn template list; make one: inn template build RECIPE")


def _two_owners(word: str, found: Sequence[Template]) -> Refusal:
    """The newest of each side is named, so that either can be said by its id."""
    own = max((t for t in found if t.project is not None), key=lambda t: t.version)
    shared = max((t for t in found if t.project is None), key=lambda t: t.version)
    return Refusal(
        why=Why.CONFLICT,
        reason=f"{word} is everybody's {shared.full_name} ({shared.id}) and this project's own {own.full_name}"
        f" ({own.id})",
        hint=f"Say it by its id, or delete the one that is not needed: inn template delete {own.id}",
    )


def find_network(cluster: Cluster, project: ProjectId, word: str) -> Network | Refusal:
    key = cluster.named(Kind.NETWORK, project, word)
    if key is not None:
        return cluster.networks[NetworkId(key)]
    mine = (n for n in cluster.networks.values() if n.project == project)
    return _by_prefix(mine, word, Kind.NETWORK, "Each project has the network default")


def snapshot_named(cluster: Cluster, instance: Instance, name: str) -> Snapshot | None:
    key = cluster.named(Kind.SNAPSHOT, instance.project, f"{instance.id}/{name}")
    return None if key is None else cluster.snapshots[SnapshotId(key)]


def find_snapshot(cluster: Cluster, instance: Instance, word: str) -> Snapshot | Refusal:
    """Of this instance, by exact name, else by id or an unambiguous id prefix."""
    named = snapshot_named(cluster, instance, word)
    if named is not None:
        return named
    mine = cluster.snapshots_by_age(instance.id)
    return _by_prefix(mine, word, Kind.SNAPSHOT, f"See: inn snapshot list {instance.name}")


def find_host(cluster: Cluster, word: str) -> Host | Refusal:
    key = cluster.named(Kind.HOST, None, word)
    if key is not None:
        return cluster.hosts[HostId(key)]
    return _by_prefix(cluster.hosts.values(), word, Kind.HOST, "See: inn host list")


def template_versions(cluster: Cluster, project: ProjectId | None, name: str) -> tuple[Template, ...]:
    """All versions of a name, those being made included, oldest first."""
    found = (t for t in cluster.templates.values() if t.name == name and t.project == project)
    return tuple(sorted(found, key=lambda t: t.version))


def called(noun: Noun) -> str:
    """What people call it: a template by name and version."""
    return noun.full_name if isinstance(noun, Template) else noun.name


def template_by_id(cluster: Cluster, template: TemplateId) -> str:
    """Its full name, or its id where the template is gone."""
    found = cluster.templates.get(template)
    return template if found is None else found.full_name


def _by_prefix(nouns: Iterable[N], word: str, kind: Kind, hint: str) -> N | Refusal:
    found = [n for n in nouns if n.id == word or (len(word) >= _PREFIX_MIN and n.id.startswith(word))]
    if len(found) == 1:
        return found[0]
    if found:
        each = sorted(f"{n.id} ({called(n)})" for n in found)
        shown = ", ".join(each[:5]) + (f" and {len(each) - 5} more" if len(each) > 5 else "")
        return Refusal(
            why=Why.CONFLICT,
            reason=f"{word} is the beginning of {len(found)} {kind.value} ids: {shown}",
            hint="Write more of it, or the name",
        )
    return Refusal(why=Why.NOT_FOUND, reason=f"there is no {kind.value} named {word}", hint=hint)
