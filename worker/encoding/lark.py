"""What an answer may look like, as a grammar in llguidance's Lark dialect. `grammar` compiles it.

JSON formats become one JSON value. Tool calls keep the form the model was trained on: an invoke
per call with a parameter per property, `string="true"` before raw text and `"false"` before JSON.
"""

import json
import re
from collections.abc import Iterable, Mapping
from math import inf
from typing import Any
from urllib.parse import quote

import deepseek_recipe as recipe
from llguidance import LLMatcher

from worker.errors import InvalidRequest

# Models indent, but white space without end would let an answer go on for ever.
_JSON_STYLE = {"x-guidance": {"whitespace_pattern": r"( |\n {0,16})?"}}
_ANNOTATIONS = {"type", "title", "description", "default", "examples"}
_PARAMETERS = {*_ANNOTATIONS, "properties", "required", "additionalProperties"}
_DEFINITIONS = {"$def", "$defs", "definitions", "$schema"}
_PARAMETERS_AT = "#/$defs/parameters"
# What the chat parser reads as a parameter's name and puts into JSON as it is.
_NAME = r'[^\s"<>\\\x00-\x1f]'


def answer_grammar(
    conversation: recipe.Conversation,
    parameters: Mapping[str, Any],
    *,
    dsml: int,
    one_call: bool,
) -> str | None:
    """The grammar of the answer to `conversation`; None when any text will do.

    `parameters` are the tools' schemas by name, as the caller gave them: the conversation's lack
    what the prompt does not show. `dsml` is the id of the markup token. Raises InvalidRequest
    naming what cannot be enforced.
    """
    tools = conversation.tools or []
    rules = _Rules(f"<[{dsml}]>", parameters)
    if conversation.response_format != "text":
        schema = conversation.response_schema
        schema = {"type": "object"} if schema is None else schema
        start = rules.json(schema, what="the schema", param="response_format")
    elif tools and conversation.tool_choice == "required":
        start = rules.calls(tools, one_call=one_call)  # the prompt has opened their block
    elif any(tool.strict for tool in tools):
        calls = rules.calls(tools, one_call=one_call)
        start = rf'/(.|\n)*/ | /(.|\n)*</ {rules.dsml} "tool_calls>\n" {calls}'
    else:
        return None
    rules.add("start", start)
    return rules.text()


