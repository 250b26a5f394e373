"""A type's schema in the form that CRDs take: structural, no references, no nulls. For `schema`."""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema, to_jsonable_python

from controlplane.cluster import Object
from controlplane.crd.base import Model

_NOT_STRUCTURAL = ("title", "$defs")


class _WithFactories(GenerateJsonSchema):
    """Also tells the defaults that are made by factories."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        found = super().default_schema(schema)
        factory = schema.get("default_factory")
        if factory is not None and "default" not in found:
            value = to_jsonable_python(factory(), by_alias=True, exclude_none=True)  # type: ignore[call-arg]
            if "$ref" in found:
                found = {"allOf": [found]}
            found["default"] = value
        return found


def structural(model: type[Model], *, defaults: bool = True) -> Object:
    """Return a model's schema; without its defaults for a status, which nobody fills in."""
    schema = model.model_json_schema(by_alias=True, schema_generator=_WithFactories)
    inlined: Object = _Inliner(schema.get("$defs", {}), defaults).inline(schema)
    return inlined


def without_rules(schema: Any) -> Any:
    """Return a schema without its CEL rules."""
    if isinstance(schema, list):
        return [without_rules(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        word: without_rules(value)
        for word, value in schema.items()
        if word != "x-kubernetes-validations"
    }


class _Inliner:
    """Puts definitions where they are referred to, and says the rest in the words of CRDs."""

    def __init__(self, named: dict[str, Object], defaults: bool) -> None:
        self._named = named
        self._defaults = defaults

    def inline(self, schema: Object) -> Object:
        schema = _one_option(dict(schema))
        if "$ref" in schema:
            target = self._named[schema.pop("$ref").rpartition("/")[2]]
            return self.inline({**target, **schema})
        _old_bounds(schema)
        if "const" in schema:
            schema["enum"] = [schema.pop("const")]
        if schema.get("additionalProperties") is False:
            del schema["additionalProperties"]
        words = (self._word(word, value) for word, value in schema.items())
        return {word: value for word, value in words if value is not None}

    def _word(self, word: str, value: Any) -> tuple[str, Any]:
        if word in _NOT_STRUCTURAL:
            return word, None
        if word == "default":
            # An empty text is spelled by leaving it out too: servers before 1.21 take it for null.
            return word, _without_empty(value) if self._defaults and value != "" else None
        if word == "properties":
            return word, {name: self.inline(it) for name, it in value.items()}
        if word in ("items", "additionalProperties") and isinstance(value, dict):
            return word, self.inline(value)
        if word == "description":
            return word, " ".join(value.split())
        return word, value


def _one_option(schema: Object) -> Object:
    """Null is spelled by leaving a field out, so what may be null is simply what it else is."""
    for word in ("anyOf", "allOf"):
        options = [option for option in schema.get(word, ()) if option.get("type") != "null"]
        if len(options) == 1:
            del schema[word]
            schema = {**options[0], **schema}
    return schema


def _old_bounds(schema: Object) -> None:
    """CRDs are OpenAPI 3.0, where an exclusive bound is a flag on the bound."""
    for bound in ("Minimum", "Maximum"):
        if f"exclusive{bound}" in schema:
            schema[bound.lower()] = schema[f"exclusive{bound}"]
            schema[f"exclusive{bound}"] = True


def _without_empty(default: Any) -> Any:
    if not isinstance(default, dict):
        return default
    return {name: _without_empty(value) for name, value in default.items() if value != ""}
