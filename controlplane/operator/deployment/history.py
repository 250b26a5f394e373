"""What a deployment's load was: the windows of the scaling law, kept in memory by `controller`.

A new operator begins with an empty history, and nothing shrinks before a whole window was seen.
"""

from dataclasses import dataclass, replace

from controlplane.operator.deployment.judgement import NONE, Evidence

EVIDENCE_SECONDS = 60.0  # what gateways' latencies cover
GAP_SECONDS = 60.0  # not looked at for longer: what was asked meanwhile is not known


@dataclass(frozen=True)
class History:
    """One deployment's recent past. Times are seconds since 1970 UTC.

    Attributes:
        since: the beginning of what was seen without a gap.
        seen_at: the last look.
        loads: (moment, requests held and in flight), oldest first; each holds since the one before.
        wanted: (moment, replicas) that may still be the most of the stabilisation window: falling.
        busy_at: the last moment with a request, a loading replica or a missing signal.
        step: the rollout's step that `candidate` and `current` are evidence of.
        evidence_since: since when they are, without a missing report.
        evidence_at: the end of the last minute that was added to them.
    """

    since: float
    seen_at: float = 0.0
    loads: tuple[tuple[float, float], ...] = ()
    wanted: tuple[tuple[float, int], ...] = ()
    busy_at: float = 0.0
    step: str = ""
    evidence_since: float = 0.0
    evidence_at: float = 0.0
    candidate: Evidence = NONE
    current: Evidence = NONE

    def looked_at(self, now: float) -> "History":
        """Return it at another look; after a gap all windows begin anew."""
        if now - self.seen_at <= GAP_SECONDS:
            return replace(self, seen_at=now)
        return replace(self, since=now, seen_at=now, busy_at=now, loads=())

    def with_load(self, now: float, load: float, *, keep_seconds: float) -> "History":
        """Return it with one more sample; those before the window go, but for the first."""
        kept = [it for it in self.loads if now - keep_seconds < it[0] < now]
        return replace(self, loads=(*kept, (now, load)))

    def with_wanted(self, now: float, wanted: int, *, keep_seconds: float) -> "History":
        """Return it with one more recommendation; what it outbids can never be the most again."""
        kept = [it for it in self.wanted if it[1] > wanted and now - it[0] < keep_seconds]
        return replace(self, wanted=(*kept, (now, wanted)))

    def mean_load(self) -> float | None:
        """Return the time-weighted mean of the samples; None without any."""
        if not self.loads:
            return None
        spans = [
            (after[0] - before[0], after[1])
            for before, after in zip(self.loads, self.loads[1:], strict=False)
        ]
        total = sum(seconds for seconds, _ in spans)
        if total <= 0:
            return self.loads[-1][1]
        return sum(seconds * load for seconds, load in spans) / total

    def most_wanted(self, now: float, window_seconds: float) -> int | None:
        """Return the most that was recommended in the window; None before a whole one was seen."""
        if now - self.since < window_seconds or not self.wanted:
            return None
        return max(wanted for _, wanted in self.wanted)

    def with_evidence(
        self, step: str, now: float, candidate: Evidence, current: Evidence
    ) -> "History":
        """Return it with the last minute's figures, once a minute; a new step begins anew."""
        if step != self.step:
            begun = replace(self, step=step, evidence_since=now, evidence_at=now)
            return replace(begun, candidate=NONE, current=NONE)
        if not step or now - self.evidence_at < EVIDENCE_SECONDS:
            return self
        return replace(
            self,
            evidence_at=now,
            candidate=self.candidate + candidate,
            current=self.current + current,
        )
