"""Who may do what. Pure: a principal, a verb and a project in; nothing or a refusal out.

A refusal of another project's object looks like its absence, so that nobody can probe for names. Roles finer than
administrator and member are deliberately absent until there are several users to give them to.
"""

from __future__ import annotations

from innkeeper.model.host import Principal, Role
from innkeeper.model.ids import ProjectId
from innkeeper.model.plans import Refusal, Why

_FOR_ADMINISTRATORS = frozenset({"build-template", "events", "host", "repair"})


def allowed(who: Principal, deed: str, project: ProjectId | None) -> Refusal | None:
    """`deed` is the word of a use case; `project` None means: of the whole site."""
    if who.role is Role.ADMINISTRATOR:
        return None
    if deed in _FOR_ADMINISTRATORS:
        return Refusal(
            why=Why.FORBIDDEN, reason=f"{who.name} may not do this ({deed})", hint="Ask an administrator of this site"
        )
    if project is None or project in who.projects:
        return None
    return Refusal(why=Why.NOT_FOUND, reason="there is no such object in your projects", hint="")
