"""How an engine of two processes ends: as a whole, soon, and saying why."""

import logging
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.checkpoints import Tensors, rewrite
from support.polling import until
from support.rank_group import Driver, is_rank, rank_pids
from support.running_engine import ENGINE
from support.v4 import SMALL

from worker.engine.build import build_engine
from worker.engine.messages import Failed, Setup
from worker.engine.rank_process import RankProcess
from worker.errors import CheckpointError, ConfigError, EngineCrashed
from worker.metrics import EngineMetrics
from worker.model.tiny import write_checkpoint
from worker.parallel.groups import Seat, meeting_point
from worker.request import Request, SamplingParams

TWO = replace(ENGINE, ep_size=2)
GREEDY = SamplingParams(max_tokens=6, temperature=0.0)


@pytest.fixture(scope="module")
def small_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "small"
    write_checkpoint(directory, SMALL)
    return directory


def test_a_rank_that_hangs_is_named_and_ended(small_directory: Path) -> None:
    engine = replace(TWO, ep_timeout_seconds=1)
    driver = Driver(build_engine(small_directory, engine, EngineMetrics("m")))
    pids = rank_pids()
    os.kill(pids[1], signal.SIGSTOP)
    driver.run([Request("a", [5], GREEDY)])
    assert isinstance(driver.crash, EngineCrashed)
    assert "rank 1 does not answer" in str(driver.crash)
    driver.engine.stop()
    assert not any(map(is_rank, pids))


def test_a_rank_that_raises_is_named_and_its_traceback_logged_once(
    small_directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    driver = Driver(build_engine(small_directory, TWO, EngineMetrics("m")))
    no_token = SMALL.vocab_size + 1  # a server would have refused it
    driver.run([Request("a", [no_token], GREEDY)])
    driver.engine.stop()
    assert "rank 0: IndexError in its step loop" in str(driver.crash)
    (record,) = [r for r in caplog.records if "Traceback" in r.getMessage()]
    assert "index out of range" in record.getMessage()
    assert record.__dict__["fields"] == {"rank": 0}


LEAD = """
import sys
from pathlib import Path
from worker.config import EngineConfig
from worker.engine.build import build_engine
from worker.metrics import EngineMetrics

engine = EngineConfig(ep_size=2, pages=128)
group = build_engine(Path(sys.argv[1]), engine, EngineMetrics("m"))
group.start(lambda progress: None, lambda error: None)
print("ready", flush=True)
sys.stdin.read()
"""


def test_no_rank_outlives_the_process_that_serves(small_directory: Path) -> None:
    command = [sys.executable, "-c", LEAD, str(small_directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as leader:
        assert leader.stdout is not None
        assert leader.stdout.readline() == b"ready\n"
        pids = rank_pids(leader.pid)
        assert len(pids) == 2
        leader.kill()
    until(lambda: not any(map(is_rank, pids)), seconds=5, what="the ranks have ended")


def test_a_signal_while_python_starts_is_not_for_the_ranks(tmp_path: Path) -> None:
    """Ctrl-C reaches the whole process group."""
    store = meeting_point()
    setup = Setup(TWO, Seat(0, 1, store.port, 5), threads=1, log_level=logging.ERROR)
    rank = RankProcess(0, tmp_path / "no model", setup)
    (pid,) = until(rank_pids, seconds=5, what="the process is seen")
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    message = rank.hear()
    rank.end()
    assert isinstance(message, Failed)
    assert isinstance(message.error, ConfigError)


def test_a_load_error_is_told_once_as_what_it_is(small_directory: Path, tmp_path: Path) -> None:
    def lose(tensors: Tensors) -> Tensors:
        return {n: t for n, t in tensors.items() if n != "layers.2.ffn.experts.7.w1.weight"}

    broken = rewrite(small_directory, tmp_path / "broken", lose)
    with pytest.raises(CheckpointError, match=r"layers\.2\.ffn\.experts\.7\.w1\.weight: missing"):
        build_engine(broken, TWO, EngineMetrics("m"))
    assert rank_pids() == []


def test_a_size_that_does_not_divide_the_experts_is_refused(small_directory: Path) -> None:
    with pytest.raises(ConfigError, match="--ep-size may be 1, 2, 4, 8"):
        build_engine(small_directory, replace(TWO, ep_size=3), EngineMetrics("m"))
