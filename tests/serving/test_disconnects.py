"""Clients that send slowly or half, disconnect, or do not read, at each phase of a request, on a real TorchServe."""

import socket
import struct
from contextlib import ExitStack

import pytest

from tests.support.raw_http import connection, exchange, head, read_reply
from tests.support.tiny_service import LIVE, LONGEST

pytestmark = [pytest.mark.serving, pytest.mark.usefixtures("unharmed")]

RAW = "Content-Type: application/octet-stream"


def close(opened):
    opened.close()


def reset(opened):
    """Close with RST instead of FIN, as a killed process with unread data does."""
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    opened.close()


both_ways = pytest.mark.parametrize("disconnect", [close, reset])


def request(service, *lines, steps=LONGEST):
    return head(service.path, RAW, f"X-VoiceStyle-Steps: {steps}", f"Content-Length: {len(service.voice)}", *lines)


@both_ways
@pytest.mark.parametrize("share", [0, 0.5, 0.999])
def test_incomplete_bodies(service, disconnect, share):
    received = service.metric("voicestyle_received_total")
    for _ in range(5):
        with connection(service.port) as opened:
            opened.sendall(request(service) + service.voice[: int(share * len(service.voice))])
            disconnect(opened)
    assert service.post(steps=2).status_code == 200
    assert service.metric("voicestyle_received_total") == received + 1


@both_ways
def test_incomplete_heads(service, disconnect):
    for start in (b"", b"P", b"POST /predictions/voices", request(service)[:-2]):
        with connection(service.port) as opened:
            opened.sendall(start)
            disconnect(opened)


def test_incomplete_forms_and_chunks(service):
    form = b'--abc\r\nContent-Disposition: form-data; name="audio"; filename="a"\r\n\r\n' + service.voice
    for lines, body in (
        (["Content-Type: multipart/form-data; boundary=abc", "Content-Length: 9999999"], form),
        ([RAW, "Transfer-Encoding: chunked"], b"10000\r\n" + service.voice[:1000]),
    ):
        with connection(service.port) as opened:
            opened.sendall(head(service.path, *lines) + body)


def test_a_half_closed_connection_counts_as_disconnected(service):
    with connection(service.port) as opened:
        opened.sendall(request(service, steps=2) + service.voice)
        opened.shutdown(socket.SHUT_WR)
        assert read_reply(opened) is None


def test_slow_senders_are_served_and_delay_no_others(service):
    """Each sends the next piece only after another request was answered."""
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
                    break  # only one of them sends everything
            slow = slow[:1]
            assert service.post(steps=2).status_code == 200
        assert read_reply(slow[0]).status == 200


@both_ways
def test_plain_requests_finish_after_a_disconnect(service, disconnect):
    faces = service.metric("voicestyle_requests_total", outcome="face")
    with connection(service.port) as opened, service.admitting():
        opened.sendall(request(service, steps=100) + service.voice)
    with connection(service.port) as opened:
        with service.admitting():
            opened.sendall(request(service, steps=100) + service.voice)
        disconnect(opened)
    # Before the response, the server does not notice the disconnect: both requests finish.
    service.wait_until(lambda: service.metric("voicestyle_requests_total", outcome="face") == faces + 2)


@both_ways
@pytest.mark.parametrize("until", [b"", b"started", b"progress", b"preview"])
def test_a_stream_s_disconnect_frees_its_slot(service, disconnect, until):
    cancelled = service.metric("voicestyle_requests_total", outcome="cancelled")
    with connection(service.port) as opened:
        with service.admitting():
            opened.sendall(request(service, "X-VoiceStyle-Previews: 16") + service.voice)
        seen = b""
        while until not in seen:
            seen += opened.recv(4096)
        disconnect(opened)
    # The server notices it in the next iteration, which another request causes.
    service.wait_until(lambda: service.makes_faces() and service.in_flight == 0)
    assert service.metric("voicestyle_requests_total", outcome="cancelled") == cancelled + 1


def test_all_disconnect_while_waiting_for_a_slot(service):
    cancelled = service.metric("voicestyle_requests_total", outcome="cancelled")
    with service.full_queue():
        slots = service.in_flight
        reply = exchange(service.port, request(service) + service.voice)
        assert (reply.status, reply.headers["retry-after"].isdecimal()) == (503, True)
    service.wait_until(lambda: service.makes_faces() and service.in_flight == 0)
    assert service.metric("voicestyle_requests_total", outcome="cancelled") >= cancelled + slots - LIVE


def test_unread_streams_delay_no_others(service):
    with ExitStack() as stack:
        for _ in range(3):
            opened = stack.enter_context(connection(service.port))
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            with service.admitting():
                opened.sendall(request(service, "X-VoiceStyle-Previews: 16", steps=40) + service.voice)
        assert service.post(steps=40).status_code == 200
        service.wait_until(lambda: service.in_flight == 0)


def test_hundreds_of_idle_connections(service):
    with ExitStack() as stack:
        for number in range(300):
            opened = stack.enter_context(connection(service.port))
            if number % 2:
                opened.sendall(request(service) + service.voice[:1000])
        assert service.post(steps=2).status_code == 200
