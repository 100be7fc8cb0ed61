"""The metrics equal the counts of the clients, during requests and after a worker died."""

import os
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.serve_process import running, until
from tests.support.tiny_service import UNRENDERABLE

pytestmark = pytest.mark.serving

CLIENTS = 6


def outcomes(service):
    """The service's counts of this test's requests, without the canaries."""
    counts = Counter(
        {name: service.metric("voicestyle_requests_total", outcome=name) for name in ("face", "refused", "failed")}
    )
    counts["face"] -= service.metric("voicestyle_canaries_total", outcome="answered")
    return +counts


def test_counters_equal_the_clients_counts(fragile_archive, samples, tmp_path):
    voice = (samples / "slt.wav").read_bytes()
    counted = Counter()

    def ask(number):
        options = ({"size": 32}, {"size": UNRENDERABLE}, {"stepps": 1})[number % 3]
        status = service.ask(voice, seed=number, **options).status_code
        return {200: "face", 500: "failed", 400: "refused"}[status]

    with running(fragile_archive, tmp_path) as service, ThreadPoolExecutor(CLIENTS) as pool:
        service.await_ready()
        outcomes_seen = pool.map(ask, range(30))
        scrapes = 0
        for outcome in outcomes_seen:
            counted[outcome] += 1
            scrapes += service.metric("voicestyle_received_total") > 0  # scrapes while requests run
        assert scrapes == 30
        until(lambda: outcomes(service) == counted, f"{counted} in the metrics")
        assert service.metric("voicestyle_refusals_total", code="bad_option") == counted["refused"]

        long = pool.submit(service.ask, voice, steps=500, size=32)
        until(lambda: service.metric("voicestyle_live_requests") == 1, "a live request")
        os.kill(service.pids()[-1], signal.SIGKILL)
        assert long.result().status_code in (500, 507)
        service.await_ready()
        assert outcomes(service) == counted
        assert service.metric("voicestyle_live_requests") == 0
        counted["face"] += service.ask(voice, size=32).status_code == 200
        until(lambda: outcomes(service) == counted, f"{counted} in the metrics")
        # The request that was lost with its worker was received and never finished.
        canaries = sum(service.metric("voicestyle_canaries_total", outcome=name) for name in ("answered", "failed"))
        lost = service.metric("voicestyle_received_total") - sum(counted.values()) - canaries
        assert lost == 1
