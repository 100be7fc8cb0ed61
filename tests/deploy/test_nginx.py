"""deploy/nginx/nginx.conf with a real nginx and fake backends that record the requests."""

import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import grpc
import httpx
import pytest

from voicestyle.serving.ports import HOST, Ports
from voicestyle.serving.server import CONFIG, read_properties

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
CONF = Path(__file__).parents[2] / "deploy" / "nginx" / "nginx.conf"
SERVICE = "org.pytorch.serve.grpc.inference.InferenceAPIsService"
PREDICT = "/predictions/voicestyle"
OCTETS = {"Content-Type": "application/octet-stream"}

pytestmark = pytest.mark.skipif(NGINX is None, reason="needs nginx: apt-get install nginx-light")


class Backend(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def respond(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append((self.command, self.path, self.headers.get("Content-Type"), len(body)))
        if self.headers.get("X-Stream"):
            self.stream()
            return
        self.send_response(self.server.status)
        self.send_header("Content-Length", "2")
        self.send_header("X-Request-Id", "id-of-the-service")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(b"ok")

    def stream(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"6\r\nfirst\n\r\n")
        self.server.first_line_received.wait(20)
        self.wfile.write(b"5\r\nlast\n\r\n0\r\n\r\n")

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = respond  # noqa: N815

    def log_message(self, *_):
        pass


class AnyMethod(grpc.GenericRpcHandler):
    def __init__(self):
        self.seen = []

    def service(self, call):
        def respond(request, context):
            self.seen.append(call.method)
            return b"reply to " + request

        return grpc.unary_unary_rpc_method_handler(respond)


class Addresses:
    """The addresses and the access log of a running nginx."""

    def __init__(self, folder):
        ports = Ports.free()
        self.http, self.grpc = ports.inference, ports.grpc_inference
        self.url = f"http://{HOST}:{self.http}"
        self.target = f"{HOST}:{self.grpc}"
        self.access_log = folder / "access.log"


@contextmanager
def running_nginx(folder, inference, operations, grpc_inference):
    """Run nginx with the configuration, in which ports and paths are replaced."""
    addresses = Addresses(folder)
    text = CONF.read_text()
    for pattern, replacement in {
        r"listen 8000": f"listen {HOST}:{addresses.http}",
        r"listen 7000": f"listen {HOST}:{addresses.grpc}",
        r"127\.0\.0\.1:8080": f"{HOST}:{inference}",
        r"127\.0\.0\.1:8083": f"{HOST}:{operations}",
        r"127\.0\.0\.1:7070": f"{HOST}:{grpc_inference}",
        r"/tmp/": f"{folder}/",
        r"/dev/stdout": str(addresses.access_log),
    }.items():
        assert re.search(pattern, text), f"{pattern} is not in {CONF.name}"
        text = re.sub(pattern, replacement, text)
    conf = folder / "nginx.conf"
    conf.write_text(text)
    # Started by root, nginx runs its workers as another user by default, who cannot write to the test's folder.
    settings = "daemon off;" if os.geteuid() else "daemon off; user root;"
    with subprocess.Popen([NGINX, "-e", "stderr", "-g", settings, "-c", conf, "-p", folder]) as process:
        try:
            for port in (addresses.http, addresses.grpc):
                _await(port, process)
            yield addresses
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def proxied(tmp_path_factory):
    """Fake backends for nginx's upstreams, and nginx's addresses."""
    with ExitStack() as stack:

        def backend():
            server = stack.enter_context(ThreadingHTTPServer((HOST, 0), Backend))
            server.seen, server.status, server.first_line_received = [], 200, threading.Event()
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            stack.callback(server.shutdown)
            return server

        inference, operations, methods = backend(), backend(), AnyMethod()
        threads = stack.enter_context(ThreadPoolExecutor(4))
        rpc = grpc.server(threads, [methods], options=[("grpc.max_receive_message_length", 64 << 20)])
        rpc_port = rpc.add_insecure_port(f"{HOST}:0")
        rpc.start()
        stack.callback(lambda: rpc.stop(None).wait())
        folder = tmp_path_factory.mktemp("nginx")
        nginx = stack.enter_context(running_nginx(folder, inference.server_port, operations.server_port, rpc_port))
        yield SimpleNamespace(inference=inference, operations=operations, grpc=methods, nginx=nginx)


def _await(port, process):
    end = time.monotonic() + 30
    while True:
        assert process.poll() is None, "nginx ended"
        try:
            socket.create_connection((HOST, port)).close()
            return
        except OSError:
            assert time.monotonic() < end, "nginx does not listen"
            time.sleep(0.05)


@pytest.fixture(autouse=True)
def no_requests_seen(request):
    if "proxied" in request.fixturenames:
        proxied = request.getfixturevalue("proxied")
        for server in (proxied.inference, proxied.operations, proxied.grpc):
            server.seen.clear()
            server.status = 200


@pytest.fixture
def ask(proxied):
    with httpx.Client(base_url=proxied.nginx.url, trust_env=False, timeout=30) as client:
        yield client.request


def test_nginx_accepts_the_configuration():
    done = subprocess.run([NGINX, "-t", "-e", "stderr", "-c", CONF], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_voices_are_forwarded_without_the_query(proxied, ask):
    reply = ask("POST", PREDICT, params={"customized": "true"}, content=b"RIFF", headers=OCTETS)
    assert (reply.status_code, reply.content) == (200, b"ok")
    assert reply.headers["X-Request-Id"] == "id-of-the-service"
    assert proxied.inference.seen == [("POST", PREDICT, "application/octet-stream", 4)]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", PREDICT, 405),
        ("OPTIONS", PREDICT, 405),
        ("DELETE", PREDICT, 405),
        ("POST", PREDICT + "/1.0", 404),
        ("POST", PREDICT + "/", 404),
        ("POST", "/predictions/other", 404),
        ("POST", "/predictions/%76oicestyle/../../models", 404),
        ("POST", "/invocations", 404),
        ("POST", "/v1/models/voicestyle:predict", 404),
        ("POST", "/v2/models/voicestyle/infer", 404),
        ("POST", "/explanations/voicestyle", 404),
        ("GET", "/models/voicestyle?customized=true", 404),
        ("POST", "/models?url=file:///tmp", 404),
        ("POST", "/workflows?url=http://127.0.0.1/", 404),
        ("OPTIONS", "/", 404),
        ("GET", "/api-description", 404),
        ("GET", "/metrics", 404),
        ("GET", "/ready", 404),
        ("POST", "/ping", 405),
    ],
)
def test_nothing_else_reaches_torchserve(proxied, ask, method, path, status):
    assert ask(method, path).status_code == status
    assert proxied.inference.seen == proxied.operations.seen == []


def test_ping_returns_the_result_of_ready(proxied, ask):
    assert ask("GET", "/ping?x=1").status_code == 200
    proxied.operations.status = 503
    assert ask("GET", "/ping").status_code == 503
    assert [path for _, path, *_ in proxied.operations.seen] == ["/ready", "/ready"]


def test_the_body_limit_is_torchserve_s(proxied, ask):
    largest = int(read_properties(CONFIG)["max_request_size"])
    assert ask("POST", PREDICT, content=bytes(largest), headers=OCTETS).status_code == 200
    assert proxied.inference.seen[0][-1] == largest
    reply = ask("POST", PREDICT, content=bytes(largest + 1), headers=OCTETS)
    assert (reply.status_code, reply.headers["Content-Type"]) == (413, "application/json")
    error = reply.json()["error"]
    assert error["code"] == "too_large"
    assert f"at most {largest >> 20} MiB" in error["message"]
    assert re.fullmatch(r"[0-9a-f]{32}", error["request_id"])
    assert len(proxied.inference.seen) == 1


def test_voices_sent_as_urlencoded_forms_are_rejected(proxied, ask):
    headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    reply = ask("POST", PREDICT, content=b"RIFF", headers=headers)
    assert reply.status_code == 415
    assert reply.json()["error"]["code"] == "not_audio"
    assert proxied.inference.seen == []


def test_incomplete_bodies_are_not_forwarded(proxied, ask):
    port = httpx.URL(proxied.nginx.url).port
    with socket.create_connection((HOST, port)) as half:
        half.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nRIFF".encode())
        assert ask("POST", PREDICT, content=b"RIFF", headers=OCTETS).status_code == 200
    assert len(proxied.inference.seen) == 1


def test_response_lines_are_forwarded_at_once(proxied):
    headers = OCTETS | {"X-Stream": "1"}
    with httpx.stream("POST", proxied.nginx.url + PREDICT, content=b"RIFF", headers=headers, trust_env=False) as reply:
        lines = reply.iter_lines()
        assert next(lines) == "first"
        proxied.inference.first_line_received.set()
        assert list(lines) == ["last"]


def test_the_service_s_errors_are_forwarded_unchanged(proxied, ask):
    proxied.inference.status = 502
    assert ask("POST", PREDICT, content=b"RIFF", headers=OCTETS).status_code == 502


def test_a_stopped_service_is_a_503_with_retry_after(tmp_path):
    unused = Ports.free()
    with running_nginx(tmp_path, unused.inference, unused.operations, unused.grpc_inference) as nginx:
        reply = httpx.post(nginx.url + PREDICT, content=b"RIFF", headers=OCTETS, trust_env=False)
        assert reply.status_code == 503
        assert reply.headers["Retry-After"] == "5"
        assert reply.json()["error"]["code"] == "unavailable"
        assert not httpx.get(nginx.url + "/ping", trust_env=False).is_success
        with grpc.insecure_channel(nginx.target) as channel, pytest.raises(grpc.RpcError) as error:
            channel.unary_unary(f"/{SERVICE}/Predictions")(b"voice", timeout=20)
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE


def test_three_grpc_methods_are_forwarded(proxied):
    with grpc.insecure_channel(proxied.nginx.target) as channel:
        for name in ("Predictions", "StreamPredictions", "Ping"):
            assert channel.unary_unary(f"/{SERVICE}/{name}")(b"voice", timeout=20) == b"reply to voice"
    assert len(proxied.grpc.seen) == 3


@pytest.mark.parametrize(
    "method",
    [
        f"/{SERVICE}/StreamPredictions2",
        f"/{SERVICE}/predictions",
        "/org.pytorch.serve.grpc.management.ManagementAPIsService/RegisterModel",
        "/org.pytorch.serve.grpc.openinference.GRPCInferenceService/ModelInfer",
        "/inference.GRPCInferenceService/ModelInfer",
    ],
)
def test_other_grpc_methods_are_unimplemented(proxied, method):
    with grpc.insecure_channel(proxied.nginx.target) as channel, pytest.raises(grpc.RpcError) as error:
        channel.unary_unary(method)(b"voice", timeout=20)
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert proxied.grpc.seen == []


def test_grpc_messages_beyond_the_limit_are_blocked(proxied):
    largest = int(read_properties(CONFIG)["max_request_size"])
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(proxied.nginx.target, options) as channel:
        call = channel.unary_unary(f"/{SERVICE}/Predictions")
        assert call(bytes(largest - 1000), timeout=60).startswith(b"reply")
        with pytest.raises(grpc.RpcError):
            call(bytes(largest + 1), timeout=60)
    assert len(proxied.grpc.seen) == 1


def test_the_log_has_no_address_and_no_query(proxied, ask):
    ask("POST", PREDICT, params={"name": "a-person"}, content=b"RIFF", headers=OCTETS | {"User-Agent": "a-browser"})
    written = proxied.nginx.access_log.read_text()
    assert f"POST {PREDICT} 200" in written
    assert "request=id-of-the-service" in written
    for word in (HOST + " ", "a-person", "a-browser"):
        assert word not in written


def test_nginx_s_own_errors_are_json_like_the_service_s():
    bodies = re.findall(r"return \d+ '(\{.*\})';", CONF.read_text())
    assert len(bodies) == 3
    for body in bodies:
        assert set(json.loads(body)["error"]) == {"code", "message", "request_id"}
