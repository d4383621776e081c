"""What every route needs of a request: who asks, for which project, under which key, and expecting which version."""

from collections import Counter
from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import Header, Query, Request
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from innkeeper.api.problems import Problem, invalid
from innkeeper.api.versions import expected
from innkeeper.control.site import Site
from innkeeper.control.submit import Asking
from innkeeper.model.host import Principal
from innkeeper.model.ids import ProjectId
from innkeeper.model.plans import Refusal
from innkeeper.plan.setup import DEFAULT_PROJECT
from innkeeper.ports.clock import Clock

T = TypeVar("T")
_JSON = "application/json"
# How long one request may wait: who waits for more than a week asks again.
WAIT_MOST_S = 7 * 86_400

OfProject = Annotated[str, Query(description="name of the project", max_length=200)]
Key = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=200,
        description="A request that comes again under its key is carried out once and answered twice",
    ),
]
IfMatch = Annotated[
    str | None, Header(description="ETag of what was read; when it has changed since, nothing is done (412)")
]


def granted(answer: T | Refusal) -> T:
    """The answer, or its refusal as an error of the request."""
    if isinstance(answer, Refusal):
        raise Problem(answer)
    return answer


class Asked:
    """Made once, with what requests are held against; its methods are dependencies of routes.

    All are coroutines, although none waits: others would be run in threads.
    """

    def __init__(
        self, identify: Callable[[HTTPConnection], Principal], site: Site, clock: Clock, mark: Callable[[bytes], str]
    ) -> None:
        self._identify = identify
        self._site = site
        self._clock = clock
        self._mark = mark

    async def who(self, connection: HTTPConnection) -> Principal:
        return self._identify(connection)

    async def project(self, connection: HTTPConnection, project: OfProject = DEFAULT_PROJECT) -> ProjectId:
        return granted(self._site.project(self._identify(connection), project))

    async def asking(
        self,
        request: Request,
        project: OfProject = DEFAULT_PROJECT,
        idempotency_key: Key = None,
        if_match: IfMatch = None,
    ) -> Asking:
        """Everything a use case wants to know besides the wish."""
        principal = self._identify(request)
        await _json_or_nothing(request)
        return Asking(
            principal=principal.name,
            project=granted(self._site.project(principal, project)),
            at=self._clock.now(),
            key=idempotency_key,
            expects=expected(if_match),
            asked="" if idempotency_key is None else self._mark(await _words(request)),
        )


async def only_known_queries(connection: HTTPConnection) -> None:
    """A filter that nobody knows would be passed over, and what it should have left out be acted upon.

    Raises:
        Problem: the query has a parameter that the schema does not have here, or one twice that is no list.
    """
    names = connection.query_params.multi_items()
    if not names or connection.scope["type"] != "http":
        return
    path, method = connection.scope["route"].path_format, connection.scope["method"].lower()
    said = connection.app.openapi()["paths"].get(path, {}).get(method, {}).get("parameters", ())
    known = {"project": False} | {p["name"]: "array" in str(p["schema"]) for p in said if p["in"] == "query"}
    counted = Counter(name for name, _ in names)
    for name, times in counted.items():
        if name not in known:
            raise invalid(f"{name[:70]!r} is no parameter of this path", f"It knows: {', '.join(sorted(known))}")
        if times > 1 and not known[name]:
            raise invalid(f"{name} is given {times} times", "Give it once")


async def _json_or_nothing(request: Request) -> None:
    """Before a body is judged by its content: what comes as something else is not read as JSON.

    Raises:
        HTTPException: 415, with what is accepted (RFC 9110, 15.5.16).
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == _JSON or (kind.startswith("application/") and kind.endswith("+json")) or not await request.body():
        return
    said = f"the body is {kind}" if kind else "the body comes without its content type"
    raise HTTPException(415, said, {"accept": _JSON})


async def _words(request: Request) -> bytes:
    """All that makes a request what it is, for telling it from another; user-data, too, hence never kept as it is."""
    url = request.url
    return f"{request.method} {url.path}?{url.query}\n".encode() + await request.body()
