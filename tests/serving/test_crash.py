"""Workers are killed under load: clients that retry get every face exactly once."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from voicestyle.client import Client, retry

pytestmark = pytest.mark.serving

CLIENTS = 8
EACH = 3  # requests of each client between two kills
STEPS = 60


@pytest.fixture
def kills(request):
    return 10 if request.config.getoption("--slow") else 3


def test_every_request_is_answered_exactly_once(service, kills, monkeypatch):
    monkeypatch.setattr(retry, "MAX_DELAY", 2.0)
    voice, answers, lock = service.voice, {}, threading.Lock()
    url = service.server.url.removesuffix(service.path)

    def ask(client, seed):
        face = client.generate(voice, steps=STEPS, size=32, seed=seed)
        with lock:
            answers.setdefault(seed, []).append(face)

    seen = set()
    with ThreadPoolExecutor(CLIENTS) as pool, Client(url, timeout=60, max_retries=29) as client:
        for kill in range(kills):
            (worker,) = await_worker(service, other_than=seen)
            seen.add(worker)
            seeds = range(kill * CLIENTS * EACH, (kill + 1) * CLIENTS * EACH)
            asked = [pool.submit(ask, client, seed) for seed in seeds]
            while not any(request.done() for request in asked):
                time.sleep(0.01)
            os.kill(worker, signal.SIGKILL)  # while requests are finished, running, waiting or not sent yet
            for request in asked:
                request.result(timeout=300)
        assert sorted(answers) == list(range(kills * CLIENTS * EACH))
        assert all(len(faces) == 1 for faces in answers.values())
        ids = [face.request_id for faces in answers.values() for face in faces]
        assert len(set(ids)) == len(ids)
        again = client.generate(voice, steps=STEPS, size=32, seed=0)
    assert again.image == answers[0][0].image


def await_worker(service, other_than):
    """The running worker, once it is none of `other_than`."""
    end = time.monotonic() + 120
    while not (alive := set(service.pids) - other_than):
        assert time.monotonic() < end, "no new worker in 120 s"
        time.sleep(0.1)
    return alive
