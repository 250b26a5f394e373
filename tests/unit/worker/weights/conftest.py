"""A server of weights, and both ways to read from it."""

from collections.abc import Iterator

import pytest
from support.fetching import FILES, bucket, hub
from support.weights_server import WeightsServer, weights_server

from worker.weights.source import Source


@pytest.fixture
def server() -> Iterator[WeightsServer]:
    with weights_server(FILES) as running:
        yield running


@pytest.fixture(params=["hub", "bucket"])
def source(request: pytest.FixtureRequest, server: WeightsServer) -> Source:
    return hub(server) if request.param == "hub" else bucket(server)
