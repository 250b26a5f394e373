"""What an engine tells Prometheus, under vLLM's names where vLLM has one. The server exposes it.

Ranks that are processes of their own count for themselves and send `samples`; the server's metrics
`absorb` them, and show one engine.
"""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

LATENCY_BUCKETS_SECONDS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip


AVERAGED = {"vllm:kv_cache_usage_perc"}  # over ranks; everything else adds up

Key = tuple[str, tuple[tuple[str, str], ...]]  # a sample's name, and its labels but the model's
SUFFIXES = ("", "_total", "_bucket", "_count", "_sum")  # from a metric's name to its samples'


class EngineMetrics:
    """One engine's metrics in a registry of their own."""

    def __init__(self, model_name: str) -> None:
        self._registry = CollectorRegistry()
        self._labels = {"model_name": model_name}
        self._ranks: dict[int, dict[Key, float]] = {}
        self.running = self._gauge("num_requests_running", "Requests in the running batch")
        self.waiting = self._gauge("num_requests_waiting", "Requests that wait for room")
        self.page_usage = self._gauge("kv_cache_usage_perc", "KV pages in use; 1 is all")
        self.steps = self._counter("engine_steps", "Forwards of the model")
        self.step_tokens = self._counter("engine_step_tokens", "Tokens computed in all forwards")
        self.preemptions = self._counter("num_preemptions", "Requests computed again")
        self.prompt_tokens = self._counter("prompt_tokens", "Prompt tokens, hits included")
        self.generation_tokens = self._counter("generation_tokens", "Tokens generated")
        self.prefix_queries = self._counter("prefix_cache_queries", "Prompt tokens looked up")
        self.prefix_hits = self._counter("prefix_cache_hits", "Prompt tokens not recomputed")
        self.first_token_seconds = self._histogram("time_to_first_token_seconds", "TTFT")
        self.inter_token_seconds = self._histogram("inter_token_latency_seconds", "Token to token")
        self.request_seconds = self._histogram("e2e_request_latency_seconds", "Whole requests")
        self._drafts = self._counter("spec_decode_num_drafts", "Forwards that tried drafts")
        self._draft_tokens = self._counter("spec_decode_num_draft_tokens", "Drafts tried")
        self._accepted = self._counter("spec_decode_num_accepted_tokens", "Drafts that were right")
        self._accepted_at = Counter(
            "vllm:spec_decode_num_accepted_tokens_per_pos",
            "Drafts that were right, by how far ahead",
            ["model_name", "position"],
            registry=self._registry,
        )
        self._success = Counter(
            "vllm:request_success",
            "Requests by how they ended",
            ["model_name", "finished_reason"],
            registry=self._registry,
        )

    def finished(self, reason: str) -> None:
        """Count a request that has ended."""
        self._success.labels(**self._labels, finished_reason=reason).inc()

    def drafted(self, tried: int, accepted: int) -> None:
        """Count one sequence's forward behind which `tried` drafts ran, the first `accepted` of
        them right."""
        self._drafts.inc()
        self._draft_tokens.inc(tried)
        self._accepted.inc(accepted)
        for position in range(accepted):
            self._accepted_at.labels(**self._labels, position=str(position)).inc()

    def text(self) -> bytes:
        """Prometheus exposition text."""
        return generate_latest(self if self._ranks else self._registry)

    def samples(self) -> dict[Key, float]:
        """Every value that is not zero, but times of creation."""
        return {
            _key(sample): sample.value
            for family in self._registry.collect()
            for sample in family.samples
            if sample.value and not sample.name.endswith("_created")
        }

    def absorb(self, rank: int, samples: dict[Key, float]) -> None:
        """Take the latest samples of a rank in place of its earlier ones."""
        self._ranks[rank] = samples

    def collect(self) -> Iterator[Metric]:
        """This engine's own metrics and those of its ranks, as one; prometheus_client calls it."""
        theirs = self._ranks_together()
        for family in self._registry.collect():
            own = [s._replace(value=s.value + theirs.pop(_key(s), 0.0)) for s in family.samples]
            names = {family.name + suffix for suffix in SUFFIXES}
            only_theirs = [
                Sample(name, {**self._labels, **dict(labels)}, value)
                for (name, labels), value in theirs.items()
                if name in names
            ]
            family.samples = own + only_theirs
            yield family

    def _ranks_together(self) -> dict[Key, float]:
        together: dict[Key, float] = {}
        ranks = list(self._ranks.values())
        for samples in ranks:
            for key, value in samples.items():
                share = value / len(ranks) if key[0] in AVERAGED else value
                together[key] = together.get(key, 0.0) + share
        return together

    def _gauge(self, name: str, text: str) -> Gauge:
        gauge = Gauge(f"vllm:{name}", text, ["model_name"], registry=self._registry)
        return gauge.labels(**self._labels)

    def _counter(self, name: str, text: str) -> Counter:
        counter = Counter(f"vllm:{name}", text, ["model_name"], registry=self._registry)
        return counter.labels(**self._labels)

    def _histogram(self, name: str, text: str) -> Histogram:
        histogram = Histogram(
            f"vllm:{name}",
            text,
            ["model_name"],
            registry=self._registry,
            buckets=LATENCY_BUCKETS_SECONDS,
        )
        return histogram.labels(**self._labels)


def _key(sample: Sample) -> Key:
    return sample.name, tuple(item for item in sample.labels.items() if item[0] != "model_name")
