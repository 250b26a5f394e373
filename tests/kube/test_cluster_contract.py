"""A real API server does what the cluster in memory does: the model is held to what it models."""

from support.cluster_contract import Ending, Reading, Writing


class TestReading(Reading): ...


class TestWriting(Writing): ...


class TestEnding(Ending): ...
