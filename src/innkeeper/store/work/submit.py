"""Accepting plans: each is held against the standing as it is at that instant, and stands or leaves no trace."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

from immutables import Map

from innkeeper.model.cluster import Cluster, Usage, name_key
from innkeeper.model.ids import InstanceId, Kind, NetworkId, OperationId, Ref
from innkeeper.model.instance import Instance
from innkeeper.model.network import Nic
from innkeeper.model.plans import Change, Drop, Noun, Plan, Put
from innkeeper.model.template import MemoryImage
from innkeeper.model.work import Operation, OperationState, Several, Stale, Submission
from innkeeper.plan.size import capacity
from innkeeper.store.database.rows import sealed
from innkeeper.store.work import family
from innkeeper.store.work.referred import forget, orphans
from innkeeper.store.work.standing import Draft


def submit(draft: Draft, submissions: Sequence[Submission]) -> tuple[Operation | Stale, ...]:
    return tuple(_one(draft, submission) for submission in submissions)


def _one(draft: Draft, submission: Submission) -> Operation | Stale:
    earlier = draft.earlier(submission.principal, submission.key) or draft.latest.get(submission.operation)
    earlier = earlier or draft.standing.operations.get(submission.operation)
    if earlier is not None:
        return earlier
    if isinstance(submission.plan, Several):
        return _several(draft, submission, submission.plan)
    return _planned(draft, submission, submission.plan)


def _several(draft: Draft, submission: Submission, several: Several) -> Operation | Stale:
    """The parent with all of its parts, or nothing. Whoever is busy may be so for long: such a part is refused alone,
    unless that leaves none."""
    mark = draft.mark()
    parent = _operation(submission, several, steps=len(several.parts) + len(several.refused))
    draft.accepted.append((parent.id, submission.key))
    draft.remember(submission.principal, submission.key, parent)
    family.open_parent(draft, parent, several.refused)
    refused = 0
    for id, plan in several.parts:
        part = replace(submission, operation=id, plan=plan, key=None)
        answer = _planned(draft, part, plan, parent.id)
        if isinstance(answer, Operation):
            continue
        refused += 1
        if answer.busy is None or refused == len(several.parts):
            draft.rewind(mark)
            return answer
        family.refuse(draft, parent.id, f"{answer.what}: operation {answer.busy} holds it")
    return draft.latest[parent.id]


def _planned(draft: Draft, submission: Submission, plan: Plan, parent: OperationId | None = None) -> Operation | Stale:
    stale = _busy(draft.cluster, plan) or _unexpected(draft.cluster, plan)
    if stale is not None:
        return stale
    after = draft.cluster.after(plan.accept, draft.revision)
    stale = clash(draft.cluster, after, plan.accept) or _no_room(draft, after, plan.accept)
    if stale is not None:
        return stale
    body = sealed(submission.operation, plan)
    apply(draft, plan.accept, after)
    operation = _operation(submission, plan, steps=len(plan.steps))
    operation = replace(operation, subjects=plan.subjects, parent=parent)
    operation = draft.keep(operation, operation.state.value, write=True)
    draft.accepted.append((operation.id, submission.key))
    draft.remember(submission.principal, submission.key, operation)
    draft.plans.append({"operation": operation.id, **body})
    draft.change(plans=draft.standing.plans.set(operation.id, plan))
    family.follow(draft, operation)
    _take_over(draft, plan, operation, submission.at)
    draft.claim(plan.claims, operation.id)
    return operation


def _operation(submission: Submission, of: Plan | Several, steps: int) -> Operation:
    return Operation(
        id=submission.operation,
        project=submission.project,
        verb=of.verb,
        title=of.title,
        subjects=(),
        principal=submission.principal,
        state=OperationState.PENDING,
        created_at=submission.at,
        updated_at=submission.at,
        steps=steps,
        asked=submission.asked,
    )


def _take_over(draft: Draft, plan: Plan, by: Operation, at: float) -> None:
    """Those who held the claims end where they are. Their rows stay: the new plan owns the objects."""
    for holder in sorted({draft.cluster.claims[ref] for ref in plan.claims if ref in draft.cluster.claims}):
        old = draft.standing.operations[holder]
        release(draft, holder)
        ended = replace(old, state=OperationState.CANCELLED, updated_at=at, error=f"taken over by {by.id}", hint="")
        ended = draft.keep(ended, ended.state.value, write=True)
        family.follow(draft, ended)


def release(draft: Draft, operation: OperationId) -> None:
    """All claims that the operation holds."""
    plan = draft.standing.plans[operation]
    draft.claim((ref for ref in plan.claims if draft.cluster.claims.get(ref) == operation), None)


def apply(draft: Draft, changes: Iterable[Change], after: Cluster) -> None:
    """Rows put and dropped, which leads to the picture `after`, and announced."""
    before, reports, dropped = draft.cluster, draft.standing.reports, list[Noun]()
    for change in changes:
        ref = _ref(change)
        draft.touched.add(ref)
        if isinstance(change, Put):
            draft.say("object", "created" if before.get(ref) is None else "changed", ref=ref)
        elif (noun := before.get(ref)) is not None:
            dropped.append(noun)
            draft.say("object", "dropped", ref=ref)
            reports = reports.delete(ref) if ref in reports else reports
            if ref.kind is Kind.INSTANCE:
                draft.machines.add(InstanceId(ref.id))
    if secrets := orphans(dropped, after):
        draft.others.append(partial(forget, secrets=secrets))
    draft.change(cluster=after, reports=reports)


# --- objections


def _busy(cluster: Cluster, plan: Plan) -> Stale | None:
    if plan.takes_over:
        return None
    for ref in plan.claims:
        holder = cluster.claims.get(ref)
        if holder is not None:
            return Stale(what=f"{_called(cluster, ref)} is busy", busy=holder)
    return None


def _unexpected(cluster: Cluster, plan: Plan) -> Stale | None:
    for expect in plan.expects:
        found = cluster.generation(expect.ref)
        if found == expect.generation:
            continue
        called = _called(cluster, expect.ref)
        if expect.generation is None:
            return Stale(what=f"{called} exists by now")
        if found is None:
            return Stale(what=f"{called} is gone")
        return Stale(what=f"{called} has changed meanwhile (generation {found}, planned for {expect.generation})")
    return None


def clash(before: Cluster, after: Cluster, changes: Sequence[Change]) -> Stale | None:
    """What two objects would hold: judged by the end of the changes, since within them names may be handed round."""
    for change in changes:
        noun = None if isinstance(change, Drop) else after.get(change.noun.ref)
        if noun is None:
            continue
        for what, then, now in _holders(before, after, noun):
            other = now if now != noun.id else then
            if other is None or other == noun.id:
                continue
            rival = after.get(Ref(noun.ref.kind, other))
            if rival is not None and any(what == w for w, _, _ in _holders(before, after, rival)):
                return Stale(what=f"{what} is taken by {_called(after, rival.ref)}")
    return None


Held = tuple[str, str | None, str | None]


def _holders(before: Cluster, after: Cluster, noun: Noun) -> list[Held]:
    """What only one may hold, in words, with who held it before and who holds it after."""
    key = name_key(noun)
    held: list[Held] = [(_naming(key), before.names.get(key), after.names.get(key))]
    match noun:
        case Instance():
            slots = [c.uid_slots.get(noun.host, Map[int, InstanceId]()).get(noun.uid_slot) for c in (before, after)]
            held.append((f"user slot {noun.uid_slot} of host {noun.host}", slots[0], slots[1]))
        case Nic():
            held.append((f"MAC {noun.mac}", before.macs.get(noun.mac), after.macs.get(noun.mac)))
            for address in noun.addresses:
                pair = [_holder(c, noun.network, address) for c in (before, after)]
                held.append((f"address {address} in network {noun.network}", pair[0], pair[1]))
        case _:
            pass
    return held


def _holder(cluster: Cluster, network: NetworkId, address: str) -> str | None:
    held = cluster.addresses.get(network)
    return None if held is None else held.get(address)


def _naming(key: tuple[Kind, str, str]) -> str:
    kind, project, name = key
    return f"{kind.value} name {name}" + (f" in project {project}" if project else "")


def _no_room(draft: Draft, after: Cluster, changes: Sequence[Change]) -> Stale | None:
    """Only growth needs room: what stands may be stopped or renamed on a host that has shrunk."""
    before = draft.cluster
    nouns = (change.noun for change in changes if isinstance(change, Put))
    for host in sorted({noun.host for noun in nouns if isinstance(noun, Instance | MemoryImage)}):
        used, had = after.usage.get(host, Usage()), before.usage.get(host, Usage())
        row = after.hosts.get(host)
        total = Usage() if row is None else capacity(row)
        draft.growing.add(host)
        for unit, what, now, then, most in (
            ("vCPUs", "", used.vcpus, had.vcpus, total.vcpus),
            ("MiB", " of memory", used.memory_mib, had.memory_mib, total.memory_mib),
            ("GiB", " of disk", used.disk_gib, had.disk_gib, total.disk_gib),
        ):
            if now > then and now > most:
                name = host if row is None else row.name
                left = max(0, most - then)
                words = f"{left} {unit}{what} are left, {now - then} {unit} more are asked for"
                return Stale(what=f"host {name} has no room: {words}")
    return None


def _called(cluster: Cluster, ref: Ref) -> str:
    """A claim on a name has the name itself in its id, after the project."""
    noun = cluster.get(ref)
    return f"{ref.kind.value} {ref.id.rpartition('/')[2] if noun is None else noun.name}"


def _ref(change: Change) -> Ref:
    return change.ref if isinstance(change, Drop) else change.noun.ref
