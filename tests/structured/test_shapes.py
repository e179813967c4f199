"""Schemas shaped like those of real programs: answers at temperature 1 fit them."""

from typing import Any

import pytest

from talu import Client

WORD = {"type": "string", "pattern": "^[a-z]{1,8}$"}
SHORT = {"type": "string", "maxLength": 12}
SHAPES: dict[str, dict[str, Any]] = {
    "the call of a function": {
        "type": "object",
        "properties": {
            "name": {"const": "get_weather"},
            "arguments": {
                "type": "object",
                "properties": {
                    "city": SHORT,
                    "unit": {"enum": ["celsius", "fahrenheit"]},
                    "days": {"type": "integer", "minimum": 1, "maximum": 14},
                },
                "required": ["city"],
                "additionalProperties": False,
            },
        },
        "required": ["name", "arguments"],
        "additionalProperties": False,
    },
    "alternatives with a discriminator": {
        "oneOf": [
            {
                "type": "object",
                "properties": {"kind": {"const": kind}, field: {"type": "boolean"}},
                "required": ["kind", field],
                "additionalProperties": False,
            }
            for kind, field in (("circle", "round"), ("square", "sharp"))
        ]
    },
    "a tree": {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "label": WORD,
                    "children": {
                        "type": "array",
                        "items": {"anyOf": [{"$ref": "#/$defs/leaf"}, {"$ref": "#/$defs/node"}]},
                        "maxItems": 2,
                    },
                },
                "required": ["label", "children"],
                "additionalProperties": False,
            },
            "leaf": {"enum": ["leaf"]},
        },
    },
    "a package with versions": {
        "type": "object",
        "properties": {
            "name": WORD,
            "version": {"type": "string", "pattern": r"^\d{1,2}\.\d{1,2}\.\d{1,2}$"},
            "dependencies": {
                "type": "object",
                "properties": {"left": SHORT, "right": SHORT},
                "additionalProperties": False,
            },
        },
        "required": ["name", "version"],
        "additionalProperties": False,
    },
    "a place on the globe": {
        "type": "object",
        "properties": {
            "type": {"const": "Point"},
            "coordinates": {
                "type": "array",
                "prefixItems": [
                    {"type": "integer", "minimum": -180, "maximum": 180},
                    {"type": "integer", "minimum": -90, "maximum": 90},
                ],
                "items": False,
                "minItems": 2,
            },
        },
        "required": ["type", "coordinates"],
        "additionalProperties": False,
    },
    "a composition": {
        "allOf": [
            {
                "type": "object",
                "properties": {"id": {"type": "integer", "maximum": 9, "minimum": 0}},
            },
            {"properties": {"id": {"minimum": 3}, "ok": {"type": "boolean"}}},
            {"required": ["id", "ok"], "properties": {"id": True, "ok": True}},
        ],
        "properties": {"id": True, "ok": True},
        "additionalProperties": False,
    },
    "optional values of several types": {
        "type": "object",
        "properties": {
            "date": {"type": ["string", "null"], "format": "date"},
            "address": {"type": "string", "format": "ipv4"},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
            "meta": {"anyOf": [{"type": "null"}, {"const": {"deep": [1, {"er": None}]}}]},
        },
        "additionalProperties": False,
    },
    "keys of a pattern": {
        "type": "object",
        "patternProperties": {"^[xy]$": {"type": "boolean"}},
        "additionalProperties": False,
        "maxProperties": 1,  # of two, both could have the same name
    },
}


@pytest.fixture(scope="module")
def client() -> Any:
    with Client("talu/pocket") as opened:
        yield opened


@pytest.mark.parametrize("name", SHAPES)
def test_answers_fit_the_shape_of(client: Client, name: str) -> None:
    for seed in range(8):
        answer = client.ask(
            "Say something.", response_format=SHAPES[name], temperature=1.0, top_k=0, top_p=1.0,
            seed=seed, max_tokens=950,
        )  # fmt: skip
        assert answer.finish_reason == "stop", answer.text
        answer.parsed  # noqa: B018 - it validates