class _Rules:
    """Rules of a grammar in the making. `dsml` is how a rule spells the markup token."""

    def __init__(self, dsml: str, parameters: Mapping[str, Any]) -> None:
        self.dsml = dsml
        self._parameters = parameters
        self._rules: list[str] = []

    def add(self, name: str, body: str) -> None:
        self._rules.append(f"{name}: {body}")

    def text(self) -> str:
        return "\n".join(self._rules)

    def json(self, schema: Any, *, what: str, param: str) -> str:
        """A JSON value that satisfies `schema`, in errors `what`. Raises InvalidRequest."""
        document = {**schema, **_JSON_STYLE} if isinstance(schema, dict) else schema
        text = json.dumps(document)
        problem = LLMatcher.validate_grammar(f"start: %json {text}")
        if problem and not problem.startswith("WARNING"):
            raise InvalidRequest(f"{what} cannot be enforced: {_reason(problem)}", param=param)
        return self._rule(f"%json {text}")

    def calls(self, tools: Iterable[recipe.ToolDefinition], *, one_call: bool) -> str:
        """One or more calls up to the end of their block."""
        invokes = [self._invoke(tool) for tool in tools]
        invoke = self._rule(" | ".join(invokes))
        return f'{invoke}{"" if one_call else "+"} "</" {self.dsml} "tool_calls>"'

    def _invoke(self, tool: recipe.ToolDefinition) -> str:
        if tool.strict:
            schema = self._parameters[tool.name] or {"type": "object"}
            parameters = self._strict_parameters(schema, f"the schema of tool {tool.name!r}")
        else:
            parameters = f"{self._free_parameter()}*"
        name = _literal(f'invoke name="{tool.name}">\n')
        return self._rule(f'"<" {self.dsml} {name} {parameters} "</" {self.dsml} "invoke>\\n"')

    def _strict_parameters(self, schema: dict[str, Any], what: str) -> str:
        """Every property in the order of the schema: a strict schema requires all of them."""
        unknown = sorted(schema.keys() - _PARAMETERS - _DEFINITIONS)
        if unknown or schema.get("type") != "object":
            reason = f"{unknown[0]!r} at its top" if unknown else "it is not of type 'object'"
            raise InvalidRequest(f"{what} cannot be enforced: {reason}", param="tools")
        parameters = []
        for name, value in schema.get("properties", {}).items():
            if not re.fullmatch(f"{_NAME}+", name):
                reason = f"{name!r} cannot name a parameter"
                raise InvalidRequest(f"{what} cannot be enforced: {reason}", param="tools")
            body = _raw_string(value)
            if body is None:
                document = self.json(_property_schema(schema, name), what=what, param="tools")
                body = f'"false\\">" {document} "</"'
            parameters.append(self._parameter(_literal(f'parameter name="{name}" string="'), body))
        return " ".join(parameters)

    def _free_parameter(self) -> str:
        name = f'"parameter name=\\"" /{_NAME}{{1,64}}/ "\\" string=\\""'
        text, value = r'"true\">" /(.|\n)*<\//', self._rule("%json {}")
        return self._parameter(name, f'({text} | "false\\">" {value} "</")')

    def _parameter(self, name: str, body: str) -> str:
        """`body` covers string="...", the value, and the closing tag up to its markup token."""
        return self._rule(f'"<" {self.dsml} {name} {body} {self.dsml} "parameter>\\n"')

    def _rule(self, body: str) -> str:
        name = f"r{len(self._rules)}"
        self.add(name, body)
        return name


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _raw_string(schema: Any) -> str | None:
    """A string as raw text up to the closing tag; None where only JSON's grammar can enforce the
    schema. A token of markup ends the text, so that the text may hold "</" itself."""
    if not isinstance(schema, dict) or schema.get("type") != "string":
        return None
    rest = schema.keys() - _ANNOTATIONS
    if rest <= {"minLength", "maxLength"}:
        least, most = schema.get("minLength", 0), schema.get("maxLength", inf)
        if type(least) is int and (most == inf or type(most) is int) and 0 <= least <= most:
            return rf'"true\">" /(.|\n){{{least},{"" if most == inf else most}}}<\//'
    choices = schema.get("enum", [schema.get("const")])
    if rest in ({"enum"}, {"const"}) and all(isinstance(c, str) and c for c in choices):
        return f'"true\\">" ({" | ".join(map(_literal, choices))}) "</"'
    return None


def _property_schema(schema: dict[str, Any], name: str) -> dict[str, Any]:
    """One property's schema as a document of its own, in which references still lead into the
    schema it comes from."""
    pointer = quote(name.replace("~", "~0").replace("/", "~1"))
    return {
        "$ref": f"{_PARAMETERS_AT}/properties/{pointer}",
        "$defs": {"parameters": _moved(schema)},
    }


def _moved(node: Any) -> Any:
    """`node` with every local reference led to where `_property_schema` keeps the schema."""
    if isinstance(node, list):
        return [_moved(item) for item in node]
    if not isinstance(node, dict):
        return node
    moved = {key: _moved(value) for key, value in node.items()}
    reference = moved.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        moved["$ref"] = _PARAMETERS_AT + reference[1:]
    return moved


def _reason(problem: str) -> str:
    """llguidance's sentence without its place in our grammar."""
    text = problem.rpartition("failed to compile JSON schema: ")[2]
    lines = text.partition("\n   1 |")[0].replace(f"json-schema:///{_PARAMETERS_AT}", "#")
    return " ".join(line.strip() for line in lines.splitlines())
