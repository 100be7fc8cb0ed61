"""Clients that send half, send slowly, hang up or do not read, at each phase of a request, on a real TorchServe."""

import socket
import struct
from contextlib import ExitStack

import pytest

from tests.support.raw_http import connection, exchange, head, read_reply
from tests.support.tiny_service import LIVE, LONGEST

pytestmark = [pytest.mark.serving, pytest.mark.usefixtures("unharmed")]

RAW = "Content-Type: application/octet-stream"


def hang_up(opened):
    opened.close()


def reset(opened):
    """Close as a process does that was killed with data unread: with RST instead of FIN."""
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    opened.close()


leaving = pytest.mark.parametrize("leave", [hang_up, reset])


def request(service, *lines, steps=LONGEST):
    return head(service.path, RAW, f"X-VoiceStyle-Steps: {steps}", f"Content-Length: {len(service.voice)}", *lines)


@leaving
@pytest.mark.parametrize("share", [0, 0.5, 0.999])
def test_half_a_body(service, leave, share):
    received = service.metric("voicestyle_received_total")
    for _ in range(5):
        with connection(service.port) as opened:
            opened.sendall(request(service) + service.voice[: int(share * len(service.voice))])
            leave(opened)
    assert service.post(steps=2).status_code == 200
    assert service.metric("voicestyle_received_total") == received + 1


@leaving
def test_half_a_head(service, leave):
    for words in (b"", b"P", b"POST /predictions/voices", request(service)[:-2]):
        with connection(service.port) as opened:
            opened.sendall(words)
            leave(opened)


def test_half_a_form_and_half_a_chunk(service):
    form = b'--abc\r\nContent-Disposition: form-data; name="audio"; filename="a"\r\n\r\n' + service.voice
    for lines, body in (
        (["Content-Type: multipart/form-data; boundary=abc", "Content-Length: 9999999"], form),
        ([RAW, "Transfer-Encoding: chunked"], b"10000\r\n" + service.voice[:1000]),
    ):
        with connection(service.port) as opened:
            opened.sendall(head(service.path, *lines) + body)


def test_a_client_that_closes_its_side_after_sending_is_taken_for_gone(service):
    with connection(service.port) as opened:
        opened.sendall(request(service, steps=2) + service.voice)
        opened.shutdown(socket.SHUT_WR)
        assert read_reply(opened) is None


def test_slow_senders_hold_up_nobody_and_are_served(service):
    """Each sends the next piece only after somebody else was answered."""
    pieces = 8
    size = -(-len(service.voice) // pieces)
    with ExitStack() as stack:
        slow = [stack.enter_context(connection(service.port)) for _ in range(LIVE * 4)]
        for opened in slow:
            opened.sendall(request(service, steps=2))
        for at in range(0, size * pieces, size):
            for opened in slow:
                opened.sendall(service.voice[at : at + size])
                if at == 0:
                    break  # only one of them goes on to the end
            slow = slow[:1]
            assert service.post(steps=2).status_code == 200
        assert read_reply(slow[0]).status == 200


@leaving
def test_leaving_while_a_plain_answer_is_made(service, leave):
    faces = service.metric("voicestyle_requests_total", outcome="face")
    with connection(service.port) as opened, service.taken_in():
        opened.sendall(request(service, steps=100) + service.voice)
    with connection(service.port) as opened:
        with service.taken_in():
            opened.sendall(request(service, steps=100) + service.voice)
        leave(opened)
    # Nothing tells the server before the answer is there: both are finished.
    service.wait_until(lambda: service.metric("voicestyle_requests_total", outcome="face") == faces + 2)


@leaving
@pytest.mark.parametrize("until", [b"", b"started", b"progress", b"preview"])
def test_leaving_a_stream_frees_its_place(service, leave, until):
    left = service.metric("voicestyle_requests_total", outcome="left")
    with connection(service.port) as opened:
        with service.taken_in():
            opened.sendall(request(service, "X-VoiceStyle-Previews: 16") + service.voice)
        seen = b""
        while until not in seen:
            seen += opened.recv(4096)
        leave(opened)
    # A turn that somebody else brings about makes the server see it.
    service.wait_until(lambda: service.answers() and service.in_flight == 0)
    assert service.metric("voicestyle_requests_total", outcome="left") == left + 1


def test_all_leave_while_they_wait_for_a_place(service):
    left = service.metric("voicestyle_requests_total", outcome="left")
    with service.full():
        places = service.in_flight
        reply = exchange(service.port, request(service) + service.voice)
        assert (reply.status, reply.headers["retry-after"].isdecimal()) == (503, True)
    service.wait_until(lambda: service.answers() and service.in_flight == 0)
    assert service.metric("voicestyle_requests_total", outcome="left") >= left + places - LIVE


def test_a_stream_that_nobody_reads_holds_up_nobody(service):
    with ExitStack() as stack:
        for _ in range(3):
            opened = stack.enter_context(connection(service.port))
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            with service.taken_in():
                opened.sendall(request(service, "X-VoiceStyle-Previews: 16", steps=40) + service.voice)
        assert service.post(steps=40).status_code == 200
        service.wait_until(lambda: service.in_flight == 0)


def test_hundreds_of_connections_that_say_nothing(service):
    with ExitStack() as stack:
        for number in range(300):
            opened = stack.enter_context(connection(service.port))
            if number % 2:
                opened.sendall(request(service) + service.voice[:1000])
        assert service.post(steps=2).status_code == 200
