from __future__ import annotations

import numpy as np
import pytest
import webrtcvad
from hypothesis import given
from hypothesis import strategies as st

from cmpc2 import AudioError, speech_only

FRAME = 320


class ScriptedVad:
    """A detector that returns each frame's first sample and records the frames' second samples."""

    classified: list[int]

    def __init__(self, mode: int) -> None:
        type(self).classified = []

    def is_speech(self, frame: bytes, rate: int, length: int) -> bool:
        samples = np.frombuffer(frame, np.int16)
        assert (rate, length, len(samples)) == (16_000, FRAME, FRAME)
        self.classified.append(int(samples[1]))
        return bool(samples[0])


def script(voiced: list[bool]) -> np.ndarray:
    """Frames with the detector's result as first sample and their number as second, and one additional sample."""
    frames = np.zeros((len(voiced), FRAME), np.int16)
    frames[:, 0] = voiced
    frames[:, 1] = np.arange(len(voiced))
    return np.append(frames, np.int16(0))


def segments(voiced: list[bool]) -> list[int]:
    """The rule of the docstring in another form: consume the frames segment by segment."""
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
def test_segments_start_and_end_with_two_equal_frames(voiced):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(webrtcvad, "Vad", ScriptedVad)
        expected = segments(voiced)
        if expected:
            kept = speech_only(script(voiced)).reshape(-1, FRAME)
            assert kept[:, 1].tolist() == expected
        else:
            with pytest.raises(AudioError):
                speech_only(script(voiced))


def test_both_frames_of_each_pair_are_classified(monkeypatch):
    monkeypatch.setattr(webrtcvad, "Vad", ScriptedVad)
    speech_only(script([False, True, True, True, False, False, True]))
    # 0 | 0 1 | 1 2 starts a segment, pairs restart: 3 | 3 4 | 4 5 ends it, pairs restart: 6
    assert ScriptedVad.classified == [0, 0, 1, 1, 2, 3, 3, 4, 4, 5, 6]


def test_a_last_frame_without_following_sample_is_ignored(monkeypatch):
    monkeypatch.setattr(webrtcvad, "Vad", ScriptedVad)
    frames = script([True, True, True])[:-1]
    assert len(speech_only(frames)) == 2 * FRAME
    assert len(speech_only(np.append(frames, np.int16(0)))) == 3 * FRAME


def test_speech_is_kept_and_silence_is_removed(speech):
    kept = speech_only(speech)
    assert kept.dtype == np.int16
    assert len(kept) % FRAME == 0
    assert 2.2 < len(kept) / 16_000 < 3.5  # 2.5 s of voice in 4.3 s
    frames = {frame.tobytes() for frame in speech[: len(speech) // FRAME * FRAME].reshape(-1, FRAME)}
    assert all(frame.tobytes() in frames for frame in kept.reshape(-1, FRAME))


def test_the_result_does_not_depend_on_earlier_calls(speech):
    first = speech_only(speech)
    speech_only(speech[5000:])
    np.testing.assert_array_equal(speech_only(speech), first)


def test_higher_modes_do_not_keep_more(speech):
    kept = [len(speech_only(speech, mode)) for mode in range(4)]
    assert kept[0] >= kept[3] > 0


@pytest.mark.parametrize("samples", [0, 1, 320, 640, 160_000])
def test_silence_is_rejected(samples):
    with pytest.raises(AudioError, match=rf"found none in {samples / 16_000:.2f} s") as caught:
        speech_only(np.zeros(samples, np.int16))
    assert caught.value.code == "no_speech"


def test_invalid_samples_and_modes_are_rejected():
    with pytest.raises(ValueError, match=r"int16 \[n\]; received float64 \[5\]"):
        speech_only(np.zeros(5))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"received int16 \[2, 5\]"):
        speech_only(np.zeros((2, 5), np.int16))
    with pytest.raises(ValueError, match="mode must be 0, 1, 2 or 3; received 4"):
        speech_only(np.zeros(5, np.int16), 4)
