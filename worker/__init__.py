"""Flashplane's GPU worker: the DeepSeek-V4-Flash runtime behind an OpenAI-style wire."""

from importlib.metadata import version

__version__ = version("flashplane")
