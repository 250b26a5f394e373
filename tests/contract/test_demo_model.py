"""The demo model's greedy answers, as the engine of `make up` gives them with drafts, against
Hugging Face transformers on the same installed checkpoint."""

from pathlib import Path

import pytest
import torch
from support.oracle import TOLERANCE, oracle, oracle_logits
from support.running_engine import RunningEngine

from worker.config import EngineConfig, ModelConfig
from worker.demo.export import install
from worker.demo.packaged import content
from worker.encoding.chat import ChatEncoding
from worker.encoding.tokenizer import Tokenizer
from worker.engine.build import build_scheduler
from worker.engine.client import EngineClient
from worker.engine.core import EngineCore
from worker.metrics import EngineMetrics
from worker.request import SamplingParams
from worker.runner.model_runner import ModelRunner

ANSWER_TOKENS = 24
SERVED = EngineConfig(
    max_model_len=2_048, max_sequences=4, max_batch_tokens=1_024, pages=32, draft_tokens=1
)
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather in a town",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}},
    },
}
NO_THINKING = {"thinking": {"type": "disabled"}}


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


QUESTIONS = {
    "small talk": {"messages": ask("Hello!"), **NO_THINKING},
    "thinking": {"messages": ask("What is 17 + 25?")},
    "a tool": {"messages": ask("What is the weather in Ulm?"), "tools": [TOOL], **NO_THINKING},
    "beyond the window": {
        "messages": ask("Remember the word amber. " + "One, two, three. " * 150 + "Which word?"),
        **NO_THINKING,
    },
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("demo") / "model"
    install(content(), directory)
    return directory


async def test_greedy_answers_equal_those_of_transformers(directory: Path) -> None:
    """One forward over prompt and answer tells what transformers would say after each token, as
    long as it has said the same so far. Where its best two are closer than the two programs'
    arithmetic, either is right, and the engine's is followed."""
    config = ModelConfig.from_dir(directory)
    chat = ChatEncoding(Tokenizer(directory / "tokenizer.json"), effort_profile="preview")
    prompts = {name: chat.prompt_ids(fields) for name, fields in QUESTIONS.items()}
    assert len(prompts["beyond the window"]) > config.sliding_window
    answers = await greedy(directory, prompts)
    model = oracle(directory, config)
    for name, prompt in prompts.items():
        answer = answers[name]
        assert answer
        logits = oracle_logits(model, prompt + answer[:-1])[len(prompt) - 1 :]
        said = logits.gather(1, torch.tensor(answer)[:, None])[:, 0]
        assert (logits.amax(-1) - said).max() <= 2 * TOLERANCE * logits.abs().max(), name


async def greedy(directory: Path, prompts: dict[str, list[int]]) -> dict[str, list[int]]:
    """The engine's own answers, at temperature 0."""
    scheduler = build_scheduler(ModelConfig.from_dir(directory), SERVED, revision="demo")
    runner = ModelRunner(directory, SERVED)
    client = EngineClient(EngineCore(scheduler, runner, EngineMetrics("demo")), max_requests=4)
    await client.start()
    engine = RunningEngine(client, scheduler, runner)
    sampling = SamplingParams(max_tokens=ANSWER_TOKENS, temperature=0)
    answers = {}
    for name, prompt in prompts.items():
        request = await engine.generate(name, prompt, sampling)
        answers[name] = list(request.output_token_ids)
    await client.stop()
    return answers
