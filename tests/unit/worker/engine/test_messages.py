import pickle
from dataclasses import asdict

import pytest
from support.structured import ASK, NO_THINKING, SCHEMAS, json_schema

from worker.batch import TokenLogprob
from worker.encoding.chat import ChatEncoding
from worker.encoding.grammar import AnswerForm, AnswerGrammar, Foretold, GrammarCompiler
from worker.encoding.tokenizer import Tokenizer
from worker.engine.messages import Step, Submit, dump, load
from worker.errors import CheckpointError
from worker.request import FinishReason, Request, SamplingParams
from worker.scheduler import Progress

SAMPLING = SamplingParams(max_tokens=3, seed=5, logit_bias={1: 2.0}, stop_token_ids=frozenset({1}))


def no_grammar(form: AnswerForm) -> AnswerGrammar:
    raise AssertionError(form)


def test_a_request_arrives_whole() -> None:
    sent = Request("r", [1, 2], SAMPLING, cache_salt=b"salt", output_token_ids=[7])
    assert asdict(load(dump(Submit(sent)), no_grammar)) == asdict(Submit(sent))


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_grammar_is_built_anew_and_allows_the_same(
    tokenizer: Tokenizer, chat_encoding: ChatEncoding, compiler: GrammarCompiler, name: str
) -> None:
    fields = {"messages": ASK, "response_format": json_schema(SCHEMAS[name]), **NO_THINKING}
    grammar = chat_encoding.encode(fields).grammar
    request = load(dump(Submit(Request("r", [1], SAMPLING, grammar=grammar))), compiler.build)
    built = request.request.grammar
    assert built is not grammar
    output: list[int] = []
    for _ in range(6):
        allowed = built.allowed(output)
        assert allowed == grammar.allowed(output)
        output.append(next(i for i in range(len(allowed) * 8) if allowed[i // 8] >> i % 8 & 1))


def test_a_grammar_within_another_is_built_anew_too(
    tokenizer: Tokenizer, chat_encoding: ChatEncoding, compiler: GrammarCompiler
) -> None:
    fields = {"messages": ASK, "response_format": json_schema(SCHEMAS["object"]), **NO_THINKING}
    inner = chat_encoding.encode(fields).grammar
    grammar = Foretold([3], inner, vocab_size=tokenizer.vocab_size)
    request = load(dump(Submit(Request("r", [1], SAMPLING, grammar=grammar))), compiler.build)
    assert request.request.grammar.allowed([]) == grammar.allowed([])
    (brace,) = tokenizer.encode("{")
    assert request.request.grammar.allowed([brace]) == grammar.allowed([brace])


@pytest.fixture(scope="module")
def compiler(tokenizer: Tokenizer) -> GrammarCompiler:
    return GrammarCompiler(tokenizer)


def test_progress_brings_the_servers_request_up_to_date() -> None:
    there, here = Request("r", [1, 2], SAMPLING), Request("r", [1, 2], SAMPLING)
    there.cache_hit_tokens, there.computed_tokens = 1, 2
    there.output_token_ids, there.finish_reason = [9], FinishReason.LENGTH
    progress = Progress(there, TokenLogprob(9, -0.5), [], FinishReason.LENGTH)
    arrived = pickle.loads(pickle.dumps(Step.of(progress))).onto(here)
    assert arrived == Progress(here, TokenLogprob(9, -0.5), [], FinishReason.LENGTH)
    assert asdict(here) == asdict(there)


def test_a_load_error_arrives_as_it_was() -> None:
    error = CheckpointError("it does not match", ["a: missing", "b: unexpected"])
    arrived = pickle.loads(pickle.dumps(error))
    assert isinstance(arrived, CheckpointError)
    assert (str(arrived), arrived.problems) == (str(error), error.problems)
