"""Wrong or hostile HTTP requests to a real TorchServe; after each one the server works as before.

The responses that TorchServe gives itself, without the handler, are those that docs/service.md lists.
"""

import base64
import json

import pytest

from tests.support.raw_http import connection, exchange, head, read_reply

pytestmark = [pytest.mark.serving, pytest.mark.usefixtures("unharmed")]

RAW = "Content-Type: application/octet-stream"
FORM = "Content-Type: multipart/form-data; boundary=abc"
URLENCODED = "Content-Type: application/x-www-form-urlencoded"
TOO_MUCH = 20_000_000  # bytes, beyond max_request_size


@pytest.fixture
def send(service):
    """Send a body with header lines; `length=False` leaves out Content-Length."""

    def send(body=None, *lines, path=service.path, length=True, **options):
        body = service.voice if body is None else body
        lines = [*lines, f"Content-Length: {len(body)}"] if length else lines
        return exchange(service.port, head(path, *lines, **options), body, method=options.get("method", "POST"))

    return send


def code(reply):
    """The code of the handler's JSON error."""
    error = json.loads(reply.body)["error"]
    assert error["request_id"] == reply.headers["x-request-id"]
    assert reply.headers["content-type"] == "application/json"
    return error["code"]


def torchserve_type(reply):
    """The type of TorchServe's own JSON error."""
    error = json.loads(reply.body)
    assert set(error) == {"code", "type", "message"}
    assert error["code"] == reply.status
    return error["type"]


def form(*parts):
    """A multipart body of (name, content, further header lines)."""
    out = bytearray()
    for name, content, *lines in parts:
        disposition = f'Content-Disposition: form-data; name="{name}"'
        out += "\r\n".join(["--abc", disposition, *lines, "", ""]).encode() + content + b"\r\n"
    return bytes(out + b"--abc--\r\n")


def chunked(body, size=65_536):
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    "line",
    [
        "Content-Type: text/plain; charset=utf-8",
        "Content-Type: audio/wav",
        "Content-Type: ;;;///",
        "Content-Type: ",
        "Accept: nothing",
        "Content-Type: multipart/form-data",  # no form without a boundary
        f"Content-Type: application/json\r\n{RAW}",  # the last one counts
        f"{RAW}\r\nContent-Encoding: gzip",  # ignored: the body is the file
    ],
)
def test_raw_audio_works_with_any_content_type(send, line):
    reply = send(None, line)
    assert (reply.status, reply.headers["content-type"]) == (200, "image/png")


@pytest.mark.parametrize(
    "line", ["Content-Type: application/json", "Content-Type: multipart/form-data; boundary=other", FORM + "a" * 3000]
)
def test_raw_audio_sent_as_json_or_form_is_rejected(send, line):
    reply = send(None, line)
    assert (reply.status, code(reply)) == (415, "not_audio")


def test_curl_s_default_content_type_is_torchserve_s_500(send):
    reply = send(None, URLENCODED)
    assert (reply.status, torchserve_type(reply)) == (500, "ErrorDataDecoderException")


@pytest.mark.parametrize("body", [b"", b"steps=4", b"audio=UklGRg&steps=4"])
def test_urlencoded_forms_are_rejected(send, body):
    reply = send(body, URLENCODED)
    assert (reply.status, code(reply)) == (415, "not_audio")


@pytest.mark.parametrize(
    "part",
    [
        ("", b"3"),
        ("steps", b"3", "Content-Type: text/plain; charset=klingon"),
        ('audio"; filename="a', b"3", "Content-Transfer-Encoding: nonsense"),
    ],
)
def test_forms_that_netty_rejects_are_torchserve_s_500(send, service, part):
    reply = send(form(("audio", service.voice), part), FORM)
    assert (reply.status, torchserve_type(reply)) == (500, "ErrorDataDecoderException")


