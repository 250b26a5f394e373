"""Decides what every forward computes, in plain Python."""

from worker.scheduler.scheduler import Progress, Scheduler

__all__ = ["Progress", "Scheduler"]
