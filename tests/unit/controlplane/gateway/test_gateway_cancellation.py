import asyncio

import pytest

from controlplane.gateway.cancellation import Aborted, Cancellation


async def test_sleep_ends_by_itself_and_leaves_nothing_attached() -> None:
    cancellation = Cancellation()
    await cancellation.sleep(0.001)
    cancellation.set()
    with pytest.raises(Aborted):
        cancellation.check()


async def test_sleep_ends_with_the_request() -> None:
    cancellation = Cancellation()
    sleeping = asyncio.create_task(cancellation.sleep(60))
    await asyncio.sleep(0)
    cancellation.set()
    async with asyncio.timeout(1):
        with pytest.raises(Aborted):
            await sleeping


async def test_a_cancelled_request_does_not_sleep() -> None:
    cancellation = Cancellation()
    cancellation.set()
    async with asyncio.timeout(1):
        with pytest.raises(Aborted):
            await cancellation.sleep(60)
