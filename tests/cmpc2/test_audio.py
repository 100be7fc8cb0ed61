from __future__ import annotations

import io
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cmpc2 import AudioError, decode

RATE = 16_000


def tone(seconds: float, rate: int, hz: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)


def code_of(source: bytes | str | Path, **options) -> str:
    with pytest.raises(AudioError) as caught:
        decode(source, **options)
    assert caught.value.message
    assert "\n" not in caught.value.message
    return caught.value.code


@given(st.lists(st.integers(-32768, 32767), min_size=1, max_size=2000))
@example([-32768, 32767, 0, 1, -1])
def test_16_bit_16_khz_mono_is_unchanged(values):
    samples = np.array(values, np.int16)
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV", subtype="PCM_16")
    decoded = decode(file.getvalue())
    assert decoded.dtype == np.int16
    np.testing.assert_array_equal(decoded, samples)


def test_files_of_several_blocks_are_unchanged(encode):
    samples = np.random.default_rng(1).integers(-32768, 32768, 700_001).astype(np.int16)
    np.testing.assert_array_equal(decode(encode(samples)), samples)
    np.testing.assert_array_equal(decode(encode(samples, form="FLAC")), samples)


def test_bytes_and_paths_with_any_suffix_agree(encode, tmp_path):
    data = encode(tone(0.5, 22050), 22050)
    for name in ("a.wav", "a.raw", "a", "ä.mp3"):
        path = tmp_path / name
        path.write_bytes(data)
        np.testing.assert_array_equal(decode(path), decode(data))
        np.testing.assert_array_equal(decode(str(path)), decode(data))


def test_missing_file_or_folder_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        decode(tmp_path / "none.wav")
    with pytest.raises(OSError, match="directory"):
        decode(tmp_path)


def test_channels_are_averaged(encode):
    left = np.random.default_rng(2).integers(-30000, 30000, 5000)
    right = np.random.default_rng(3).integers(-30000, 30000, 5000)
    decoded = decode(encode(np.stack([left, right], 1).astype(np.int16)))
    assert np.abs(decoded - (left + right) / 2).max() <= 0.5


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000])
def test_resampling_in_blocks_equals_resampling_at_once(encode, rate):
    sound = np.random.default_rng(4).uniform(-0.4, 0.4, 9 * rate).astype(np.float32)
    decoded = decode(encode(sound, rate, subtype="FLOAT"))
    at_once = soxr.resample(sound, rate, RATE)
    assert len(decoded) == len(at_once)
    assert np.abs(decoded - at_once * 32768).max() <= 1.0


@pytest.mark.parametrize("rate", [8000, 24000, 44100, 48000])
def test_tone_keeps_pitch_length_and_level(encode, rate):
    decoded = decode(encode(tone(2, rate), rate))
    assert len(decoded) == 2 * RATE
    spectrum = np.abs(np.fft.rfft(decoded[8000:24000]))
    assert spectrum.argmax() == 440
    assert np.abs(decoded[8000:24000]).max() == pytest.approx(16384, rel=0.01)


def test_loud_samples_are_clipped_not_wrapped(encode):
    decoded = decode(encode(np.array([2.0, -2.0, 0.5], np.float32), subtype="FLOAT"))
    np.testing.assert_array_equal(decoded, [32767, -32768, 16384])


def test_8_bit_8_khz_stereo_is_converted(encode):
    sound = np.stack([tone(1, 8000)] * 2, 1)
    decoded = decode(encode(sound, 8000, subtype="PCM_U8"))
    assert len(decoded) == RATE
    assert np.corrcoef(decoded[1000:15000], tone(1, RATE)[1000:15000])[0, 1] > 0.999


@pytest.mark.parametrize(
    ("form", "subtype"),
    [("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_16")],
)
def test_other_formats_decode(encode, form, subtype):
    if not soundfile.check_format(form, subtype):
        pytest.skip(f"this libsndfile has no {form} {subtype}")
    decoded = decode(encode(tone(2, 48000), 48000, form, subtype))
    assert abs(len(decoded) - 2 * RATE) <= RATE // 10
    middle = decoded[8000:24000]
    assert np.abs(np.fft.rfft(middle)).argmax() == 440


