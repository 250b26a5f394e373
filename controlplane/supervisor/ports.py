"""Are the ports free, and if not, who has them; called by `up` and `doctor`."""

import socket

import psutil

from controlplane.supervisor.errors import PortTaken


def check_port(host: str, port: int, *, flag: str, purpose: str) -> None:
    """Make sure that `host:port` can be bound.

    Raises:
        PortTaken: it cannot; the message names the port, its holder if known, and the flag.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror:
        raise PortTaken(
            f"{host!r} is not an address of this machine: give --host one that is, such as "
            "127.0.0.1 or 0.0.0.0."
        ) from None
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As the servers do: connections of an earlier server in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise PortTaken(
                f"Port {port}, meant for the {purpose}, cannot be bound on {host} "
                f"({error.strerror}{_held_by(port)}): choose another with {flag} PORT."
            ) from None


def _held_by(port: int) -> str:
    try:
        connections = psutil.net_connections(kind="tcp")
    except (psutil.AccessDenied, PermissionError):
        return ""
    for connection in connections:
        if (
            connection.status == psutil.CONN_LISTEN
            and connection.laddr
            and connection.laddr.port == port
            and connection.pid is not None
        ):
            try:
                return f", held by {psutil.Process(connection.pid).name()}, pid {connection.pid}"
            except psutil.NoSuchProcess:
                return ""
    return ""
