"""DeepSeek's chat format: messages to prompt token ids, and the rules to read the answer by.

The server calls it. The rules are those of `deepseek-recipe`, DeepSeek's own implementation. It
has no name for V4-Flash, whose encoding is V4-Pro's but for the meaning of efforts: see
`EFFORT_PROFILES`. Sampling fields are not its business here; the server reads them itself.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import deepseek_recipe as recipe
import msgspec

from worker.encoding.chat_stream import ChatStream
from worker.encoding.grammar import AnswerGrammar, GrammarCompiler
from worker.encoding.schemas import check_schema
from worker.encoding.tokenizer import Tokenizer
from worker.errors import ConfigError, InvalidParameter, InvalidRequest

# What the recipe must be told so that a released model sees the prompt it was trained with.
# None: the caller named no effort. `none` switches thinking off in every profile.
EFFORT_PROFILES: dict[str, dict[str | None, str]] = {
    "preview": {
        None: "low",
        "minimal": "low",
        "low": "low",
        "medium": "low",
        "high": "low",
        "xhigh": "low",
        "max": "high",
        "ultra": "high",
    },
    "0731": {
        None: "high",
        "minimal": "low",
        "low": "low",
        "medium": "high",
        "high": "high",
        "xhigh": "high",
        "max": "max",
        "ultra": "max",
    },
}
PROMPT_FIELDS = (
    "messages",
    "tools",
    "tool_choice",
    "thinking",
    "response_format",
    "stop",
    "logprobs",
    "top_logprobs",
)
_ALIAS = "deepseek-v4"
_OPTIONS = recipe.ConversionOptions().with_model_alias(_ALIAS, recipe.ModelVersion.DeepseekV4Pro)


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """An encoded conversation and how to read the answer. `top_p` is the model's default;
    `grammar`, where the answer must follow one, serves one answer."""

    token_ids: list[int]
    thinking: bool
    top_p: float
    grammar: AnswerGrammar | None
    request: recipe.ConversationRequest


class ChatEncoding:
    """The chat format of one model. Safe to use from several threads."""

    def __init__(self, tokenizer: Tokenizer, *, effort_profile: str) -> None:
        if effort_profile not in EFFORT_PROFILES:
            known = ", ".join(EFFORT_PROFILES)
            raise ConfigError(f"effort profile {effort_profile!r} is unknown; known: {known}")
        self._efforts = EFFORT_PROFILES[effort_profile]
        self._tokenizer = tokenizer
        self._stream_tokenizer = recipe.Tokenizer.from_str(tokenizer.json)
        self._encoding = recipe.DeepseekV4Encoding()
        self._grammars = GrammarCompiler(tokenizer)

    def encode(self, fields: Mapping[str, Any]) -> ChatPrompt:
        """Render and tokenise the `PROMPT_FIELDS` and `reasoning_effort` of a request body, and
        compile the grammar its answer must follow.

        Raises InvalidRequest, InvalidParameter. Slow for long text and for grammars: call it off
        the event loop.
        """
        request = self._read(fields)
        top_p = request.inference_options.top_p
        named = isinstance(fields.get("tool_choice"), dict)
        one_call = named or fields.get("parallel_tool_calls") is False
        return ChatPrompt(
            token_ids=self._token_ids(request),
            thinking=request.conversation.thinking_mode,
            top_p=1.0 if top_p is None else top_p,
            grammar=self._grammars.compile(request, _parameters(fields), one_call=one_call),
            request=request,
        )

    def prompt_ids(self, fields: Mapping[str, Any]) -> list[int]:
        """The token ids that `encode` gives, without its grammar: for those who only read them."""
        return self._token_ids(self._read(fields))

    def stream(self, prompt: ChatPrompt, *, response_id: str, model: str) -> ChatStream:
        """A parser for the answer to `prompt`."""
        generator = recipe.ChatCompletionRequest.chunk_generator(prompt.request, response_id, model)
        options = prompt.request.parsing_options
        stage = options.thinking_initial_stage
        return ChatStream(
            recipe.StreamProcessor(generator, options, self._stream_tokenizer),
            recipe.ChatCompletionResponse(response_id, model, int(time.time()), 0, 0),
            thinking_end=self._tokenizer.control_id("</think>"),
            reasoning=stage is not None and stage.starts_in_reasoning(),
            logprobs=prompt.request.inference_options.logprobs,
        )

    def _read(self, fields: Mapping[str, Any]) -> recipe.ConversationRequest:
        _refuse_unsupported(fields)
        _check_schemas(fields)
        body = {k: fields[k] for k in PROMPT_FIELDS if fields.get(k) is not None}
        if "thinking" not in body and fields.get("reasoning_effort") is None and _forces_call(body):
            # The format has no thinking before a forced call; clients that force one seldom say so.
            body["thinking"] = {"type": "disabled"}
        if "messages" in body:
            body["messages"] = _as_system(body["messages"])
        return _convert({**body, "model": _ALIAS, "reasoning_effort": self._effort(fields)})

    def _token_ids(self, request: recipe.ConversationRequest) -> list[int]:
        rendered = self._encoding.render_conversation(request.conversation)
        return self._tokenizer.encode_segments(_segments(rendered))

    def _effort(self, fields: Mapping[str, Any]) -> str:
        effort = fields.get("reasoning_effort")
        if effort == "none":
            # An explicit `thinking` outweighs the effort: the recipe then thinks, and the only
            # question left is how a caller who named no degree of it shall be served.
            thinking = fields.get("thinking")
            explicit = isinstance(thinking, dict) and thinking.get("type") == "enabled"
            return self._efforts[None] if explicit else "none"
        if not isinstance(effort, str | None):
            raise InvalidRequest("reasoning_effort must be a string", param="reasoning_effort")
        if effort not in self._efforts:
            known = ", ".join(["none", *(e for e in self._efforts if e)])
            raise InvalidParameter(
                f"reasoning_effort must be one of {known}", param="reasoning_effort"
            )
        return self._efforts[effort]


def _refuse_unsupported(fields: Mapping[str, Any]) -> None:
    """What would need eyes or another grammar is refused rather than quietly dropped."""
    response_format = fields.get("response_format")
    kind = response_format.get("type") if isinstance(response_format, dict) else None
    if kind not in (None, "text", "json_object", "json_schema"):
        raise InvalidRequest(
            f"response_format {kind!r} is not supported; use 'text', 'json_object' or "
            "'json_schema'",
            param="response_format",
        )
    for i, part in _content_parts(fields.get("messages")):
        if part.get("type") != "text":
            raise InvalidRequest(
                f"content of type {part.get('type')!r} is not supported; only text is",
                param=f"messages[{i}].content",
            )


def _forces_call(fields: Mapping[str, Any]) -> bool:
    choice = fields.get("tool_choice")
    return choice == "required" or isinstance(choice, dict)


def _check_schemas(fields: Mapping[str, Any]) -> None:
    """Looks at what will be enforced, whatever the form of the rest."""
    response_format = fields.get("response_format")
    if isinstance(response_format, dict):
        check_schema(response_format, param="response_format")
    tools = fields.get("tools")
    for i, tool in enumerate(tools if isinstance(tools, list) else []):
        function = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(function, dict) and function.get("strict"):
            check_schema(function, param=f"tools[{i}].function")


def _parameters(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Every tool's schema by name. The recipe has checked the form of `tools`."""
    functions = [tool["function"] for tool in fields.get("tools") or []]
    return {function["name"]: function.get("parameters") for function in functions}


