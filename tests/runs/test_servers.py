"""``genaug store push`` and ``pull`` with real servers of S3 and SFTP, whose connections are cut in the middle."""

import asyncio
import contextlib
import socket
import threading

import fsspec
import pytest

from genaug.core.errors import GenaugError
from genaug.core.store import Store
from genaug.generators import forms
from genaug.runs import remote
from genaug.runs.remote import Remote, differences, pull, push
from genaug.runs.verification import verify
from tests.generators.test_publishing import Picky, build, dataset
from tests.runs.finished_run import write_finished
from tests.runs.test_remote import content, states


class Cutting:
    """Stands in front of a server and forwards what comes; after ``left`` bytes it resets every connection."""

    def __init__(self, server: tuple[str, int]):
        self.server, self.left, self.url = server, 10**9, ""
        self.door = socket.create_server(("127.0.0.1", 0))
        self.port = self.door.getsockname()[1]
        threading.Thread(target=self._open, daemon=True).start()

    def _open(self) -> None:
        with contextlib.suppress(OSError):  # the door is closed
            while True:
                outside, _ = self.door.accept()
                inside = socket.create_connection(self.server)
                for pair in ((outside, inside), (inside, outside)):
                    threading.Thread(target=self._forward, args=pair, daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                target.sendall(data[: max(self.left, 0)])
                self.left -= len(data)
                if self.left < 0:
                    break
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def s3(monkeypatch):
    """A connection to an S3 server with an empty bucket."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0)
    server.start()
    connection = Cutting(server.get_host_and_port())
    for key, value in {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{connection.port}", "AWS_ACCESS_KEY_ID": "a",
                       "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1",
                       "AWS_MAX_ATTEMPTS": "1"}.items():  # fmt: skip
        monkeypatch.setenv(key, value)
    bucket = f"bucket-{connection.port}"  # what one server of moto holds, another one has, too
    connection.url = f"s3://{bucket}/genaug"
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    Remote(connection.url).files.mkdir(bucket)
    yield connection
    connection.door.close()
    server.stop()


@pytest.fixture
def sftp(tmp_path):
    """A connection to an SFTP server with an empty folder."""
    pytest.importorskip("paramiko")
    asyncssh = pytest.importorskip("asyncssh")
    (tmp_path / "served").mkdir()

    class Password(asyncssh.SSHServer):
        def begin_auth(self, username):
            return True

        def password_auth_supported(self):
            return True

        def validate_password(self, username, password):
            return (username, password) == ("me", "hunter2")

    loop, started = asyncio.new_event_loop(), threading.Event()
    ports = []

    async def serve():
        key = asyncssh.generate_private_key("ssh-ed25519")
        files = lambda channel: asyncssh.SFTPServer(channel, chroot=str(tmp_path / "served"))
        server = await asyncssh.listen(
            "127.0.0.1", 0, server_factory=Password, server_host_keys=[key], sftp_factory=files
        )
        ports.append(server.sockets[0].getsockname()[1])
        started.set()

    def run():
        loop.run_until_complete(serve())
        loop.run_forever()

    threading.Thread(target=run, daemon=True).start()
    assert started.wait(60)
    connection = Cutting(("127.0.0.1", ports[0]))
    connection.url = f"sftp://me:hunter2@127.0.0.1:{connection.port}/genaug"
    yield connection
    connection.door.close()
    loop.call_soon_threadsafe(loop.stop)


@pytest.mark.parametrize("protocol", ["s3", "sftp"])
@pytest.mark.parametrize("packed_from", [1, 10**6])
def test_a_server_takes_and_gives_everything_also_over_connections_that_are_cut(
    tmp_path, request, monkeypatch, protocol, packed_from
):
    monkeypatch.setattr(remote, "AGAIN", (0.0, 0.0))
    connection = request.getfixturevalue(protocol)
    here, there = tmp_path / "here", tmp_path / "there"
    write_finished(here / "runs" / "digits_none-00000000000000aa", metrics={"m": 0.5})
    build(Store(here / "store", packed_from=packed_from), Picky(seed=0), dataset(), 3)
    forms._seen.clear()
    cuts = 0
    for copy, outputs in ((push, here), (pull, there)):
        for left in (9_000, 20_000, 10**9):
            connection.left = left
            fsspec.get_filesystem_class(protocol).clear_instance_cache()  # as another process
            try:
                copied = states(copy(outputs, Remote(connection.url)))
            except GenaugError as error:
                cuts += 1
                assert "does not answer" in str(error) or "cannot be used" in str(error)
                assert "hunter2" not in str(error) and verify(outputs)[1] == []
        assert connection.left > 0 and not any(state.startswith("damaged") for state in copied.values())
    assert cuts >= 2
    assert set(states(push(here, Remote(connection.url))).values()) == {"there already"}
    assert {state for *_, state in differences(there, Remote(connection.url))} == {"same"}
    assert content(there) == content(here) and verify(there)[1] == []
