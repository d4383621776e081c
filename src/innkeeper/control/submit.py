"""From wish to operation: look, decide, submit.

Wishes that wait together are planned together, each on the picture that the ones before it leave, and committed
once. What the store finds stale is planned again on a newer picture, five times at most; what another operation
holds is refused with its name.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from innkeeper.model.cluster import Cluster
from innkeeper.model.ids import Draw, OperationId, ProjectId
from innkeeper.model.plans import Noun, Plan, Refusal, Why
from innkeeper.model.work import Operation, Stale, Submission
from innkeeper.plan.names import called
from innkeeper.ports.clock import Clock
from innkeeper.ports.store import Pictures, StoreFailed, Works

log = logging.getLogger(__name__)

Decide = Callable[[Cluster, Draw, float], Plan | Refusal]
_TRIES = 5
_TOGETHER = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """On whose behalf, for which project, when, under which idempotency key, as part of which parent.

    `expects` are the generations of the object that the asker has seen; None: whatever it is by now. `asked` marks
    the request, so that another one under the same key is noticed; empty: nobody looks.
    """

    principal: str
    project: ProjectId
    at: float
    key: str | None = None
    parent: OperationId | None = None
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
    decide: Decide
    asking: Asking
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
        wish = _Wish(decide=decide, asking=asking)
        self._waiting.put_nowait(wish)
        answer = await wish.answer
        if isinstance(answer, Refusal):
            return await self.earlier(asking) or answer
        return as_before(answer, asking)

    async def earlier(self, asking: Asking) -> Operation | Refusal | None:
        """What the asker's key has led to before, or that it came with another request. None: it is new, or none."""
        found = None if asking.key is None else await self._works.earlier(asking.principal, asking.key)
        return None if found is None else as_before(found, asking)

    async def run(self) -> None:
        """Plans and submits what waits, endlessly."""
        while True:
            wishes = [await self._waiting.get()]
            while not self._waiting.empty() and len(wishes) < _TOGETHER:
                wishes.append(self._waiting.get_nowait())
            try:
                await self._together(wishes)
            except Exception as fault:
                # Whoever waits hears of it; the next wishes may fare better.
                log.exception("submitting failed in a way nobody thought of")
                for wish in wishes:
                    if not wish.answer.done():
                        wish.answer.set_exception(fault)

    async def _together(self, wishes: list[_Wish]) -> None:
        planned, refused = self._plan(wishes)
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
        for wish, reason in refused:
            if any(isinstance(answer, Stale) for answer in answers):
                self._again(wish, reason)  # it may have been refused for what never came to be
            else:
                _answer(wish, reason)

    def _plan(self, wishes: list[_Wish]) -> tuple[list[tuple[_Wish, Submission]], list[tuple[_Wish, Refusal]]]:
        """Each on the picture that the ones before it leave. What is planned, and what is refused."""
        cluster, now = self._pictures.cluster(), self._clock.now()
        planned: list[tuple[_Wish, Submission]] = []
        refused: list[tuple[_Wish, Refusal]] = []
        for wish in wishes:
            draw = Draw(self._entropy())
            try:
                plan = wish.decide(cluster, draw, now)
            except Exception as fault:
                log.exception("planning failed")
                if not wish.answer.done():  # the caller may have gone away
                    wish.answer.set_exception(fault)
                continue
            if isinstance(plan, Refusal):
                refused.append((wish, plan))
                continue
            submission = Submission(
                operation=OperationId(draw.id("op")),
                project=wish.asking.project,
                principal=wish.asking.principal,
                at=now,
                plan=plan,
                parent=wish.asking.parent,
                key=wish.asking.key,
                asked=wish.asking.asked,
            )
            cluster = cluster.after(plan.accept, cluster.revision).claimed(plan.claims, submission.operation)
            planned.append((wish, submission))
        return planned, refused

    def _again(self, wish: _Wish, reason: Stale | Refusal) -> None:
        wish.tries += 1
        if isinstance(reason, Stale) and reason.busy is not None:
            hint = f"Wait for it: inn operation wait {reason.busy}; force takes over: --force with stop and delete"
            _answer(wish, Refusal(why=Why.BUSY, reason=f"{reason.what}: operation {reason.busy} holds it", hint=hint))
        elif wish.tries < _TRIES:
            self._waiting.put_nowait(wish)
        elif isinstance(reason, Stale):
            _answer(wish, Refusal(why=Why.BUSY, reason=f"{reason.what}, {_TRIES} times in a row", hint="Try again"))
        else:
            _answer(wish, reason)


def _answer(wish: _Wish, answer: Operation | Refusal) -> None:
    if not wish.answer.done():  # the caller may have gone away
        wish.answer.set_result(answer)
