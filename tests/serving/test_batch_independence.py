"""One bad request among seven good ones, on a real TorchServe, does not change a byte of the good ones' faces."""

import json
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from tests.support.tiny_service import LONGEST, UNRENDERABLE, message

pytestmark = [pytest.mark.serving, pytest.mark.usefixtures("unharmed")]

GOOD = 7
STEPS = 30


def text(service):
    assert service.post(b"no voice at all").json()["error"]["code"] == "not_audio"


def bad_option(service):
    assert service.post(steps=0).json()["error"]["code"] == "bad_option"


def internal_error(service):
    assert service.post(steps=10, size=UNRENDERABLE).json()["error"]["code"] == "internal"


def internal_error_in_a_stream(service):
    with service.stream(steps=10, size=UNRENDERABLE, previews=3) as events:
        assert list(events)[-1]["error"]["code"] == "internal"


def disconnect(service):
    with service.stream(steps=LONGEST, previews=3) as events:
        assert next(events)["event"] == "started"


def internal_error_over_grpc(service):
    with service.grpc() as calls:
        reply = calls.unary(message(service.inputs(steps=10, size=UNRENDERABLE, previews=3)), timeout=60)
    assert json.loads(reply.prediction)["error"]["code"] == "internal"


@pytest.fixture(scope="module")
def alone(service):
    return [service.post(steps=STEPS, seed=seed).content for seed in range(GOOD)]


@pytest.mark.parametrize(
    "bad", [text, bad_option, internal_error, internal_error_in_a_stream, disconnect, internal_error_over_grpc]
)
def test_good_requests_are_independent_of_a_bad_one(service, alone, bad):
    start = Barrier(GOOD + 1)

    def good(seed):
        start.wait()
        return service.post(steps=STEPS, seed=seed)

    def one_bad():
        start.wait()
        bad(service)

    with ThreadPoolExecutor(GOOD + 1) as clients:
        replies = clients.map(good, range(GOOD))
        clients.submit(one_bad).result()
        replies = list(replies)
    assert [reply.status_code for reply in replies] == [200] * GOOD
    assert max(int(reply.headers["X-VoiceStyle-Batch"]) for reply in replies) > 1
    assert [reply.content for reply in replies] == alone
    assert len(set(alone)) == GOOD
