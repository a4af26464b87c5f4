"""The description of the collector's HTTP interface, OpenAPI 3.1."""

from __future__ import annotations

from typing import Any, Final

from adbc_telemetry.collector.queries.answers import PANELS
from adbc_telemetry.collector.queries.filters import DIMENSIONS
from adbc_telemetry.core.version import __version__

_SUMMARIES: Final = {
    "summary": "Events, errors and percentiles of the latency.",
    "timeline": "The same by intervals of time; `step_seconds` is their length.",
    "operations": "By operation and type of statement, the most frequent first.",
    "drivers": "By driver and version, the most frequent first.",
    "hosts": "By host, the most frequent first.",
    "errors": "Classes of errors, the most frequent first.",
    "newest": "The events that arrived last.",
    "slowest": "The events with the longest latency.",
}
_FORMAT: Final = {
    "name": "format",
    "in": "query",
    "description": "`Accept: text/csv` does the same.",
    "schema": {"type": "string", "enum": ["json", "csv"]},
}


def describe() -> dict[str, Any]:
    """The description, of all routes of the collector."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "adbc-telemetry collector",
            "version": __version__,
            "description": "Takes telemetry of database drivers in, keeps it in a folder, and shows it.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": _intake() | _api() | _operations(),
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        # A token, or none: a collector on a loopback address may do without.
        "security": [{"token": []}, {}],
    }


def _intake() -> dict[str, Any]:
    operation = {
        "tags": ["intake"],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _ref("TelemetryRequest")}},
        },
        "parameters": [
            {
                "name": "Content-Encoding",
                "in": "header",
                "description": "`gzip`, `zstd` where the collector has it, or `identity`; 415 for anything else.",
                "schema": {"type": "string"},
            }
        ],
        "responses": {
            "200": _response(
                "The events are durable, but for those that the errors name.", "TelemetryResponse"
            ),
            "400": _response("The request cannot be read.", "TelemetryResponse"),
            "413": _response("The request is too large.", "TelemetryResponse"),
            "415": _response("The encoding is not known.", "TelemetryResponse"),
            "503": _response("Not now; send it again after `Retry-After` seconds.", "TelemetryResponse"),
            "default": {"description": "The request is refused."},
        },
    }
    with_token = {**operation, "summary": "Take events in.", "operationId": "collect"}
    without = {**operation, "summary": "Take events in, without a token.", "operationId": "collectUnauth"}
    return {
        "/telemetry-ext": {"post": with_token},
        "/telemetry-unauth": {"post": {**without, "security": [{}]}},
    }


def _api() -> dict[str, Any]:
    paths = {f"/api/{name}": _question(name, _SUMMARIES[name], "Panel", _filter()) for name in PANELS}
    event_id = {
        "name": "id",
        "in": "query",
        "required": True,
        "schema": {"type": "string", "minLength": 1, "maxLength": 1000},
    }
    paths["/api/event"] = _question(
        "event",
        "One event with all columns. A range of time makes it quick to find.",
        "Event",
        [event_id, *_filter()],
    )
    paths["/api/event"]["get"]["responses"]["404"] = _response("There is no such event.", "Error")
    by = {
        "name": "by",
        "in": "query",
        "schema": {"type": "string", "enum": ["driver", "version", "operation", "host", "error"]},
    }
    paths["/api/report"] = _question(
        "report", "What `adbc-telemetry report` prints.", "Report", [by, *_filter()]
    )
    paths["/api/status"] = _question(
        "status", "What was refused, fields that are not known, and the store's size and age.", "Status", []
    )
    paths["/api/export"] = _export()
    return paths


def _export() -> dict[str, Any]:
    binary = {"schema": {"type": "string", "format": "binary"}}
    media_types = ("application/vnd.apache.parquet", "text/csv", "application/jsonl")
    answer = {"description": "All events in one file.", "content": dict.fromkeys(media_types, binary)}
    file_format = {
        "name": "format",
        "in": "query",
        "schema": {"type": "string", "enum": ["parquet", "csv", "jsonl"]},
    }
    described = _question("export", "All events in one file.", "Error", [])
    described["get"]["parameters"] = [file_format]
    described["get"]["responses"]["200"] = answer
    return described


def _question(name: str, summary: str, schema: str, parameters: list[Any]) -> dict[str, Any]:
    answer = _response(summary, schema)
    answer["content"]["text/csv"] = {"schema": {"type": "string"}}
    return {
        "get": {
            "tags": ["api"],
            "operationId": name,
            "summary": summary,
            "parameters": [*parameters, _FORMAT],
            "responses": {
                "200": answer,
                "400": _response("A parameter is wrong; the sentence says which and what to do.", "Error"),
                "401": {"description": "The collector wants its token."},
                "503": _response("Not now; ask again after `Retry-After` seconds.", "Error"),
                "default": {"description": "The request is refused."},
            },
        }
    }


def _filter() -> list[dict[str, Any]]:
    moments = [
        {
            "name": name,
            "in": "query",
            "description": "A duration before now (15m, 1h, 7d) or an ISO 8601 time.",
            "schema": {
                "anyOf": [
                    {"type": "string", "pattern": "^[0-9]{1,9}[smhdw]$"},
                    {"type": "string", "format": "date-time"},
                ]
            },
            "examples": {"duration": {"value": "1h"}, "time": {"value": "2026-01-31T12:00:00Z"}},
        }
        for name in ("since", "until")
    ]
    values = [
        {
            "name": name,
            "in": "query",
            "description": "A value; empty for events without one."
            + (" `*` for any." if name == "error" else ""),
            "schema": {"type": "string", "maxLength": 1000},
        }
        for name in DIMENSIONS
    ]
    return [*moments, *values]


def _operations() -> dict[str, Any]:
    def get(summary: str, operation_id: str, content: str, schema: Any, **further: Any) -> dict[str, Any]:
        return {
            "get": {
                "tags": ["operation"],
                "operationId": operation_id,
                "summary": summary,
                "responses": {
                    "200": {"description": summary, "content": {content: {"schema": schema}}},
                    "default": {"description": "The request is refused."},
                },
                **further,
            }
        }

    text = {"type": "string"}
    health = get("Whether the collector is well.", "healthz", "application/json", _ref("Health"))
    health["get"]["responses"]["503"] = _response("It is not; the reasons say why.", "Health")
    return {
        "/": get("The page.", "page", "text/html", text),
        "/openapi.json": get("This description.", "openapi", "application/json", {"type": "object"}),
        "/healthz": health,
        "/metrics": get("Figures for Prometheus.", "metrics", "text/plain", text),
        "/api/2.0/connector-service/feature-flags/{client}/{version}": get(
            "Feature flags for a driver.",
            "featureFlags",
            "application/json",
            _ref("FeatureFlags"),
            parameters=[
                {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
                for name in ("client", "version")
            ],
        ),
    }


def _schemas() -> dict[str, Any]:
    count = {"type": "integer", "minimum": 0}
    number = {"type": ["number", "null"]}
    text = {"type": ["string", "null"]}
    strings = {"type": "array", "items": {"type": "string"}}
    figures = {"count": count, "errors": count, "p50_ms": number, "p95_ms": number, "p99_ms": number}
    return {
        "TelemetryRequest": _object(
            uploadTime={
                "description": "Unix milliseconds. It is passed over, like all keys but `protoLogs`."
            },
            items={"description": "An empty array. It is passed over."},
            protoLogs={
                "type": ["array", "null"],
                "description": "Strings, a TelemetryFrontendLog each, as JSON. Anything else is refused by itself.",
            },
        ),
        "TelemetryResponse": _object(
            errors=strings, numSuccess=count, numProtoSuccess=count, numRealtimeSuccess=count
        ),
        "Panel": _object(
            "A table. Times are UTC in ISO 8601, latencies milliseconds; null is what events do not say.",
            columns=strings,
            rows={"type": "array", "items": {"type": "array"}},
            step_seconds={"type": ["integer", "null"]},
        ),
        "Event": {"type": "object", "description": "A value for each column of the store; `log` as it came."},
        "Report": _object(
            **dict.fromkeys(("events", "errors", "sessions", "statements", "drivers"), count),
            first=text,
            last=text,
            operations=_list(operation_type=text, statement_type=text, **figures),
            top_errors=_list(error_name={"type": "string"}, count=count),
            exact={"type": "boolean"},
            columns={"type": ["array", "null"], "items": {"type": "string"}},
            groups={
                "type": ["array", "null"],
                "items": _object(values={"type": "array", "items": text}, **figures),
            },
        ),
        "Status": {"type": "object"},
        "Health": {"type": "object"},
        "FeatureFlags": _object(
            flags=_list(name={"type": "string"}, value={"type": "string"}), ttl_seconds=count
        ),
        "Error": {**_object(error={"type": "string"}), "required": ["error"]},
    }


def _object(*description: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "description": " ".join(description)}


def _list(**properties: Any) -> dict[str, Any]:
    return {"type": "array", "items": _object(**properties)}


def _response(description: str, schema: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _ref(schema)}}}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
