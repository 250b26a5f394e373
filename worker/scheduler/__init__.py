"""Decides what every forward computes, in plain Python."""

from worker.scheduler.progress import Progress
from worker.scheduler.scheduler import Scheduler

__all__ = ["Progress", "Scheduler"]