def _content_parts(messages: object) -> Iterator[tuple[int, dict[str, Any]]]:
    """Every part of multi-part content, with its message's index."""
    for i, message in enumerate(messages if isinstance(messages, list) else []):
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else []:
            if isinstance(part, dict):
                yield i, part


def _as_system(messages: Any) -> Any:
    """Messages with the role `developer` as such of the role `system`, which it replaces at OpenAI.
    (In DeepSeek's own encoder that name is a user's turn with tools, which no OpenAI client means;
    its API and the recipe do not know it.)"""
    if not isinstance(messages, list):
        return messages
    return [
        {**message, "role": "system"}
        if isinstance(message, dict) and message.get("role") == "developer"
        else message
        for message in messages
    ]


def _convert(body: dict[str, Any]) -> recipe.ConversationRequest:
    try:
        return recipe.ChatCompletionRequest(body).convert(_OPTIONS)
    except recipe.ConversionError as error:
        raise InvalidRequest(msgspec.json.decode(error.body)["error"]["message"]) from None
    except (RecursionError, OverflowError) as error:
        raise InvalidRequest(str(error)) from None
    except UnicodeEncodeError:
        raise InvalidRequest("the request holds text that is not valid Unicode") from None
    except ValueError as error:
        message = str(error).removeprefix("invalid request body: ")
        kind = InvalidParameter if message.startswith("unknown variant") else InvalidRequest
        raise kind(message) from None


def _segments(rendered: recipe.RenderedPrompt) -> list[tuple[str, bool]]:
    """The prompt cut into (text, is one control token)."""
    segments: list[tuple[str, bool]] = []
    at = 0
    for start, end in rendered.special_ranges:
        segments.append((rendered.prompt[at:start], False))
        segments.append((rendered.prompt[start:end], True))
        at = end
    return [*segments, (rendered.prompt[at:], False)]
