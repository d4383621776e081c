"""The schema that is served: complete, with who may ask and what is refused. Its changes are reviewed as behaviour."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.contract.api.asking import launch
from tests.golden.compare import same_as_golden


@pytest.fixture
def schema(api: httpx.Client) -> dict[str, Any]:
    return dict(api.get("/openapi.json").json())


def operations(schema: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, said) for path, methods in schema["paths"].items() for method, said in methods.items()]


def kind(shape: dict[str, Any]) -> str:
    """A type in a word: `string?`, `[integer]`, `SizeOut`."""
    if "$ref" in shape:
        return str(shape["$ref"].rpartition("/")[2])
    if "anyOf" in shape:
        words = [kind(one) for one in shape["anyOf"]]
        return " or ".join(w for w in words if w != "null") + ("?" if "null" in words else "")
    if "enum" in shape:
        return "|".join(shape["enum"])
    if "prefixItems" in shape:
        return f"({', '.join(kind(one) for one in shape['prefixItems'])})"
    if shape.get("type") == "array":
        return f"[{kind(shape['items'])}]"
    if shape.get("type") == "object" and isinstance(shape.get("additionalProperties"), dict):
        return f"{{{kind(shape['additionalProperties'])}}}"
    return " ".join(str(shape[part]) for part in ("type", "format") if part in shape) or "any"


def outline(schema: dict[str, Any]) -> str:
    """All that a client depends on, a line each."""
    lines = list[str]()
    for path, method, said in operations(schema):
        asked = [f"{p['name']}={kind(p['schema'])}" for p in said.get("parameters", ()) if p["in"] != "header"]
        body = said.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
        answers = [
            f"{status} {kind(content['schema']) if 'schema' in content else media}"
            for status, answer in said["responses"].items()
            for media, content in (answer.get("content") or {"-": {}}).items()
            if status != "default"
        ]
        given = " ".join([*asked, *([kind(body)] if body else [])])
        lines.append(f"{method.upper()} {path} ({said['operationId']}): {given or '-'} -> {', '.join(answers)}")
    for name, shape in sorted(schema["components"]["schemas"].items()):
        needed = shape.get("required", ())
        fields = shape.get("properties", {})
        lines += ["", name] if fields else ["", f"{name}: {kind(shape)}"]
        lines += [f"  {field}: {kind(one)}{'' if field in needed else ' (optional)'}" for field, one in fields.items()]
    return "\n".join(lines) + "\n"


def test_it_is_as_it_was_reviewed(schema: dict[str, Any]) -> None:
    same_as_golden("api/schema.txt", outline(schema))


def test_operations_have_names_of_their_own(schema: dict[str, Any]) -> None:
    names = [said["operationId"] for _, _, said in operations(schema)]
    assert len(names) == len(set(names))


def test_every_reference_leads_somewhere(schema: dict[str, Any]) -> None:
    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            found = [node["$ref"]] if "$ref" in node else []
            return found + [r for value in node.values() for r in references(value)]
        return [r for value in node for r in references(value)] if isinstance(node, list) else []

    found = references(schema)
    assert found
    assert {r.removeprefix("#/components/schemas/") for r in found} <= schema["components"]["schemas"].keys()


def test_who_may_ask_is_said(schema: dict[str, Any]) -> None:
    assert schema["components"]["securitySchemes"]["token"] == {"type": "http", "scheme": "bearer"}
    assert {"token": []} in schema["security"]


def test_every_operation_says_how_it_is_refused(schema: dict[str, Any]) -> None:
    for path, method, said in operations(schema):
        assert "application/problem+json" in said["responses"]["default"]["content"], (path, method)
        assert "422" not in said["responses"], (path, method)


def test_every_change_takes_a_key_and_answers_with_an_operation(schema: dict[str, Any]) -> None:
    changes = [(path, method, said) for path, method, said in operations(schema) if method != "get"]
    assert len(changes) > 10
    for path, method, said in changes:
        parameters = {p["name"] for p in said["parameters"]}
        assert {"idempotency-key", "if-match"} <= parameters, (path, method)
        assert "Location" in said["responses"]["202"]["headers"], (path, method)
        content = said["responses"]["202"]["content"]["application/json"]
        assert content["schema"]["$ref"].endswith("OperationOut"), (path, method)


def test_every_list_has_pages(schema: dict[str, Any]) -> None:
    for path in ("instances", "instances/{word}/snapshots", "templates", "hosts", "networks", "operations"):
        parameters = {p["name"] for p in schema["paths"][f"/v1/{path}"]["get"]["parameters"]}
        assert {"cursor", "limit"} <= parameters, path


def test_streams_are_described(schema: dict[str, Any]) -> None:
    for stream in ("exec", "console"):
        assert "101" in schema["paths"][f"/v1/instances/{{word}}/{stream}"]["get"]["responses"]
    assert "ExecIn" in schema["components"]["schemas"]


def test_answers_hold_what_the_schema_says(api: httpx.Client, schema: dict[str, Any]) -> None:
    """Neither more nor less: clients are made from it."""
    launch(api, "shaped")
    shapes = schema["components"]["schemas"]
    for path, shape in (
        ("/v1", "ServerOut"),
        ("/v1/instances/shaped", "InstanceOut"),
        ("/v1/instances/shaped/guest", "GuestOut"),
        ("/v1/instances/shaped/metrics", "MetricsOut"),
        ("/v1/templates/tiny", "TemplateOut"),
        ("/v1/hosts/sim", "HostOut"),
        ("/v1/networks/default", "NetworkOut"),
        ("/v1/operations", "Operations"),
        ("/v1/instances", "Instances"),
    ):
        assert api.get(path).json().keys() == shapes[shape]["properties"].keys(), path


def test_metrics_are_what_prometheus_reads(api: httpx.Client) -> None:
    launch(api, "counted")
    answer = api.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert 'innkeeper_instance_up{instance="counted",project="default"} 1.0' in answer.text
    assert 'innkeeper_host_instances{host="sim"}' in answer.text
