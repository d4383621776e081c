"""Start, stop, restart, pause, resume, rename: what is done to one standing instance.

Every plan raises the instance's generation with its acceptance, and raises it again where it puts a row back: an order
of the plan is never newer than what is planned after it.
"""

from __future__ import annotations

from dataclasses import replace

from innkeeper.model.actions import PauseMachine, ResumeMachine, StopMachine
from innkeeper.model.cluster import Cluster
from innkeeper.model.ids import Kind
from innkeeper.model.instance import Instance, Volume, Wanted
from innkeeper.model.network import Nic
from innkeeper.model.observed import Ended, MachineState, Phase
from innkeeper.model.plans import Change, Expect, NoUndo, Plan, Put, Refusal, Step, Verb, Why
from innkeeper.model.template import Image
from innkeeper.plan.disks.layers import chains
from innkeeper.plan.names import bad_name, name_claim, taken
from innkeeper.plan.steps import cards, converge, make, seed_action, start_action, step

# How long a guest may take to shut down before it is ended. Incus waits 30 s, systemd itself gives services 90 s.
GRACE_S = 60.0
DOWN = (Phase.STOPPED, Phase.CRASHED)
WANTED_UP = (Wanted.RUNNING, Wanted.PAUSED)


def is_up(cluster: Cluster, instance: Instance) -> bool:
    """Whether QEMU was last seen running. One that is there and does not answer (UNKNOWN) is up too."""
    state = cluster.machines.get(instance.id)
    return state is not None and state.phase not in DOWN


def returns(instance: Instance, seen: MachineState) -> bool:
    """Whether it is down only because its host was started anew, and will be started by us."""
    return instance.wanted in WANTED_UP and instance.autostart and seen.phase in DOWN and seen.ended is Ended.HOST_BOOT


def start(cluster: Cluster, instance: Instance) -> Plan | Refusal:
    refusal = gone(instance) or _running(cluster, instance)
    if refusal is not None:
        return refusal
    image = image_of(cluster, instance)
    if isinstance(image, Refusal):
        return image
    wanted = replace(instance, wanted=Wanted.RUNNING, generation=instance.generation + 1)
    steps = (*converge(cluster, wanted, NoUndo.NOTHING), start_step(cluster, wanted, image))
    return _plan(Verb.START, wanted, back=replace(instance, wanted=Wanted.STOPPED), steps=steps)


def stop(cluster: Cluster, instance: Instance, *, force: bool, grace_s: float = GRACE_S) -> Plan | Refusal:
    """Asked to, then forced after `grace_s`. With `force` at once, over the head of any operation that holds it."""
    refusal = gone(instance) or (None if force else _not_running(cluster, instance))
    if refusal is not None:
        return refusal
    wanted = replace(instance, wanted=Wanted.STOPPED, generation=instance.generation + 1)
    plan = _plan(Verb.STOP, wanted, back=instance, steps=(_stop(wanted, 0 if force else grace_s),))
    return _made_whole(cluster, wanted, replace(plan, takes_over=True)) if force else plan


def _made_whole(cluster: Cluster, wanted: Instance, plan: Plan) -> Plan:
    """A launch that is taken over may have got nowhere: what it had not made yet is made, so that the instance can
    start.

    Whoever holds the disk together with the instance is launching it, or publishing it, which has all of this already.
    """
    holder, disks = cluster.claims.get(wanted.ref), cluster.disks(wanted.id)
    if holder is None or any(cluster.claims.get(disk.ref) != holder for disk in disks):
        return plan
    claims = (*plan.claims, *(d.ref for d in disks))
    return replace(plan, claims=claims, steps=(*plan.steps, *make(cluster, wanted)))


def restart(cluster: Cluster, instance: Instance, *, force: bool, grace_s: float = GRACE_S) -> Plan | Refusal:
    """If it fails, the row is as before: then the machine runs on, or repair settles that it does not."""
    refusal = gone(instance) or _not_running(cluster, instance)
    if refusal is not None:
        return refusal
    image = image_of(cluster, instance)
    if isinstance(image, Refusal):
        return image
    wanted = replace(instance, wanted=Wanted.RUNNING, generation=instance.generation + 1)
    again = (*converge(cluster, wanted, NoUndo.NOTHING), start_step(cluster, wanted, image))
    plan = _plan(Verb.RESTART, wanted, back=instance, steps=(_stop(wanted, 0 if force else grace_s), *again))
    return replace(plan, takes_over=force)


def pause(cluster: Cluster, instance: Instance) -> Plan | Refusal:
    phase = cluster.phase(instance.id)
    if (refusal := gone(instance)) is not None:
        return refusal
    if phase not in (Phase.RUNNING, Phase.STARTING):
        return _conflict(f"{instance.name} is not running", f"It is {phase.value}: inn show {instance.name}")
    wanted = replace(instance, wanted=Wanted.PAUSED, generation=instance.generation + 1)
    action, undo = PauseMachine(instance=instance.id), ResumeMachine(instance=instance.id)
    return _plan(Verb.PAUSE, wanted, back=instance, steps=(step(wanted, wanted.ref, action, undo),))


