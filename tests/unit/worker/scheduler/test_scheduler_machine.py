"""Any interleaving of arrivals, steps, aborts and expiry, in a cache that is always too small."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.paper_runner import PaperRunner, next_token

from worker.batch import Batch
from worker.cache.manager import CacheManager
from worker.request import FinishReason, Request, SamplingParams
from worker.scheduler import Scheduler

PAGE = 4
MAX_MODEL_LEN = 24
PROMPTS = [list(range(20)), [*range(9), *range(30, 40)], [7] * 16, [*range(12), 3], [1], [5, 6]]


class SchedulerMachine(RuleBasedStateMachine):
    @initialize(
        pages=st.integers(6, 12),
        sequences=st.integers(1, 4),
        snapshots=st.integers(0, 4),
        budget=st.integers(4, 20),
        draft_tokens=st.integers(0, PAGE - 1),
        interval=st.integers(0, 2),
        reach=st.none() | st.integers(1, 10),
    )
    def build(
        self,
        pages: int,
        sequences: int,
        snapshots: int,
        budget: int,
        draft_tokens: int,
        interval: int,
        reach: int | None,
    ) -> None:
        cache = CacheManager(
            pages=pages,
            state_slots=sequences,
            snapshots=snapshots,
            page_tokens=PAGE,
            snapshot_interval_pages=interval,
            state_reach_tokens=reach,
        )
        self.scheduler = Scheduler(
            cache,
            max_sequences=sequences,
            max_batch_tokens=budget,
            max_model_len=MAX_MODEL_LEN,
            clock=lambda: self.now,
        )
        self.now = 0.0
        self.budget = budget
        self.runner = PaperRunner(PAGE, draft_tokens, reach)
        self.live: dict[str, Request] = {}
        self.batch: Batch | None = None
        self.scored: dict[str, list[int]] = {}
        self.count = 0
        self.preempted = False

    @rule(
        prompt=st.sampled_from(PROMPTS),
        cut=st.integers(0, 5),
        max_tokens=st.integers(1, 12),
        salt=st.sampled_from([b"", b"other"]),
        echo=st.booleans(),
        priority=st.sampled_from([0, 0, 1, -1]),
        key=st.sampled_from(["", "a", "b"]),
        patience=st.none() | st.integers(0, 9),
    )
    def add(
        self,
        prompt: list[int],
        cut: int,
        max_tokens: int,
        salt: bytes,
        echo: bool,
        priority: int,
        key: str,
        patience: int | None,
    ) -> None:
        self.count += 1
        sampling = SamplingParams(
            max_tokens=max_tokens,
            stop_token_ids=frozenset({0, 1}),
            prompt_logprobs=0 if echo else None,
        )
        tokens = prompt[: max(1, len(prompt) - cut)]
        request = Request(
            f"r{self.count}",
            list(tokens),
            sampling,
            cache_salt=salt,
            priority=priority,
            fairness_key=key,
            deadline=None if patience is None else self.now + patience,
        )
        self.live[request.request_id] = request
        self.scored[request.request_id] = []
        self.scheduler.add(request)

    @precondition(lambda self: self.batch is None)
    @rule()
    def schedule(self) -> None:
        self.batch = self.scheduler.schedule()
        assert (self.batch is None) == (not self.live)
        if self.batch is not None:
            assert self.batch.token_count <= self.budget
            self.now += 1

    @precondition(lambda self: self.batch is None)
    @rule()
    def expire(self) -> None:
        due = {n for n, r in self.live.items() if r.deadline is not None and r.deadline <= self.now}
        assert {p.request.request_id for p in self.scheduler.expire()} == due
        for name in due:
            self._outputs_follow(self.live.pop(name))

    @precondition(lambda self: self.batch is not None)
    @rule()
    def update(self) -> None:
        assert self.batch is not None
        progress = self.scheduler.update(self.runner.execute(self.batch))
        self.batch = None
        for p in progress:
            self.scored[p.request.request_id] += [t.token_id for t in p.prompt_logprobs]
            if p.finish_reason is not None:
                self._finished(self.live.pop(p.request.request_id))

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.live)))
        del self.live[name]
        self.scheduler.abort(name)

    @invariant()
    def consistent(self) -> None:
        if hasattr(self, "scheduler"):
            self.scheduler.check()

    def teardown(self) -> None:
        """Whatever is left finishes, and nothing stays held."""
        if not hasattr(self, "scheduler"):
            return
        for _ in range(2_000):
            if self.batch is None:
                self.schedule()
            if self.batch is None:
                break
            self.update()
        assert not self.live, "no progress"
        assert (self.scheduler.running, self.scheduler.waiting) == (0, 0)
        assert self.scheduler.page_usage == 0.0

    def _outputs_follow(self, request: Request) -> list[int]:
        tokens = list(request.prompt_token_ids)
        for token in request.output_token_ids:
            assert token == next_token(tokens, 0)
            tokens.append(token)
        assert len(tokens) <= MAX_MODEL_LEN
        return tokens

    def _finished(self, request: Request) -> None:
        tokens = self._outputs_follow(request)
        if request.finish_reason is FinishReason.STOP:
            assert request.output_token_ids[-1] in request.sampling.stop_token_ids
        assert request.cache_hit_tokens < len(request.prompt_token_ids)
        if self.scheduler.take_preemptions() == 0 and not self.preempted:
            spent = self.runner.computed_tokens[request.request_id]
            assert spent == len(tokens) - 1 - request.cache_hit_tokens
        else:
            self.preempted = True
        if request.sampling.prompt_logprobs is not None:
            assert self.scored[request.request_id] == request.prompt_token_ids[1:]


TestSchedulerMachine = SchedulerMachine.TestCase
TestSchedulerMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