def test_forms_that_are_accepted(send, service):
    voice = service.voice
    file = '"; filename="../../etc/passwd'
    for parts in (
        [("audio", voice)],
        [("audio", voice, "Content-Type: text/plain"), ("steps", b"3", "Content-Type: text/plain; charset=utf-16")],
        [("audio" + file, voice), ("steps" + file, b" 3\n")],
        [("body", voice)],
        [*[("audio", b"x")] * 20, ("audio", voice)],  # the last one counts
    ):
        assert send(form(*parts), FORM).status == 200


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([("voice", b"RIFF")], "not_audio"),
        ([("audio", b"RIFF"), ("Steps", b"3"), ("steps", b"4")], "bad_option"),
        ([("audio", b"RIFF"), ("steps", b"\xff\xfe")], "bad_option"),
        ([("audio", b"RIFF"), ("é中", b"3")], "bad_option"),
        ([("body", b"RIFF"), ("stepps", b"3")], "not_audio"),
        ([("audio", b"RIFF"), ("body", b"3")], "bad_option"),
    ],
)
def test_forms_that_are_rejected(send, parts, expected):
    assert code(send(form(*parts), FORM)) == expected


def test_a_truncated_form_is_rejected(send, service):
    assert code(send(form(("audio", service.voice))[:-40], FORM)) == "not_audio"


def test_forms_with_thousands_of_fields_are_rejected(send, service):
    fields = [(f"f{number}", b"1") for number in range(5000)]
    reply = send(form(("audio", service.voice), *fields), FORM)
    assert (reply.status, code(reply)) == (400, "bad_option")
    assert len(reply.body) < 1000


def test_urlencoded_forms_with_thousands_of_fields(send):
    reply = send(b"&".join(b"f%d=" % number for number in range(5000)), URLENCODED)
    assert (reply.status, code(reply)) == (400, "bad_option")


def test_forms_with_repeated_options_are_rejected_at_once(send, service):
    parts = [("audio", service.voice), ("steps", b"500"), *[("seed", b"1")] * 5000]
    reply = send(form(*parts), FORM)
    assert (reply.status, code(reply)) == (400, "bad_option")
    assert b"at most 32 fields" in reply.body


def test_invalid_json_is_rejected(send, service):
    voice = base64.b64encode(service.voice).decode()
    kind = "Content-Type: application/json"
    for body, expected in (
        (b"{", "not_audio"),
        (b"[" * 100_000, "not_audio"),
        (json.dumps({"audio": voice[:-5] + "!"}).encode(), "not_audio"),
        (json.dumps({"audio": [voice]}).encode(), "not_audio"),
        (json.dumps({"audio": voice, "steps": [3]}).encode(), "bad_option"),
        (json.dumps({"audio": voice, **{f"f{n}": 1 for n in range(5000)}}).encode(), "bad_option"),
        (json.dumps({"audio": voice, "steps": float("nan")}).encode(), "bad_option"),
        (json.dumps({"audio": voice, "body": "x"}).encode(), "bad_option"),
    ):
        assert code(send(body, kind)) == expected
    assert send(json.dumps({"audio": voice}).encode("utf-16"), kind).status == 200  # as JSON allows


@pytest.mark.parametrize("line", [RAW, FORM, "Expect: 100-continue"])
def test_bodies_beyond_torchserve_s_limit_are_its_413(send, service, line):
    assert send(bytes(TOO_MUCH), line).status == 413
    with connection(service.port) as opened:  # the reply comes after the head
        opened.sendall(head(service.path, line, f"Content-Length: {TOO_MUCH}"))
        assert read_reply(opened).status == 413
    assert send(chunked(bytes(TOO_MUCH)), line, "Transfer-Encoding: chunked", length=False).status == 413


def test_bodies_beyond_our_limit_are_our_413(send):
    reply = send(bytes(13 * 2**20), RAW)
    assert (reply.status, code(reply)) == (413, "too_large")


@pytest.mark.parametrize(
    "lines",
    [
        ["Content-Length: 5", "Content-Length: 6"],
        ["Content-Length: many"],
        ["Content-Length: 1" + "0" * 30],
        ["X-A: " + "a" * 65_536],
        [f"X-A-{number}: 1" for number in range(2000)],
        ["\x00: \x00"],
    ],
)
def test_malformed_heads_are_torchserve_s_400(send, lines):
    reply = send(None, RAW, *lines, length=False)
    assert (reply.status, torchserve_type(reply)) == (400, "BadRequestException")


def test_a_negative_length_gets_no_response(service):
    with connection(service.port) as opened:
        opened.sendall(head(service.path, RAW, "Content-Length: -5") + service.voice)
        assert service.post(steps=2).status_code == 200


