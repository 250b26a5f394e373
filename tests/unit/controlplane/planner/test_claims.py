"""Every published statement has a verdict, and its derivation has the right numbers in it."""

import pytest

from controlplane.planner.claims import CLAIMS

EXPECTED = {
    "one-h200-fits": ("refuted", "148.6 GiB"),
    "two-a100-fit-158gb": ("refuted", "72.0 GiB"),
    "fp8-weights-284gb": ("refuted", "159.6 GB"),
    "kv-160gb-at-1m": ("refuted", "4.05 GB in FP8, 7.23 GB"),
    "kv-20gb-at-128k": ("refuted", "0.52 GB"),
    "single-h100-int4": ("confirmed", "142 GB"),
    "bf16-needs-6-h200": ("confirmed", "short"),
    "kv-10x-smaller": ("depends", "12.5 times smaller than V3.2's, 6.4 times"),
    "cost-1.98-per-m": ("confirmed", "1.98 $"),
    "context-128k": ("refuted", "1048576"),
    "four-4090-int4": ("refuted", "142 GB"),
    "a100-excluded": ("depends", "engine"),
    "params-293b": ("refuted", "284.3 billion and 6.6 billion for drafting are 290.9"),
    "kv-e5m2": ("refuted", "fp8_ds_mla"),
    "dtype-fp8": ("refuted", "no choice"),
    "vllm-0.9-0.19": ("refuted", "0.20"),
    "sessions-h200x4": ("refuted", "/ 23 at"),
    "breakeven-100s-of-m": ("confirmed", "1.45 billion"),
    "output-384k": ("confirmed", "393216"),
    "saving-94-percent": ("depends", "0.238"),
    "flash-35-tok-s": ("depends", "83.8"),
    "layers-43-experts": ("confirmed", "43 layers, 256 experts, 13"),
    "index-topk-1024": ("refuted", "512"),
}


def test_no_statement_is_left_without_a_verdict() -> None:
    assert CLAIMS.keys() == EXPECTED.keys()


@pytest.mark.parametrize("claim", EXPECTED)
def test_verdicts_rest_on_computed_numbers(claim: str) -> None:
    word, number = EXPECTED[claim]
    verdict = CLAIMS[claim]()
    assert verdict.word == word
    assert number in verdict.derivation