def resume(cluster: Cluster, instance: Instance) -> Plan | Refusal:
    """Also after a pause for want of disk space."""
    phase = cluster.phase(instance.id)
    if (refusal := gone(instance)) is not None:
        return refusal
    if phase not in (Phase.PAUSED, Phase.NO_SPACE):
        return _conflict(f"{instance.name} is not paused", f"It is {phase.value}: inn show {instance.name}")
    wanted = replace(instance, wanted=Wanted.RUNNING, generation=instance.generation + 1)
    action, undo = ResumeMachine(instance=instance.id), PauseMachine(instance=instance.id)
    return _plan(Verb.RESUME, wanted, back=instance, steps=(step(wanted, wanted.ref, action, undo),))


def rename(cluster: Cluster, instance: Instance, name: str) -> Plan | Refusal:
    """The network's name service follows at once, the guest's own host name when it boots next.

    Its disks and cards are named after it, so that a later instance of the old name finds those names free. Both
    names are claimed: until all is done the old one may be needed again.
    """
    refusal = gone(instance) or bad_name(name, Kind.INSTANCE)
    if refusal is None and name == instance.name:
        refusal = _conflict(f"{name} is its name already", "Choose another name")
    if refusal := refusal or taken(cluster, instance.project, name):
        return refusal
    wanted = replace(instance, name=name, generation=instance.generation + 1)
    parts: tuple[Volume | Nic, ...] = (*cluster.disks(instance.id), *cluster.cards(instance.id))
    named = tuple(_named(part, name) for part in parts)
    unnamed = tuple(Put(noun=replace(part, generation=part.generation + 2)) for part in parts)
    held = cards(cluster, instance)
    seed = step(wanted, wanted.ref, seed_action(wanted, held), seed_action(instance, held))
    plan = _plan(Verb.RENAME, wanted, back=None, steps=(seed, *converge(cluster, wanted)))
    names = (name_claim(Kind.INSTANCE, instance.project, n) for n in (instance.name, name))
    back = replace(instance, generation=wanted.generation + 1)
    return replace(
        plan,
        title=f"rename {instance.name} to {name}",
        expects=(*plan.expects, *(Expect(ref=part.ref, generation=part.generation) for part in parts)),
        claims=(*plan.claims, *(part.ref for part in parts), *names),
        accept=(*plan.accept, *named),
        retreat=(Put(noun=back), *unnamed),
    )


def _named(part: Volume | Nic, owner: str) -> Change:
    """`web/root` of an instance that is called `www` from now on."""
    name = f"{owner}/{part.name.rpartition('/')[2]}"
    return Put(noun=replace(part, name=name, generation=part.generation + 1))


# --- refusals


def gone(instance: Instance) -> Refusal | None:
    """An instance on its way out is left to go."""
    if instance.wanted is not Wanted.ABSENT:
        return None
    return _conflict(
        f"{instance.name} is being deleted", f"Wait until it is gone: inn wait {instance.name} --for deleted"
    )


def _running(cluster: Cluster, instance: Instance) -> Refusal | None:
    if not is_up(cluster, instance):
        return None
    name = instance.name
    match cluster.phase(instance.id):
        case Phase.PAUSED:
            return _conflict(f"{name} is paused", f"Let it go on: inn resume {name}")
        case Phase.NO_SPACE:
            return _conflict(f"{name} is paused, for the pool is full", f"Make room, then: inn resume {name}")
        case Phase.PANICKED:
            return _conflict(f"the kernel of {name} has panicked", f"Start it anew: inn restart {name} --force")
        case Phase.UNKNOWN:
            return _conflict(f"{name} is there and does not answer", f"End it first: inn stop {name} --force")
        case _:
            return _conflict(f"{name} is running already", f"Start it anew: inn restart {name}")


def _not_running(cluster: Cluster, instance: Instance) -> Refusal | None:
    if is_up(cluster, instance):
        return None
    return _conflict(f"{instance.name} is not running", f"Start it: inn start {instance.name}")


def image_of(cluster: Cluster, instance: Instance) -> Image | Refusal:
    """What the machine's disk lies over, and where its kernel may come from."""
    template = cluster.templates.get(instance.template)
    if template is not None and template.image is not None:
        return template.image
    called = instance.template if template is None else template.full_name
    return _conflict(
        f"{instance.name} cannot be started: its template {called} is gone, and its disk is a layer over that",
        f"Nothing can bring it back; delete it: inn delete {instance.name}",
    )


def _conflict(reason: str, hint: str) -> Refusal:
    return Refusal(why=Why.CONFLICT, reason=reason, hint=hint)


# --- plans


def _stop(wanted: Instance, grace_s: float) -> Step:
    return step(wanted, wanted.ref, StopMachine(instance=wanted.id, grace_s=grace_s), NoUndo.NOTHING)


def start_step(cluster: Cluster, wanted: Instance, image: Image) -> Step:
    """`cluster` knows the volumes that the instance stands on."""
    action = start_action(wanted, image, chains(cluster, wanted))
    return step(wanted, wanted.ref, action, StopMachine(instance=wanted.id, grace_s=0))


def _plan(verb: Verb, wanted: Instance, *, back: Instance | None, steps: tuple[Step, ...]) -> Plan:
    """`wanted` is one generation above what was seen; `back` is what the row says again when all was undone."""
    abandon = () if back is None else (Put(noun=replace(back, generation=wanted.generation + 1)),)
    return Plan(
        verb=verb,
        title=f"{verb.value} {wanted.name}",
        subjects=(wanted.ref,),
        expects=(Expect(ref=wanted.ref, generation=wanted.generation - 1),),
        claims=(wanted.ref,),
        accept=(Put(noun=wanted),),
        steps=steps,
        abandon=abandon,
    )
