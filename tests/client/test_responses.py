"""Reading without a network: lines cut anywhere, errors of any origin, the messages and the retry decision."""

import pickle
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmpc2.errors import STATUS as STATUS_OF_CMPC2
from tests.support.client_responses import FACE, RESULT, STARTED, encode, error, lines, preview, progress
from voicestyle.client import Busy, ClientError, Face, Refused, Retry, ServiceFailed, Settings, TimedOut, Unreachable
from voicestyle.client.answers import read_error, read_event, read_prediction, read_retry_after
from voicestyle.client.errors import STATUS
from voicestyle.client.grpc_messages import PredictionResponse, PredictionsRequest
from voicestyle.client.reading import Reading
from voicestyle.client.retry import Attempts

LINES = {"content-type": "application/x-ndjson; charset=utf-8"}
STORY = lines(STARTED, progress(2), preview(2), progress(4), preview(4), RESULT)


def read(body, cuts=(), status=200, headers=LINES):
    """The events of a body cut at `cuts`, and the error at its end."""
    reading, events = Reading(status, headers), []
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    try:
        for begin, end in pairwise(edges):
            events.extend(reading.feed(body[begin:end]))
        events += reading.end()
    except ClientError as caught:
        return events, caught
    return events, None


@given(cuts=st.lists(st.integers(0, 10**6), max_size=40))
def test_events_do_not_depend_on_where_chunks_are_cut(cuts):
    events, _ = read(STORY, cuts)
    assert events == read(STORY)[0]
    assert isinstance(events[-1], Face)
    refused = lines(STARTED, progress(2), {"event": "error"} | error("no_speech"))
    events, caught = read(refused, cuts)
    assert events == read(refused)[0][:2]
    assert isinstance(caught, Refused)


@given(length=st.integers(0, len(STORY) - len(encode(RESULT)) + 20))
def test_a_stream_that_ends_early_may_be_asked_for_again(length):
    events, caught = read(STORY[:length])
    assert isinstance(caught, Unreachable)
    assert not any(isinstance(event, Face) for event in events)


def test_a_result_without_its_line_end_counts():
    assert isinstance(read(STORY[:-1])[0][-1], Face)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*RESULT, "error"]), inner, max_size=4),
    max_leaves=8,
)


@given(changes=st.dictionaries(st.sampled_from([*RESULT, "error", "previews"]), JSON, min_size=1, max_size=3))
def test_a_strange_answer_is_a_face_or_one_error(changes):
    text = encode(RESULT | changes | {"event": "result"})
    for parse in (read_event, read_prediction):
        try:
            said = parse(text)
        except ClientError:
            continue
        assert isinstance(said, Face)
    for status in (400, 500, 503):
        assert isinstance(read_error(status, {}, text), ClientError)


@given(body=st.binary(max_size=50), status=st.integers(300, 599))
def test_any_error_body_of_any_status(body, status):
    caught = read_error(status, {}, body)
    assert caught.retryable == (status in (500, 502, 503, 504, 507))


@pytest.mark.parametrize("key", list(FACE))
def test_a_missing_key_is_named(key):
    with pytest.raises(ServiceFailed, match=f"'{key}' of the service's answer must be .*, got nothing"):
        read_prediction(encode({name: value for name, value in FACE.items() if name != key}))


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
def test_retry_after(text, seconds):
    assert read_retry_after(text, now=784111777 - 30) == seconds


def test_every_code_of_the_service_has_its_status():
    assert STATUS_OF_CMPC2.items() <= STATUS.items()


@pytest.mark.parametrize(
    "caught",
    [
        Refused("too_long", "the rule", "r", 413),
        Busy("overloaded", "the rule", None, 3.0),
        ServiceFailed("internal", "the rule", "r", True),
        Unreachable("the rule"),
        TimedOut("the rule", "r"),
    ],
)
def test_errors_survive_a_process_pool(caught):
    again = pickle.loads(pickle.dumps(caught))
    assert type(again) is type(caught)
    assert vars(again) == vars(caught)
    assert str(again) == str(caught)
    assert "the rule" in str(caught)


@given(
    retry=st.builds(Retry, st.integers(1, 2000), st.floats(0, 5), st.floats(5, 60)),
    failures=st.integers(1, 3000),
    asked=st.none() | st.floats(0, 100),
    seed=st.integers(0, 9),
)
def test_a_pause_is_within_full_jitter_and_never_shorter_than_asked(retry, failures, asked, seed):
    delay = retry.delay(failures, Busy("overloaded", "", None, asked), random.Random(seed).random)
    if failures >= retry.attempts:
        assert delay is None
        return
    longest = retry.first_delay
    for _ in range(failures - 1):
        longest = min(2 * longest, retry.max_delay)
    assert (asked or 0) <= delay <= (asked or 0) + longest


def test_pauses_double_up_to_the_longest():
    retry, upper = Retry(attempts=7, first_delay=0.5, max_delay=3), lambda: 1.0
    delays = [retry.delay(failures, Unreachable(""), upper) for failures in range(1, 8)]
    assert delays == [0.5, 1, 2, 3, 3, 3, None]
    assert retry.delay(1, Unreachable(""), lambda: 0.0) == 0
    assert retry.delay(1, Refused("too_long", ""), upper) is None


def test_the_last_attempt_has_what_is_left_of_the_deadline(clock):
    attempts = Attempts(Settings(attempt_seconds=30, deadline_seconds=50, clock=clock))
    assert attempts.begin() == 30
    clock.now += 29
    assert attempts.begin() == 21
    assert attempts.made == 2


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (Retry, {"attempts": 0}, "attempts must be at least 1, got 0"),
        (Retry, {"first_delay": 3, "max_delay": 2}, "delays must be 0 <= first <= max, got 3 and 2"),
        (Retry, {"max_delay": float("inf")}, "delays must be"),
        (Settings, {"attempt_seconds": 0}, "attempt_seconds must be more than 0, got 0"),
        (Settings, {"deadline_seconds": float("nan")}, "deadline_seconds must be more than 0"),
    ],
)
def test_settings_check_themselves(kind, values, message):
    with pytest.raises(ValueError, match=message):
        kind(**values)


def test_the_messages_are_those_of_torchserve():
    """By hand from the encoding of protocol buffers: (number << 3) + 2, the length, the bytes."""
    inner = b"\x0a\x05steps\x12\x014"
    wire = b"\x0a\x01m" + b"\x12\x031.0" + b"\x1a" + bytes([len(inner)]) + inner
    message = PredictionsRequest(model_name="m", model_version="1.0", input={"steps": b"4"})
    assert message.SerializeToString() == wire
    # With a sequence id and a status, which nothing here knows.
    answer = PredictionResponse.FromString(b"\x0a\x02{}" + b"\x12\x01s" + b"\x1a\x02\x08\x0d")
    assert answer.prediction == b"{}"
