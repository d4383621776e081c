"""Who may do what."""

from __future__ import annotations

import pytest

from innkeeper.access.rules import allowed
from innkeeper.model.host import Principal, Role
from innkeeper.model.ids import ProjectId
from innkeeper.model.plans import Why
from tests.plan.clusters import MINE, OTHERS, refused

ROOT = Principal(name="root", role=Role.ADMINISTRATOR)
ANN = Principal(name="ann", role=Role.MEMBER, projects=(MINE,))
DEEDS = ("show", "launch", "stop", "delete", "publish")
SITE_DEEDS = ("build-template", "events", "host", "repair")


@pytest.mark.parametrize("deed", [*DEEDS, *SITE_DEEDS])
@pytest.mark.parametrize("project", [MINE, OTHERS, None])
def test_an_administrator_may_do_everything_everywhere(deed: str, project: ProjectId | None) -> None:
    assert allowed(ROOT, deed, project) is None


@pytest.mark.parametrize("deed", DEEDS)
def test_a_member_in_projects_of_his_own_only(deed: str) -> None:
    assert allowed(ANN, deed, MINE) is None
    assert allowed(ANN, deed, None) is None
    assert refused(allowed(ANN, deed, OTHERS)).why is Why.NOT_FOUND


def test_another_project_looks_as_if_it_were_not_there() -> None:
    answers = {allowed(ANN, "show", p) for p in (OTHERS, ProjectId("p-never"))}
    assert len(answers) == 1


@pytest.mark.parametrize("deed", SITE_DEEDS)
@pytest.mark.parametrize("project", [MINE, OTHERS, None])
def test_the_site_is_for_administrators(deed: str, project: ProjectId | None) -> None:
    refusal = refused(allowed(ANN, deed, project))
    assert refusal.why is Why.FORBIDDEN
    assert refusal.reason == f"ann may not do this ({deed})"
    assert "administrator" in refusal.hint
