"""What tests ask of the API, in short."""

from __future__ import annotations

from typing import Any

import httpx

Json = dict[str, Any]


def accepted(answer: httpx.Response) -> Json:
    """The operation of a 202, whose Location leads to it."""
    assert answer.status_code == 202, answer.text
    operation: Json = answer.json()
    assert answer.headers["location"] == f"/v1/operations/{operation['id']}"
    return operation


def ended(api: httpx.Client, answer: httpx.Response) -> Json:
    """The operation once it has ended, however."""
    operation = accepted(answer)
    waited = api.get(f"/v1/operations/{operation['id']}/wait", params={"timeout_s": 20})
    assert waited.status_code == 200, waited.text
    return dict(waited.json())


def done(api: httpx.Client, answer: httpx.Response) -> Json:
    operation = ended(api, answer)
    assert operation["state"] == "succeeded", operation
    return operation


def launch(api: httpx.Client, name: str, **wish: Any) -> Json:
    """An instance that runs and answers."""
    done(api, api.post("/v1/instances", json={"template": "tiny", "name": name, **wish}))
    answer = api.get(f"/v1/instances/{name}/wait", params={"timeout_s": 20})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def problem(answer: httpx.Response, status: int) -> Json:
    """A refusal in the form of RFC 9457."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: Json = answer.json()
    assert body.keys() == {"type", "title", "status", "detail", "hint"}
    assert body["status"] == status
    return body
