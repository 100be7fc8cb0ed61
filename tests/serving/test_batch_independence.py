"""One bad request among seven good ones, on a real TorchServe: the good ones' bytes are those of a run without it."""

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


def fault(service):
    assert service.post(steps=10, size=UNRENDERABLE).json()["error"]["code"] == "internal"


def fault_in_a_stream(service):
    with service.stream(steps=10, size=UNRENDERABLE, previews=3) as events:
        assert list(events)[-1]["error"]["code"] == "internal"


def hang_up(service):
    with service.stream(steps=LONGEST, previews=3) as events:
        assert next(events)["event"] == "started"


def grpc_fault(service):
    with service.grpc() as calls:
        answer = calls.unary(message(service.inputs(steps=10, size=UNRENDERABLE, previews=3)), timeout=60)
    assert json.loads(answer.prediction)["error"]["code"] == "internal"


@pytest.fixture(scope="module")
def alone(service):
    return [service.post(steps=STEPS, seed=seed).content for seed in range(GOOD)]


@pytest.mark.parametrize("bad", [text, bad_option, fault, fault_in_a_stream, hang_up, grpc_fault])
def test_the_good_ones_feel_nothing(service, alone, bad):
    together = Barrier(GOOD + 1)

    def good(seed):
        together.wait()
        return service.post(steps=STEPS, seed=seed)

    def evil():
        together.wait()
        bad(service)

    with ThreadPoolExecutor(GOOD + 1) as clients:
        replies = clients.map(good, range(GOOD))
        clients.submit(evil).result()
        replies = list(replies)
    assert [reply.status_code for reply in replies] == [200] * GOOD
    assert max(int(reply.headers["X-VoiceStyle-Batch"]) for reply in replies) > 1
    assert [reply.content for reply in replies] == alone
    assert len(set(alone)) == GOOD
