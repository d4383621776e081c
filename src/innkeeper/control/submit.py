"""From wish to operation: look, decide, submit.

Wishes that wait together are planned together, each on the picture that the ones before it leave, and committed
once. What the store finds stale is planned again on a newer picture, five times at most; what another operation
holds is refused with its name.

A wish for several is planned and committed alone, its parent with all that could be planned of it. What could not
be planned is counted in the parent, and that cannot be taken back: so it must not be for want of what was promised to
a neighbour in the batch, who may come to nothing. When it is all that was wished, the first refusal is the answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from innkeeper.model.cluster import Cluster
from innkeeper.model.ids import Draw, OperationId, ProjectId
from innkeeper.model.plans import Noun, Plan, Refusal, Why
from innkeeper.model.work import Operation, Several, Stale, Submission
from innkeeper.plan.names import called
from innkeeper.ports.clock import Clock
from innkeeper.ports.store import Pictures, StoreFailed, Works

log = logging.getLogger(__name__)

Decide = Callable[[Cluster, Draw, float], Plan | Refusal]
_TRIES = 5
_TOGETHER = 200
_BREATH = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """On whose behalf, for which project, when, under which idempotency key.

    `expects` are the generations of the object that the asker has seen; None: whatever it is by now. `asked` marks
    the request, so that another one under the same key is noticed; empty: nobody looks.
    """

    principal: str
    project: ProjectId
    at: float
    key: str | None = None
    expects: tuple[int, ...] | None = None
    asked: str = ""


def changed(noun: Noun, asking: Asking) -> Refusal | None:
    """Refused when the asker has seen another version than the one that is planned on."""
    if asking.expects is None or noun.generation in asking.expects:
        return None
    reason = f"{noun.ref.kind.value} {called(noun)} has changed since it was read"
    return Refusal(why=Why.CHANGED, reason=reason, hint="Look at it again, then decide again")


def as_before(earlier: Operation, asking: Asking) -> Operation | Refusal:
    """What a known key has led to; refused when it was another request that it came with."""
    if not (asking.asked and earlier.asked) or earlier.asked == asking.asked:
        return earlier
    reason = f"idempotency key {asking.key} came before with another request: operation {earlier.id} ({earlier.title})"
    return Refusal(why=Why.INVALID, reason=reason, hint="Give each new request a new key")


@dataclass(slots=True, kw_only=True)
class _Wish:
    """`title` is the parent's; without one there is one decision and no parent."""

    decides: Sequence[Decide]
    asking: Asking
    title: str | None = None
    answer: asyncio.Future[Operation | Refusal] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    tries: int = 0


