"""LangChain's standard suites of chat models, against the whole product with the demo model.

None of their tests is overridden. What is skipped, by the suites themselves, for three reasons:

1. Text is all that goes in, images, audio and PDF are refused with 400: `test_image_inputs`,
   `test_audio_inputs`, `test_pdf_inputs`.
2. The same in a tool's result: `test_image_tool_message`, `test_pdf_tool_message`.
3. There are no recordings to time streams against: `test_stream_time`.

Two minutes long, so run by `make storm`. Six of the 101 fail with the model that comes along today,
which is half trained: `test_tool_calling_with_no_arguments` and `test_unicode_tool_call_integration`
with both clients, `test_structured_output[pydantic]` and its asynchronous form with the first.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_deepseek import ChatDeepSeek
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests
from pydantic import SecretStr
from support.product import product

pytestmark = pytest.mark.storm

MODEL = "deepseek-v4-flash"
MOST_TOKENS = 400


@pytest.fixture(scope="module")
def demo_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What `up.json` says of a product that serves the demo model."""
    with product(tmp_path_factory.mktemp("demo"), "demo") as shared:
        yield shared.up()


@pytest.mark.filterwarnings("ignore:Received a Pydantic BaseModel V1 schema:UserWarning")
class Suite(ChatModelIntegrationTests):
    """What both clients have in common."""

    @pytest.fixture(autouse=True)
    def _product(self, demo_up: dict[str, Any]) -> None:
        self.up = demo_up

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "model": MODEL,
            "base_url": self.up["base_url"],
            "api_key": SecretStr(self.up["api_key"]),
            "temperature": 0,
            "max_tokens": MOST_TOKENS,
            "max_retries": 0,
            # LangChain keeps one asynchronous client; each test's event loop is another.
            "default_headers": {"Connection": "close"},
        }

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return MODEL


class TestChatOpenAI(Suite):
    """langchain-openai."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI


class TestChatDeepSeek(Suite):
    """langchain-deepseek."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatDeepSeek
