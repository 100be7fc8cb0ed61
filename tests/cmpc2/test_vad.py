from __future__ import annotations

import numpy as np
import pytest
import webrtcvad
from hypothesis import given
from hypothesis import strategies as st

from cmpc2 import AudioError, speech_only

FRAME = 320


class ScriptedVad:
    """A detector that hears what the frame's samples say, and remembers what it was asked."""

    asked: list[int]

    def __init__(self, mode: int) -> None:
        type(self).asked = []

    def is_speech(self, frame: bytes, rate: int, length: int) -> bool:
        samples = np.frombuffer(frame, np.int16)
        assert (rate, length, len(samples)) == (16_000, FRAME, FRAME)
        self.asked.append(int(samples[1]))
        return bool(samples[0])


def script(voiced: list[bool]) -> np.ndarray:
    """Frames whose first sample is the detector's answer and whose second their number, and one sample more."""
    frames = np.zeros((len(voiced), FRAME), np.int16)
    frames[:, 0] = voiced
    frames[:, 1] = np.arange(len(voiced))
    return np.append(frames, np.int16(0))


def segments(voiced: list[bool]) -> list[int]:
    """The rule of the docstring, said another way: consume the frames segment by segment."""
    kept: list[int] = []
    at = 0
    while True:
        first = next((i for i in range(at, len(voiced) - 1) if voiced[i] and voiced[i + 1]), None)
        if first is None:
            return kept
        pairs = range(first + 2, len(voiced) - 1)
        end = next((i + 2 for i in pairs if not voiced[i] and not voiced[i + 1]), len(voiced))
        kept += range(first, end)
        at = end


@given(st.lists(st.booleans(), max_size=60))
def test_segments_open_and_close_on_two_successive_frames(voiced):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(webrtcvad, "Vad", ScriptedVad)
        expected = segments(voiced)
        if expected:
            kept = speech_only(script(voiced)).reshape(-1, FRAME)
            assert kept[:, 1].tolist() == expected
        else:
            with pytest.raises(AudioError):
                speech_only(script(voiced))


def test_both_frames_of_a_pair_are_asked_about(monkeypatch):
    monkeypatch.setattr(webrtcvad, "Vad", ScriptedVad)
    speech_only(script([False, True, True, True, False, False, True]))
    # 0 | 0 1 | 1 2 opens, pairs start anew: 3 | 3 4 | 4 5 closes, anew: 6
    assert ScriptedVad.asked == [0, 0, 1, 1, 2, 3, 3, 4, 4, 5, 6]


def test_a_frame_that_nothing_follows_does_not_count(monkeypatch):
    monkeypatch.setattr(webrtcvad, "Vad", ScriptedVad)
    frames = script([True, True, True])[:-1]
    assert len(speech_only(frames)) == 2 * FRAME
    assert len(speech_only(np.append(frames, np.int16(0)))) == 3 * FRAME


def test_speech_is_kept_and_silence_is_not(speech):
    kept = speech_only(speech)
    assert kept.dtype == np.int16
    assert len(kept) % FRAME == 0
    assert 2.2 < len(kept) / 16_000 < 3.5  # 2.5 s of voice in 4.3 s
    frames = {frame.tobytes() for frame in speech[: len(speech) // FRAME * FRAME].reshape(-1, FRAME)}
    assert all(frame.tobytes() in frames for frame in kept.reshape(-1, FRAME))


def test_the_answer_does_not_depend_on_calls_before(speech):
    first = speech_only(speech)
    speech_only(speech[5000:])
    np.testing.assert_array_equal(speech_only(speech), first)


def test_higher_modes_keep_no_more(speech):
    kept = [len(speech_only(speech, mode)) for mode in range(4)]
    assert kept[0] >= kept[3] > 0


@pytest.mark.parametrize("samples", [0, 1, 320, 640, 160_000])
def test_silence_is_the_callers_mistake(samples):
    with pytest.raises(AudioError, match=rf"none was found in {samples / 16_000:.2f} s") as caught:
        speech_only(np.zeros(samples, np.int16))
    assert caught.value.code == "no_speech"


def test_what_is_not_samples():
    with pytest.raises(ValueError, match=r"int16 \[n\]; received float64 \[5\]"):
        speech_only(np.zeros(5))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"received int16 \[2, 5\]"):
        speech_only(np.zeros((2, 5), np.int16))
    with pytest.raises(ValueError, match="mode must be 0, 1, 2 or 3; received 4"):
        speech_only(np.zeros(5, np.int16), 4)
