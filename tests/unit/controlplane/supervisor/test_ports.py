"""Ports that are free, taken, or nobody's."""

import os
import socket

import pytest
from support.ports import free_port

from controlplane.supervisor.errors import PortTaken
from controlplane.supervisor.ports import check_port


def test_a_taken_port_names_port_holder_and_flag() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortTaken) as refused:
            check_port("127.0.0.1", port, flag="--admin-port", purpose="admin API")
    message = str(refused.value)
    assert f"Port {port}, meant for the admin API" in message
    assert f"pid {os.getpid()}" in message
    assert "--admin-port PORT" in message


def test_a_free_port_is_fine() -> None:
    check_port("127.0.0.1", free_port(), flag="--port", purpose="gateway")


def test_an_unknown_host_is_a_sentence() -> None:
    with pytest.raises(PortTaken, match="is not an address of this machine"):
        check_port("no such host", 80, flag="--port", purpose="gateway")


def test_a_foreign_address_is_a_sentence() -> None:
    with pytest.raises(PortTaken, match=r"cannot be bound on 192\.0\.2\.1"):
        check_port("192.0.2.1", 8000, flag="--port", purpose="gateway")