def test_bytes_that_are_no_http(service):
    assert exchange(service.port, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n" * 300).status == 400
    assert exchange(service.port, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").status == 500


@pytest.mark.parametrize(("version", "host"), [("1.0", None), ("1.1", None), ("3.7", "Host: here")])
def test_http_version_and_host_do_not_matter(send, version, host):
    assert send(None, RAW, version=version, host=host).status == 200


def test_chunks_and_expectations(send, service):
    assert send(chunked(service.voice), RAW, "Transfer-Encoding: chunked", length=False).status == 200
    both = ["Transfer-Encoding: chunked", "Content-Length: 5"]
    assert send(chunked(service.voice), RAW, *both, length=False).status == 200  # the chunks count, as RFC 9112 asks
    assert send(b"zzz\r\nabc\r\n0\r\n\r\n", RAW, "Transfer-Encoding: chunked", length=False).status == 400
    assert send(None, RAW, "Expect: 100-continue").status == 200
    assert send(None, RAW, "Expect: unknown").status == 417


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "BREW"])
def test_every_method_makes_a_face(send, method):
    assert send(None, RAW, method=method).status == 200
    assert send(b"", method=method, length=False).status == 415


def test_headers_of_options(send):
    many = [f"X-VoiceStyle-A{number}: 1" for number in range(200)]
    for lines in (many, ["X-VoiceStyle-Seed: " + "9" * 7000], ["X-VoiceStyle-Steps: \xe9\xff"]):
        reply = send(None, RAW, *lines)
        assert (reply.status, code(reply)) == (400, "bad_option")
        assert len(reply.body) < 1000


def test_torchserve_s_own_headers_change_nothing(send):
    lines = [
        "url_path: elsewhere",
        "explain: True",
        "describe: True",
        "ts_request_sequence_id: 3",
        "ts_stream_next: true",
    ]
    reply = send(None, RAW, *lines)
    assert (reply.status, reply.headers["content-type"]) == (200, "image/png")


def test_pipelined_requests_are_answered_in_any_order(service):
    def request(steps, seed):
        options = [f"X-VoiceStyle-Steps: {steps}", f"X-VoiceStyle-Seed: {seed}"]
        return head(service.path, RAW, *options, f"Content-Length: {len(service.voice)}") + service.voice

    with connection(service.port) as opened:
        opened.sendall(request(300, 1) + request(2, 2))
        seeds = {read_reply(opened).headers["x-voicestyle-seed"] for _ in range(2)}
    assert seeds == {"1", "2"}


@pytest.mark.parametrize(
    "path", ["/explanations/voicestyle", "/invocations", "/models/voicestyle/invoke", "/predictions/voicestyle/7/more"]
)
def test_torchserve_s_other_urls_behave_the_same(send, path):
    reply = send(None, RAW, path=path)
    assert (reply.status, reply.headers["content-type"]) == (200, "image/png")
    assert code(send(b"text", RAW, path=path)) == "not_audio"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/predictions/unknown"),
        ("POST", "/predictions/voicestyle/9"),
        ("POST", "/predictions"),
        ("POST", "/workflows?url=http://127.0.0.1:9/x.war"),
        ("POST", "/wfpredict/voicestyle"),
        ("POST", "/models?url=/etc"),
        ("GET", "/models"),
        ("GET", "/metrics"),
        ("GET", "/v2/health/ready"),
        ("GET", "/predictions/%2e%2e%2f%00"),
    ],
)
def test_the_inference_port_offers_nothing_else(send, method, path):
    reply = send(b"x", RAW, method=method, path=path)
    assert reply.status == 404
    assert torchserve_type(reply).endswith("NotFoundException")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/models?url=/etc", 405),
        ("DELETE", "/models/voicestyle", 405),
        ("POST", "/workflows?url=http://127.0.0.1:9/x.war", 404),
        ("POST", "/workflows?url=file:///etc/hostname", 404),
        ("GET", "/token?type=inference", 404),
        ("POST", "/predictions/voicestyle", 404),
    ],
)
def test_the_management_port_loads_no_model(service, method, path, status):
    request = head(path, "Content-Length: 0", method=method)
    assert exchange(service.server.ports.management, request).status == status
