"""DATABASE_URL and REDIS_URL that cannot do: a sentence, which quotes no password."""

import socket

import pytest

from controlplane.supervisor.errors import SupervisorError
from controlplane.supervisor.given import check_database_url, check_redis_url


@pytest.mark.parametrize(
    "url",
    ["secret", "mysql://u:secret@h/d", "postgresql://u:secret@h:port/d", "postgresql:/secret"],
)
def test_what_is_no_postgresql_url_is_a_sentence(url: str) -> None:
    with pytest.raises(SupervisorError, match="DATABASE_URL is not a URL such as") as caught:
        check_database_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_both_spellings_of_postgresql_pass(scheme: str) -> None:
    check_database_url(f"{scheme}://user@host/database")


@pytest.mark.parametrize("url", ["secret", "http://u:secret@h", "redis://u:secret@h:port"])
def test_what_is_no_redis_url_is_a_sentence(url: str) -> None:
    with pytest.raises(SupervisorError, match="REDIS_URL is not a URL such as") as caught:
        check_redis_url(url)
    assert "secret" not in str(caught.value)


def test_a_store_that_does_not_answer_is_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(SupervisorError, match=r"REDIS_URL does not answer .*unset REDIS_URL"):
        check_redis_url(f"redis://127.0.0.1:{port}/0")


def test_a_store_that_answers_passes(redis_url: str) -> None:
    check_redis_url(redis_url)
