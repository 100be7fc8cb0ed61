"""The operations port, the run folder and unread bytes, without TorchServe."""

import http.client
import json
import socket
from contextlib import suppress
from http import HTTPStatus

import pytest

from voicestyle.errors import ServerError
from voicestyle.run_folder import RunFolder
from voicestyle.serving.operations import json_page, serve_pages
from voicestyle.serving.unsent import unsent_bytes


def fetch(port, path, method="GET"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


@pytest.fixture
def port():
    def broken():
        raise RuntimeError("an error")

    pages = {
        "/ready": lambda: json_page(False, {"ok": False}),
        "/metrics": lambda: (HTTPStatus.OK, "text/plain", b"x 1\n"),
        "/broken": broken,
    }
    with serve_pages("127.0.0.1", 0, pages) as port:
        yield port


def test_pages_are_served(port):
    status, headers, body = fetch(port, "/ready?verbose")
    assert (status, headers["Content-Type"], json.loads(body)) == (503, "application/json", {"ok": False})
    assert fetch(port, "/metrics")[2] == b"x 1\n"
    status, headers, body = fetch(port, "/metrics", "HEAD")
    assert (status, headers["Content-Length"], body) == (200, "4", b"")
    assert "Python" not in headers["Server"]


def test_other_paths_methods_and_exceptions(port, caplog):
    status, _, body = fetch(port, "/models")
    assert (status, body) == (404, b"the paths are /ready, /metrics, /broken\n")
    assert fetch(port, "/ready", "POST")[0] == 501
    assert fetch(port, "/broken")[0] == 500
    assert "/broken failed" in caplog.text
    assert "an error" in caplog.text


def test_idle_clients_delay_neither_others_nor_shutdown():
    with serve_pages("127.0.0.1", 0, {"/live": lambda: json_page(True, {})}) as port:
        silent = socket.create_connection(("127.0.0.1", port))
        assert fetch(port, "/live")[0] == 200
    silent.close()


def test_a_port_in_use_is_an_error(port):
    with (
        pytest.raises(ServerError, match=f"cannot listen on port {port} of 127.0.0.1"),
        serve_pages("127.0.0.1", port, {}),
    ):
        pass


def test_the_run_folder_is_new_and_in_the_environment(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    assert run.environment() == {
        "VOICESTYLE_RUN": str(tmp_path / "run"),
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "run" / "metrics"),
    }
    assert run.metrics.is_dir()
    assert not run.draining
    run.begin_drain()
    assert run.draining
    assert (tmp_path / "run" / "drain").exists()
    with pytest.raises(FileExistsError):
        RunFolder.create(tmp_path / "run")


def test_unread_bytes_of_a_client_are_counted():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            ours, _ = listening.accept()
            with ours:
                assert unsent_bytes([port]) == 0
                ours.setblocking(False)
                with suppress(BlockingIOError):
                    while True:
                        ours.send(bytes(1 << 20))
                assert unsent_bytes([port]) > 0
                assert unsent_bytes([port + 1]) == 0
                client.settimeout(5)
                while unsent_bytes([port]):
                    client.recv(1 << 20)


def test_without_linux_s_tables_no_byte_counts_as_unsent(tmp_path):
    assert unsent_bytes([8080], [tmp_path / "none"]) == 0
