"""The live feed of events: server-sent events, resumable by revision."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query
from fastapi.responses import StreamingResponse

from innkeeper.api.asked import Asked, granted
from innkeeper.api.problems import Problem
from innkeeper.control.operations import Operations
from innkeeper.model.host import Principal
from innkeeper.model.plans import Refusal, Why
from innkeeper.ports.store import Event, Pictures, TooOld

QUIET_S = 15.0
After = Annotated[int | None, Query(ge=0, le=1 << 62, description="the last revision that was seen")]
LastEventId = Annotated[int | None, Header(ge=0, le=1 << 62, description="the same, as browsers say it")]
_MEDIA_TYPE = "text/event-stream"


def routes(asked: Asked, pictures: Pictures, operations: Operations) -> APIRouter:
    router = APIRouter(prefix="/v1/events", tags=["events"])
    WhoAsks = Annotated[Principal, Depends(asked.who)]

    @router.get("", response_class=StreamingResponse, responses={200: {"content": {_MEDIA_TYPE: {}}}})
    async def events(who: WhoAsks, after: After = None, last_event_id: LastEventId = None) -> StreamingResponse:
        """Every change from a revision on, or from now; each event's id is where to go on.

        410 when what follows the revision is not kept any more: then look at everything anew. A comment is sent every
        15 s in which nothing happens.
        """
        begin = after if after is not None else last_event_id
        begin = pictures.cluster().revision if begin is None else begin

        def feed(revision: int) -> AsyncIterator[Event]:
            return granted(operations.events(who, revision))

        await _check_kept(feed(begin))
        return StreamingResponse(_lines(feed, begin), media_type=_MEDIA_TYPE, headers={"cache-control": "no-store"})

    return router


async def _check_kept(feed: AsyncIterator[Event]) -> None:
    """What is too old is known before the answer begins."""
    try:
        async with asyncio.timeout(0):
            await anext(feed)
    except TimeoutError:
        return  # nothing has happened since, or it must be fetched: then it is kept
    except TooOld as error:
        hint = "Look at everything anew, then follow from its revision (GET /v1)"
        raise Problem(Refusal(why=Why.CHANGED, reason=str(error), hint=hint), 410) from error


async def _lines(feed: Callable[[int], AsyncIterator[Event]], after: int) -> AsyncIterator[str]:
    events = feed(after)
    while True:
        try:
            async with asyncio.timeout(QUIET_S):
                event = await anext(events)
        except TimeoutError:
            events = feed(after)  # the wait for the next one was cancelled, and with it the reader
            yield ": nothing has happened\n\n"
        except TooOld:
            yield "event: too-old\ndata: {}\n\n"  # a reader so slow that it must look at everything anew
            return
        else:
            after = event.revision
            yield f"id: {event.revision}\nevent: {event.kind}\ndata: {json.dumps(_data(event))}\n\n"
            # Memory gives thousands without waiting; only between two of them is it seen that the reader hung up.
            await asyncio.sleep(0)


def _data(event: Event) -> dict[str, str | int | None]:
    return {
        "revision": event.revision,
        "kind": event.ref.kind.value if event.ref else None,
        "id": event.ref.id if event.ref else None,
        "operation": event.operation,
        "what": event.what,
    }
