"""Write the page of `/docs` from the OpenAPI schema, without scripts and external files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from typing import Any

from tunewright.report.style import style_sheet


def docs_page(schema: dict[str, Any], address: str) -> str:
    """Return the page for a service's OpenAPI schema.

    Args:
        address: the service as the reader reached it, such as http://127.0.0.1:8000.
    """
    title = escape(schema["info"]["title"])
    routes = "".join(
        _route(address, path, method, route)
        for path, found in schema["paths"].items()
        for method, route in found.items()
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{title}: API</title>
<style>{style_sheet()} pre {{ white-space: pre-wrap; overflow-wrap: anywhere }}</style></head>
<body><div class="page"><h1>{title}: API</h1><main>{routes}
<p class="quiet">For programs: <a href="/openapi.json">/openapi.json</a>. If the service asks for a token, send it as
<code>Authorization: Bearer TOKEN</code>. A refused request is answered with
<code>{{"error": {{"message", "fix", "code"}}}}</code>.</p></main></div></body></html>
"""


def _route(address: str, path: str, method: str, route: dict[str, Any]) -> str:
    about = escape(route.get("description") or route.get("summary") or "")
    content = route.get("requestBody", {}).get("content", {})
    parts = [f"<h2><code>{escape(method.upper())} {escape(path)}</code></h2><p>{about}</p>"]
    parts += _example(address + path, content)
    for kind, taken in content.items():
        fields = _fields(taken["schema"])
        parts.append(f"<h3>{escape(kind)}</h3>" + (fields or "<p>The file itself as the body.</p>"))
    return "".join(parts)


def _fields(schema: dict[str, Any]) -> str:
    """Return a table of an object's fields, and the whole schema, folded."""
    if "properties" not in schema:
        return ""
    needed = schema.get("required", [])
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(_type(field))}</td>"
        f"<td>{'required' if name in needed else escape(_default(field))}</td></tr>"
        for name, field in schema["properties"].items()
    )
    whole = escape(json.dumps(schema, indent=1, ensure_ascii=False))
    return (
        f'<table><thead><tr><th scope="col">field</th><th scope="col">type</th><th scope="col"></th></tr></thead>'
        f"<tbody>{rows}</tbody></table><details><summary>JSON schema</summary><pre>{whole}</pre></details>"
    )


def _type(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(_type(entry) for entry in field["anyOf"])
    if "const" in field or "enum" in field:
        return ", ".join(json.dumps(value) for value in field.get("enum", [field.get("const")]))
    if field.get("type") == "array":
        return f"list of ({_type(field.get('items', {}))})"
    bounds = [f"{words} {_number(field[key])}" for key, words in BOUNDS.items() if key in field]
    return field.get("type", "any") + (f" ({', '.join(bounds)})" if bounds else "")


BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:g}"


def _default(field: dict[str, Any]) -> str:
    return f"default {json.dumps(field['default'])}" if field.get("default") is not None else ""


def _example(address: str, content: dict[str, Any]) -> Iterator[str]:
    """Return an example command for a route with a body."""
    if not content:
        return
    kind = next(iter(content))
    data = "'{…}'" if kind == "application/json" else "@FILE"
    option = "--data" if kind == "application/json" else "--data-binary"
    yield f"<pre>curl {escape(address)} -H 'Content-Type: {escape(kind)}' {option} {data}</pre>"