class Submitter:
    """`entropy` returns fresh random bytes; a wish that is planned again draws anew."""

    def __init__(self, works: Works, pictures: Pictures, clock: Clock, entropy: Callable[[], bytes]) -> None:
        self._works = works
        self._pictures = pictures
        self._clock = clock
        self._entropy = entropy
        self._waiting: asyncio.Queue[_Wish] = asyncio.Queue()

    async def submit(self, decide: Decide, asking: Asking) -> Operation | Refusal:
        """The accepted operation, durable; or why not.

        A request that comes again under its key is answered as before, also when by now the wish would be refused.
        """
        return await self._answered(_Wish(decides=(decide,), asking=asking))

    async def submit_several(self, title: str, decides: Sequence[Decide], asking: Asking) -> Operation | Refusal:
        """The parent of one operation for each decision that is no refusal; all of them are accepted, or none is."""
        return await self._answered(_Wish(decides=decides, asking=asking, title=title))

    async def foreseen(self, decides: Sequence[Decide], asking: Asking) -> Operation | Refusal | None:
        """The answer, should nothing come of it now; None when some of it can be planned. Nothing is kept."""
        _, refused = await self._plan([_Wish(decides=decides, asking=asking)])
        return await self.earlier(asking) or refused[0][1] if refused else None

    async def _answered(self, wish: _Wish) -> Operation | Refusal:
        self._waiting.put_nowait(wish)
        answer = await wish.answer
        if isinstance(answer, Refusal):
            return await self.earlier(wish.asking) or answer
        return as_before(answer, wish.asking)

    async def earlier(self, asking: Asking) -> Operation | Refusal | None:
        """What the asker's key has led to before, or that it came with another request. None: it is new, or none."""
        found = None if asking.key is None else await self._works.earlier(asking.principal, asking.key)
        return None if found is None else as_before(found, asking)

    async def run(self) -> None:
        """Plans and submits what waits, endlessly."""
        while True:
            wishes = [await self._waiting.get()]
            while wishes[-1].title is None and not self._waiting.empty() and len(wishes) < _TOGETHER:
                wishes.append(self._waiting.get_nowait())
            alone = [] if wishes[-1].title is None else [wishes.pop()]
            for together in filter(None, (wishes, alone)):
                await self._served(together)

    async def _served(self, wishes: list[_Wish]) -> None:
        try:
            await self._together(wishes)
        except Exception as fault:
            # Whoever waits hears of it; the next wishes may fare better.
            log.exception("submitting failed in a way nobody thought of")
            for wish in wishes:
                if not wish.answer.done():
                    wish.answer.set_exception(fault)

    async def _together(self, wishes: list[_Wish]) -> None:
        planned, refused = await self._plan(wishes)
        try:
            answers = await self._works.submit([s for _, s in planned]) if planned else ()
        except StoreFailed as failed:
            refusal = Refusal(why=Why.UNAVAILABLE, reason=str(failed), hint="Nothing was changed")
            for wish in wishes:
                _answer(wish, refusal)
            return
        for (wish, _), answer in zip(planned, answers, strict=True):
            if isinstance(answer, Operation):
                _answer(wish, answer)
            else:
                self._again(wish, answer)
        # Only now: a twin of an accepted wish, refused for its name is taken, finds what its key has led to.
        unmade = any(isinstance(a, Stale) or a.id != s.operation for (_, s), a in zip(planned, answers, strict=True))
        for wish, reason in refused:
            if unmade:
                self._again(wish, reason)  # it may have been refused for what never came to be
            else:
                _answer(wish, reason)

    async def _plan(self, wishes: list[_Wish]) -> tuple[list[tuple[_Wish, Submission]], list[tuple[_Wish, Refusal]]]:
        """Each on the picture that the ones before it leave. What is planned, and what is refused."""
        cluster, now = self._pictures.cluster(), self._clock.now()
        planned: list[tuple[_Wish, Submission]] = []
        refused: list[tuple[_Wish, Refusal]] = []
        for wish in wishes:
            parts: list[tuple[OperationId, Plan]] = []
            reasons: list[Refusal] = []
            for number, decide in enumerate(wish.decides, 1):
                draw = Draw(self._entropy())
                plan = _decided(decide, cluster, draw, now)
                if isinstance(plan, Refusal):
                    reasons.append(plan)
                    continue
                parts.append((OperationId(draw.id("op")), plan))
                cluster = cluster.after(plan.accept, cluster.revision).claimed(plan.claims, parts[-1][0])
                if number % _BREATH == 0:
                    await asyncio.sleep(0)  # others are to be served meanwhile
            if parts:
                planned.append((wish, self._submission(wish, parts, reasons, now)))
            else:
                refused.append((wish, reasons[0]))
        return planned, refused

    def _submission(
        self, wish: _Wish, parts: list[tuple[OperationId, Plan]], refused: list[Refusal], now: float
    ) -> Submission:
        (id, plan), asking = parts[0], wish.asking
        several: Several | None = None
        if wish.title is not None:
            id, reasons = OperationId(Draw(self._entropy()).id("op")), tuple(map(str, refused))
            several = Several(verb=plan.verb, title=wish.title, parts=tuple(parts), refused=reasons)
        return Submission(
            operation=id,
            project=asking.project,
            principal=asking.principal,
            at=now,
            plan=several or plan,
            key=asking.key,
            asked=asking.asked,
        )

    def _again(self, wish: _Wish, reason: Stale | Refusal) -> None:
        wish.tries += 1
        if isinstance(reason, Stale) and reason.busy is not None:
            hint = f"Wait for it: inn operation wait {reason.busy}; an instance is taken over by stop or delete --force"
            _answer(wish, Refusal(why=Why.BUSY, reason=f"{reason.what}: operation {reason.busy} holds it", hint=hint))
        elif wish.tries < _TRIES:
            self._waiting.put_nowait(wish)
        elif isinstance(reason, Stale):
            _answer(wish, Refusal(why=Why.BUSY, reason=f"{reason.what}, {_TRIES} times in a row", hint="Try again"))
        else:
            _answer(wish, reason)


def _decided(decide: Decide, cluster: Cluster, draw: Draw, now: float) -> Plan | Refusal:
    try:
        return decide(cluster, draw, now)
    except Exception as fault:
        log.exception("planning failed")
        reason = f"a fault in Innkeeper itself: {fault!r}"
        return Refusal(why=Why.UNAVAILABLE, reason=reason, hint="See the daemon's log")


def _answer(wish: _Wish, answer: Operation | Refusal) -> None:
    if not wish.answer.done():  # the caller may have gone away
        wish.answer.set_result(answer)
