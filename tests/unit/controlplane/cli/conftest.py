"""Fixtures of commands that talk to the admin API."""

from support.command import command

__all__ = ["command"]
