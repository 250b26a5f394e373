"""Where Unix sockets go."""

import socket
from pathlib import Path

from controlplane.supervisor.sockets import (
    LONGEST_SOCKET_NAME,
    fits,
    remove_short_folder,
    socket_folder,
)


def bind(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / LONGEST_SOCKET_NAME))
    (folder / LONGEST_SOCKET_NAME).unlink()


def deep(tmp_path: Path) -> Path:
    folder = tmp_path / ("d" * 60) / ("e" * 60)
    folder.mkdir(parents=True)
    return folder


def test_a_short_path_keeps_the_sockets_at_home(server_folder: Path) -> None:
    home = server_folder / "home"
    home.mkdir()
    folder = socket_folder(home)
    assert folder == home / "run"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert socket_folder(home) == folder
    bind(folder)


def test_a_deep_path_gets_a_short_folder_and_remembers_it(tmp_path: Path) -> None:
    home = deep(tmp_path)
    assert not fits(home / "run")
    folder = socket_folder(home)
    assert folder.stat().st_mode & 0o777 == 0o700
    bind(folder)
    assert socket_folder(home) == folder
    remove_short_folder(home)
    assert not folder.exists()
    assert not (home / "run").is_symlink()


def test_a_short_folder_that_vanished_is_replaced(tmp_path: Path) -> None:
    home = deep(tmp_path)
    first = socket_folder(home)
    first.rmdir()
    second = socket_folder(home)
    assert second.is_dir()
    assert socket_folder(home) == second
    second.rmdir()


def test_a_short_folder_others_can_enter_is_not_trusted(tmp_path: Path) -> None:
    home = deep(tmp_path)
    first = socket_folder(home)
    first.chmod(0o755)
    second = socket_folder(home)
    assert second != first
    first.rmdir()
    second.rmdir()


def test_odd_characters_are_kept_out_of_server_options() -> None:
    assert not fits(Path("/a b"))
    assert not fits(Path("/a,b"))
    assert fits(Path("/home/anna/flashplane/.flashplane/run"))
