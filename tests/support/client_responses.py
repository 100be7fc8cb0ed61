"""Responses of the service and of TorchServe, for the scripted servers."""

import base64
import json

IMAGE = b"\x89PNG\r\n\x1a\n the face"
SMALL = b"\xff\xd8\xff a small one"

FACE = {
    "request_id": "r-1",
    "model": "demo@1",
    "seed": 3,
    "steps": 4,
    "preset": "default",
    "size": 256,
    "format": "png",
    "image": base64.b64encode(IMAGE).decode(),
    "similarity": 0.75,
    "first_similarity": 0.25,
    "trace": [0.25, 0.5, 0.625, 0.75],
    "batch": 2,
    "dtype": "bfloat16",
    "prototypes": [7, 1, 4],
    "audio_seconds": 3.5,
    "speech_seconds": 3,
    "timings": {"queue": 0.5, "optimise": 1},
    "digital_source_type": "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia",
}
STARTED = {"event": "started"} | {
    key: FACE[key] for key in ("request_id", "model", "steps", "preset", "seed", "size", "format")
}
RESULT = {"event": "result"} | FACE


def progress(step):
    return {"event": "progress", "step": step, "steps": 4, "similarity": FACE["trace"][step - 1]}


def preview(step):
    image = base64.b64encode(SMALL + bytes([step])).decode()
    return progress(step) | {"event": "preview", "format": "jpeg", "size": 128, "image": image}


def error(code, message="the rule, got this", request_id="r-9"):
    return {"error": {"code": code, "message": message, "request_id": request_id}}


def torchserve_error(status, name="InternalServerException"):
    return {"code": status, "type": name, "message": "Worker died."}


def encode(value):
    return json.dumps(value).encode()


def lines(*events):
    return b"".join(encode(event) + b"\n" for event in events)
