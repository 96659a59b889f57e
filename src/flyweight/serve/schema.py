"""What `GET /openapi.json` says of a request and its answers beside their paths."""

from __future__ import annotations

from typing import Any

_TEXT: dict[str, Any] = {"type": "string"}
_NUMBER: dict[str, Any] = {"type": "number", "minimum": 0, "maximum": 1}
_IMAGE: dict[str, Any] = {"type": "string", "format": "binary"}
_NAMED: dict[str, Any] = {"type": "object", "properties": {"class": _TEXT, "confidence": _NUMBER}}
_ERROR: dict[str, Any] = {
    "type": "object",
    "properties": dict.fromkeys(("error", "what", "do", "more"), _TEXT),
    "required": ["error", "what", "do"],
}
_ANSWER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "class": {"type": ["string", "null"], "description": "null where rejected"},
        "confidence": _NUMBER,
        "rejected": {"type": "boolean"},
        "top": {"type": "array", "items": _NAMED},
        "reject_threshold": {"type": ["number", "null"]},
        "model": {"type": "object", "properties": {"bundle": _TEXT, "variant": _TEXT}},
    },
    "required": ["class", "confidence", "rejected", "top", "model"],
}
_WHY = {
    200: "the classes, the most confident first",
    400: "the body is no image, or no form with one file",
    408: "the body did not come in time",
    413: "more bytes than are taken",
    422: "the image cannot be decoded, has too many pixels, or top_k is out of range",
    429: "this address asks too often",
    503: "busy: try again",
}

PREDICT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": _IMAGE},
            "multipart/form-data": {"schema": {"type": "object", "properties": {"image": _IMAGE}}},
        },
    }
}
PREDICT_ANSWERS: dict[int | str, dict[str, Any]] = {
    status: {"description": why, "content": {"application/json": {"schema": _ANSWER if status == 200 else _ERROR}}}
    for status, why in _WHY.items()
}
