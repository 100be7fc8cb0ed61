"""Malformed bodies sent to a real TorchServe cause no 5xx, no new worker, and no growth of its memory."""

import base64
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import soundfile

from tests.support.malformed_bodies import malformed

pytestmark = [pytest.mark.serving, pytest.mark.usefixtures("unharmed")]

CLIENTS = 8  # the slots of the batch
GROWTH = 0.05
OPTIONS = {"steps": "1", "size": "32"}


@pytest.fixture(scope="module")
def speech(samples):
    waveform, rate = soundfile.read(samples / "slt.wav", dtype="float32", frames=20_000)
    assert rate == 16_000
    return waveform


def send(service, number, body):
    """Send the body raw, as a form or as JSON, in turn."""
    headers = {f"X-VoiceStyle-{name}": value for name, value in OPTIONS.items()}
    match number % 4:
        case 0:
            return service.http.post(service.server.url, files={"audio": body}, data=OPTIONS)
        case 1:
            content = json.dumps({"audio": base64.b64encode(body).decode(), **OPTIONS})
            return service.http.post(service.server.url, content=content, headers={"Content-Type": "application/json"})
        case _:
            headers["Content-Type"] = "application/octet-stream"
            return service.http.post(service.server.url, content=body, headers=headers)


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_malformed_bodies_never_cause_a_5xx(service, samples, speech, count, record_property):
    worker = psutil.Process(service.pids[0])

    def request(numbered):
        number, (name, body) = numbered
        reply = send(service, number, body)
        return name, reply.status_code, reply.status_code == 200 or reply.json()["error"]["code"]

    def send_all(bodies):
        with ThreadPoolExecutor(CLIENTS) as clients:
            return list(clients.map(request, enumerate(bodies)))

    files = {path.name: path.read_bytes() for path in sorted(samples.glob("*.wav"))}
    bodies = list(malformed(files, speech, count, seed=4))
    send_all(bodies)  # the worker keeps the memory of its largest calls
    before = worker.memory_info().rss
    replies = send_all(bodies)
    after = worker.memory_info().rss
    record_property("resident_mib", (before >> 20, after >> 20))
    record_property("replies", Counter(each[1:] for each in replies).most_common())
    assert len(replies) == count
    wrong = [(name, status, code) for name, status, code in replies if status not in (200, 400, 413, 415, 422)]
    assert not wrong
    assert {"not_audio", "no_speech"} <= {code for _, _, code in replies}
    assert sum(status == 200 for _, status, _ in replies) > count / 10
    assert after <= before * (1 + GROWTH), f"{before >> 20} MiB before, {after >> 20} MiB after"
