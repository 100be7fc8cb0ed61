"""The preset `instant` on a real TorchServe, over HTTP and gRPC."""

import base64
import json
from contextlib import ExitStack

import pytest

from tests.support.tiny_service import LIVE, LONGEST, message

pytestmark = pytest.mark.serving


def test_a_face_without_steps_needs_no_slot_and_depends_on_no_other(service, unharmed):
    options = {"preset": "instant", "seed": 7, "size": 64}
    alone = service.post(**options)
    assert alone.status_code == 200, alone.text
    known = {name: alone.headers[f"X-VoiceStyle-{name}"] for name in ("Steps", "Preset", "Seed", "Size", "Batch")}
    assert known == {"Steps": "0", "Preset": "instant", "Seed": "7", "Size": "64", "Batch": "1"}
    assert alone.headers["X-VoiceStyle-Similarity"] == alone.headers["X-VoiceStyle-First-Similarity"]
    with ExitStack() as stack:
        for _ in range(2 * LIVE):  # all slots, and as many that wait for one
            stack.enter_context(service.stream(steps=LONGEST, previews=1))
        beside = service.post(**options)
        assert service.metric("voicestyle_waiting_requests") > 0  # they came before it and wait still
    assert beside.content == alone.content


def test_a_face_without_steps_over_grpc(service):
    with service.grpc() as calls:
        face = json.loads(calls.unary(message(service.inputs(preset="instant", seed=7, size=64))).prediction)
    assert (face["steps"], face["preset"], len(face["trace"])) == (0, "instant", 1)
    assert base64.b64decode(face["image"]) == service.post(preset="instant", seed=7, size=64).content


def test_a_few_steps_may_follow(service):
    face = service.post(preset="instant", steps=3, output="json").json()
    assert (face["steps"], len(face["trace"])) == (3, 3)


def test_a_rejected_number_of_steps_names_the_preset(service):
    response = service.post(steps=0)
    assert response.status_code == 400
    assert response.json()["error"]["message"] == "steps must be 1 to 500, or 0 with the preset instant, got 0"
