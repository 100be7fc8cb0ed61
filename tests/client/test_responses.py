"""Parsing without a network: lines cut anywhere, errors of any origin, and the gRPC messages."""

import pickle
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.client_responses import FACE, IMAGE, RESULT, STARTED, encode, error, lines, preview, progress
from voicestyle.client import (
    APIConnectionError,
    APIError,
    APITimeoutError,
    BadRequestError,
    Face,
    OverloadedError,
    ServerError,
)
from voicestyle.client.grpc_messages import PredictionResponse, PredictionsRequest
from voicestyle.client.responses import ResponseParser, parse_error, parse_event, parse_face, parse_retry_after
from voicestyle.error_codes import ERROR_CODES

HEADERS = {"content-type": "application/x-ndjson; charset=utf-8"}
STORY = lines(STARTED, progress(2), preview(2), progress(4), preview(4), RESULT)


def parse(body, cuts=(), status=200, headers=HEADERS):
    """The events of a body cut at `cuts`, and the error at its end."""
    parser, events = ResponseParser(status, headers), []
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    try:
        for begin, end in pairwise(edges):
            events.extend(parser.feed(body[begin:end]))
        events += parser.end()
    except APIError as caught:
        return events, caught
    return events, None


@given(cuts=st.lists(st.integers(0, 10**6), max_size=40))
def test_events_do_not_depend_on_where_chunks_are_cut(cuts):
    events, _ = parse(STORY, cuts)
    assert events == parse(STORY)[0]
    assert isinstance(events[-1], Face)
    rejected = lines(STARTED, progress(2), {"event": "error"} | error("no_speech"))
    events, caught = parse(rejected, cuts)
    assert events == parse(rejected)[0][:2]
    assert isinstance(caught, BadRequestError)


@given(length=st.integers(0, len(STORY) - len(encode(RESULT)) + 20))
def test_stream_that_ends_early_is_retryable(length):
    events, caught = parse(STORY[:length])
    assert isinstance(caught, APIConnectionError)
    assert caught.retryable
    assert not any(isinstance(event, Face) for event in events)


def test_result_without_a_line_end_counts():
    assert isinstance(parse(STORY[:-1])[0][-1], Face)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*RESULT, "error"]), inner, max_size=4),
    max_leaves=8,
)


@given(changes=st.dictionaries(st.sampled_from([*RESULT, "error", "previews"]), JSON, min_size=1, max_size=3))
def test_any_json_is_a_face_or_one_error(changes):
    text = encode(RESULT | changes | {"event": "result"})
    for parse_body in (parse_event, parse_face):
        try:
            parsed = parse_body(text)
        except APIError:
            continue
        assert isinstance(parsed, Face)
    for status in (400, 500, 503):
        assert isinstance(parse_error(status, {}, text), APIError)


MALFORMED = [
    encode(FACE | {"seed": "3"}),
    encode(FACE | {"seed": 3.5}),
    encode(FACE | {"seed": True}),
    encode(FACE | {"similarity": None}),
    encode(FACE | {"similarity": 10**400}),
    encode(FACE | {"similarity": float("nan")}),
    encode(FACE | {"trace": [0.5, "0.5"]}),
    encode(FACE | {"prototypes": {}}),
    encode(FACE | {"timings": [1]}),
    encode(FACE | {"image": "no base64!"}),
    encode(FACE | {"previews": [3]}),
    encode(FACE).replace(b"demo@1", b"demo\xff"),
    encode(FACE)[:-3],
    b"[" * 100_000,
    b'{"previews": ' + b"[" * 100_000,
    b"null",
    b"",
]


@pytest.mark.parametrize("body", MALFORMED, ids=range(len(MALFORMED)))
def test_malformed_response_is_one_short_error(body):
    for parse_body in (parse_face, lambda body: parse_event(body.replace(b"{", b'{"event": "result", ', 1))):
        with pytest.raises(ServerError) as caught:
            parse_body(body)
        assert (caught.value.code, caught.value.retryable) == ("malformed", False)
        assert len(str(caught.value)) < 600
        assert "the response does not have the expected form" in caught.value.message


def test_integers_of_any_size_are_read():
    assert parse_face(encode(FACE | {"seed": 10**30})).seed == 10**30


def test_unknown_keys_are_ignored():
    face = parse_face(encode(FACE | {"colour": {"hair": [1]}, "error": None, "code": "x", "type": 3}))
    assert face == parse_face(encode(FACE))
    event = parse_event(encode(RESULT | {"colour": 10**400, "message": 3}))
    assert event.image == IMAGE


@given(body=st.binary(max_size=50), status=st.integers(300, 599))
def test_any_error_body_of_any_status(body, status):
    caught = parse_error(status, {}, body)
    assert caught.retryable == (status in (500, 502, 503, 504, 507))


@pytest.mark.parametrize("key", list(FACE))
def test_message_names_a_missing_key(key):
    with pytest.raises(ServerError, match=f"missing required field `{key}`"):
        parse_face(encode({name: value for name, value in FACE.items() if name != key}))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 30.0),
        ("Sun, 06 Nov 1994 08:40:00 GMT", 0.0),
        ("soon", None),
        ("-3", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_a_number_or_a_date(text, seconds):
    assert parse_retry_after(text, now=784111777 - 30) == seconds


@pytest.mark.parametrize("code", ERROR_CODES.values(), ids=lambda code: code.name)
def test_every_error_code_has_its_exception_and_status(code):
    with pytest.raises(APIError) as caught:
        parse_face(encode(error(code.name)))
    assert (caught.value.code, caught.value.retryable) == (code.name, code.retryable)
    if code.retryable:
        assert type(caught.value) is OverloadedError
    elif code.status >= 500:
        assert type(caught.value) is ServerError
    else:
        assert type(caught.value) is BadRequestError
        assert caught.value.status == code.status


@pytest.mark.parametrize(
    "caught",
    [
        APIError("the rule"),
        BadRequestError("the rule", code="too_long", status=413, request_id="r"),
        OverloadedError("the rule", retry_after=3.0),
        ServerError("the rule", code="internal", request_id="r", retryable=True),
        APIConnectionError("the rule"),
        APITimeoutError("the rule", request_id="r"),
    ],
    ids=lambda caught: type(caught).__name__,
)
def test_errors_can_be_pickled(caught):
    again = pickle.loads(pickle.dumps(caught))
    assert type(again) is type(caught)
    assert vars(again) == vars(caught)
    assert str(again) == str(caught) == f"{caught.code}: the rule"


def test_results_can_be_pickled_and_hide_images_in_repr():
    face = parse_face(encode(FACE | {"previews": [preview(2)]}))
    assert pickle.loads(pickle.dumps(face)) == face
    assert "PNG" not in repr(face)


def test_grpc_messages_have_torchserve_encoding():
    """By hand from the encoding of protocol buffers: (number << 3) + 2, the length, the bytes."""
    inner = b"\x0a\x05steps\x12\x014"
    wire = b"\x0a\x01m" + b"\x12\x031.0" + b"\x1a" + bytes([len(inner)]) + inner
    message = PredictionsRequest(model_name="m", model_version="1.0", input={"steps": b"4"})
    assert message.SerializeToString() == wire
    # With a sequence id and a status, which these messages leave out.
    response = PredictionResponse.FromString(b"\x0a\x02{}" + b"\x12\x01s" + b"\x1a\x02\x08\x0d")
    assert response.prediction == b"{}"
