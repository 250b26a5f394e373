import httpx

MODEL = "deepseek-v4-flash"


def test_health_tells_the_load(http: httpx.Client) -> None:
    assert http.get("/health").json() == {
        "status": "ok",
        "model": MODEL,
        "max_model_len": 8192,
        "running": 0,
        "waiting": 0,
    }


def test_models_lists_the_served_one(http: httpx.Client) -> None:
    (card,) = http.get("/v1/models").json()["data"]
    assert (card["id"], card["max_model_len"]) == (MODEL, 8192)


def test_tokenize_counts_what_a_chat_is_charged_for(http: httpx.Client) -> None:
    messages = [{"role": "user", "content": "Grüß dich 🎉"}]
    counted = http.post("/tokenize", json={"messages": messages}).json()
    body = {"model": MODEL, "messages": messages, "max_tokens": 1}
    charged = http.post("/v1/chat/completions", json=body).json()["usage"]["prompt_tokens"]
    assert counted["count"] == len(counted["tokens"]) == charged
    assert counted["max_model_len"] == 8192


def test_tokenize_of_a_long_text(http: httpx.Client) -> None:
    response = http.post("/tokenize", json={"prompt": "lorem ipsum " * 20_000})
    assert response.json()["count"] >= 40_000


def test_metrics_count_tokens_under_vllms_names(http: httpx.Client) -> None:
    def total(name: str) -> float:
        lines = http.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    names = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total")
    before = [total(name) for name in names]
    body = {"model": MODEL, "prompt": [5, 6, 7], "max_tokens": 2, "ignore_eos": True}
    http.post("/v1/completions", json=body)
    assert [total(name) - b for name, b in zip(names, before, strict=True)] == [3, 2]
    assert total('vllm:request_success_total{finished_reason="length"') >= 1