def test_flac_of_unknown_length_decodes(encode):
    samples = np.random.default_rng(5).integers(-9000, 9000, 50_000).astype(np.int16)
    data = bytearray(encode(samples, form="FLAC"))
    data[21] &= 0xF0  # the number of samples: the lower 36 bits of bytes 10 … 17 of STREAMINFO; 0 means unknown
    data[22:26] = bytes(4)
    np.testing.assert_array_equal(decode(bytes(data), max_seconds=4), samples)
    assert code_of(bytes(data), max_seconds=3) == "too_long"


def test_wav_with_the_maximum_size_in_its_header_decodes(encode):
    samples = np.arange(5000, dtype=np.int16)
    data = bytearray(encode(samples))
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", 0xFFFFFFFF)
    np.testing.assert_array_equal(decode(bytes(data), max_seconds=1), samples)


def test_truncated_wav_gives_the_samples_it_contains(encode):
    samples = np.arange(5000, dtype=np.int16)
    np.testing.assert_array_equal(decode(encode(samples)[:-2000]), samples[:-1000])


def test_files_that_are_not_audio_are_rejected(encode, tmp_path):
    wav = encode(np.arange(5000, dtype=np.int16))
    text = b"Dear server, this is a letter and not a recording.\n" * 40
    path = tmp_path / "letter.wav"
    path.write_bytes(text)
    empty = tmp_path / "empty.wav"
    empty.write_bytes(b"")
    assert code_of(b"") == "not_audio"
    assert code_of(empty) == "not_audio"
    assert code_of(text) == "not_audio"
    assert code_of(path) == "not_audio"
    assert code_of(wav[:20]) == "not_audio"
    assert code_of(encode(np.zeros(0, np.int16))) == "not_audio"
    flac = encode(np.random.default_rng(0).integers(-9000, 9000, 50_000).astype(np.int16), form="FLAC")
    assert code_of(flac[:5000]) == "not_audio"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rate", [RATE, 44100])
def test_samples_that_are_not_finite_are_rejected(encode, bad, rate):
    sound = np.zeros(3000, np.float32)
    sound[1234] = bad
    assert code_of(encode(sound, rate, subtype="FLOAT")) == "not_audio"


def test_messages_contain_no_content_path_or_address(tmp_path):
    path = tmp_path / "secret-name.wav"
    path.write_bytes(b"secret words " * 9)
    for source in (path, path.read_bytes()):
        with pytest.raises(AudioError, match="117 bytes") as caught:
            decode(source)
        assert "secret" not in str(caught.value)
        assert "0x" not in str(caught.value)
        assert caught.value.code == "not_audio"


def test_too_long_is_detected_from_the_header(encode, monkeypatch):
    data = encode(tone(10, RATE))
    assert len(decode(data, max_seconds=10)) == 10 * RATE

    def read(*_args, **_options):
        raise AssertionError("decoded before the length was checked")

    monkeypatch.setattr(soundfile.SoundFile, "read", read)
    with pytest.raises(AudioError, match=r"at most 9\.5 s; received at least 10\.00 s") as caught:
        decode(data, max_seconds=9.5)
    assert caught.value.code == "too_long"


def test_very_low_and_high_sample_rates(encode):
    assert len(decode(encode(np.zeros(200, np.int16), 100))) == 2 * RATE
    assert len(decode(encode(np.zeros(2**16, np.int16), 2**16 * 5))) == RATE // 5


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_damaged_files_decode_or_raise_audio_error(encode, data):
    form = data.draw(st.sampled_from(["WAV", "FLAC", "OGG", "AIFF"]))
    subtype = "VORBIS" if form == "OGG" else "PCM_16"
    file = bytearray(encode(tone(0.2, 22050), 22050, form, subtype))
    for _ in range(data.draw(st.integers(1, 8))):
        file[data.draw(st.integers(0, min(len(file) - 1, 200)))] = data.draw(st.integers(0, 255))
    code, decoded = "", np.zeros(0, np.int16)
    try:
        decoded = decode(bytes(file[: data.draw(st.integers(1, len(file)))]), max_seconds=30)
    except AudioError as error:
        code = error.code
    assert code in ("", "not_audio", "too_long")
    assert decoded.dtype == np.int16
    assert len(decoded) <= 31 * RATE


def test_memory_does_not_grow_with_channels(encode):
    data = encode(np.zeros((100_000, 64), np.int16), 48000)
    tracemalloc.start()
    try:
        decode(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 2**20
