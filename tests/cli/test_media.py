"""`voicestyle frames` and `voicestyle log-mels` on files made here, one of them damaged."""

import builtins
import math
import shutil
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from PIL import Image

from cmpc2 import audio_preprocess, load_voice
from voicestyle.cli import main
from voicestyle.video_frames import Selection, VideoError, read_frames


def write_video(path, frames=50, rate=25, size=(64, 48), codec="mpeg4", **options):
    """A video whose frame i has the grey value 5 · i, with a white band at its top."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options={"g": "10", "qscale": "1", **options})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(frames):
            pixels = np.full((size[1], size[0], 3), 5 * number, np.uint8)
            pixels[:8] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def grey_of(pixels):
    return round(float(np.asarray(pixels)[16:].mean()) / 5)


@pytest.fixture
def run():
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    write_video(folder / "NAME" / "one.mp4")
    write_video(folder / "NAME" / "two.mkv", frames=5)
    return folder


def test_frames_keep_the_folders_and_their_numbers(run, videos, tmp_path):
    result = run("frames", videos, "-o", tmp_path / "frames", "--count", 4, "--format", "png")
    assert result.exit_code == 0, result.output
    assert result.output.endswith("2 of 2 videos converted, 0 were there, 0 cannot be used\n")
    one = sorted((tmp_path / "frames" / "NAME" / "one").iterdir())
    assert [path.name for path in one] == ["000006.png", "000018.png", "000031.png", "000043.png"]
    assert [grey_of(Image.open(path)) for path in one] == [6, 18, 31, 43]
    assert len(list((tmp_path / "frames" / "NAME" / "two").iterdir())) == 4


def test_a_frame_every_so_many_seconds(run, videos, tmp_path):
    assert run("frames", videos / "NAME" / "one.mp4", "-o", tmp_path / "out", "--every", 0.5).exit_code == 0
    names = sorted(path.name for path in (tmp_path / "out" / "one").iterdir())
    assert names == ["000000.jpg", "000013.jpg", "000025.jpg", "000038.jpg"]


def test_a_frame_is_the_first_of_its_period():
    times = [Fraction(1, 3) + Fraction(number, 10) for number in (0, 0, 1, 5, 6, 7, 30, 31)]
    assert Selection(seconds=0.5).indices(times) == [0, 3, 6]
    assert Selection(seconds=1e-12).indices(times) == [0, 2, 3, 4, 5, 6, 7]
    assert Selection(seconds=100.0).indices(times) == [0]


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"bf": "3"}),  # frames are stored in another order than they are shown
        ("b.mkv", "mpeg4", {"bf": "2"}),
        ("c.webm", "libvpx-vp9", {"cpu-used": "8"}),
        ("d.avi", "mpeg4", {"bf": "2"}),  # no reliable timestamps
        ("e.mpg", "mpeg2video", {"bf": "2"}),
        ("f.wmv", "wmv2", {}),
    ],
)
def test_selected_frames_equal_those_of_the_whole_video(tmp_path, name, codec, options):
    write_video(tmp_path / name, codec=codec, **options)
    every = dict(read_frames(tmp_path / name, Selection(count=1000)))
    assert list(every) == list(range(50))
    assert all(abs(grey_of(pixels) - index) <= 1 for index, pixels in every.items())
    for count in (1, 3, 7):
        selected = list(read_frames(tmp_path / name, Selection(count=count)))
        assert len(selected) == count
        for index, pixels in selected:
            np.testing.assert_array_equal(pixels, every[index])


def test_too_large_frames_are_refused(videos, monkeypatch):
    monkeypatch.setattr("voicestyle.video_frames.MAX_PIXELS", 1000)
    with pytest.raises(VideoError, match="frames must have at most 0 megapixels, received 64×48"):
        list(read_frames(videos / "NAME" / "one.mp4", Selection(count=1)))


def test_a_rotated_video_comes_out_upright(videos):
    """The display matrix of an MP4 file is in its track header; here it is set to a quarter turn clockwise."""
    path = videos / "NAME" / "one.mp4"
    plain = next(read_frames(path, Selection(count=1)))[1]
    straight = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    turned = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    content = path.read_bytes()
    at = content.index(straight, content.index(b"tkhd"))
    path.write_bytes(content[:at] + turned + content[at + len(turned) :])
    np.testing.assert_array_equal(next(read_frames(path, Selection(count=1)))[1], np.rot90(plain, -1))


def test_a_damaged_video_has_a_line_and_the_others_go_on(run, videos, tmp_path):
    (videos / "NAME" / "bad.mp4").write_bytes(b"no video" * 100)
    content = (videos / "NAME" / "one.mp4").read_bytes()
    (videos / "NAME" / "cut.mp4").write_bytes(content[: len(content) // 2])
    soundfile.write(videos / "NAME" / "sound.wav", np.zeros(1600), 16_000)
    (videos / "NAME" / "sound.wav").rename(videos / "NAME" / "sound.avi")
    result = run("frames", videos, "-o", tmp_path / "frames")
    assert result.exit_code == 1
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 3
    assert f"{videos / 'NAME' / 'bad.mp4'}: must be a video that FFmpeg reads" in lines[0]
    assert "must have a video stream, received none" in lines[2]
    assert sorted(path.name for path in (tmp_path / "frames" / "NAME").iterdir()) == ["one", "two"]
    assert "2 of 5 videos converted, 0 were there, 3 cannot be used" in result.output


def test_finished_videos_are_kept_unless_forced(run, videos, tmp_path):
    arguments = ("frames", videos, "-o", tmp_path / "frames")
    run(*arguments, "--count", 2)
    assert "0 of 2 videos converted, 2 were there" in run(*arguments, "--count", 3).output
    assert "2 of 2 videos converted, 0 were there" in run(*arguments, "--count", 3, "--force").output
    assert len(list((tmp_path / "frames" / "NAME" / "one").iterdir())) == 3


def test_usage_errors_name_the_rule(run, videos, tmp_path, monkeypatch):
    out = ("-o", tmp_path / "out")
    assert "exclude each other" in run("frames", videos, *out, "--count", 2, "--every", 1).stderr
    assert "seconds a finite number above 0" in run("frames", videos, *out, "--every", "nan").stderr
    (tmp_path / "empty").mkdir()
    assert "must have files of the types .avi" in run("frames", tmp_path / "empty", *out).stderr
    shutil.copy(videos / "NAME" / "one.mp4", videos / "NAME" / "one.avi")
    result = run("frames", videos, *out)
    assert result.exit_code == 2
    assert "two inputs must not have the same output" in result.stderr
    original = builtins.__import__

    def absent(name, *arguments, **options):
        if name == "av":
            raise ModuleNotFoundError(name)
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", absent)
    result = run("frames", videos / "NAME" / "one.mp4", *out)
    assert result.exit_code == 2
    assert "pip install 'voicestyle[videos]'" in result.stderr


@pytest.mark.parametrize(
    "given", [{}, {"count": 1, "seconds": 1.0}, {"count": 0}, {"seconds": 0.0}, {"seconds": math.inf}]
)
def test_a_selection_checks_itself(given):
    with pytest.raises(ValueError, match="count"):
        Selection(**given)


def test_an_unreadable_video_is_an_error(tmp_path):
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(VideoError, match="must be a video that FFmpeg reads"):
        list(read_frames(tmp_path / "empty.mp4", Selection(count=1)))


def test_log_mels_are_what_the_encoder_reads(run, samples, tmp_path):
    recordings = tmp_path / "wav" / "id10001" / "VIDEO"
    recordings.mkdir(parents=True)
    for number, name in enumerate(("slt", "awb")):
        shutil.copy(samples / f"{name}.wav", recordings / f"0000{number}.wav")
    (recordings / "bad.wav").write_bytes(b"no audio")
    (recordings / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    result = run("log-mels", tmp_path / "wav", "-o", tmp_path / "mels")
    assert result.exit_code == 1
    assert "bad.wav: audio must be in a format that libsndfile reads" in result.stderr
    assert "2 of 3 recordings converted, 0 were there, 1 cannot be used" in result.output
    for recording in recordings.glob("0*.wav"):
        saved = tmp_path / "mels" / "id10001" / "VIDEO" / f"{recording.stem}.npy"
        frames = np.load(saved)
        assert (frames.dtype, frames.shape[1]) == (np.float32, 64)
        assert (load_voice()(saved) == audio_preprocess()(recording)).all()
    assert sorted(path.name for path in (tmp_path / "mels").rglob("*.*")) == ["00000.npy", "00001.npy"]


@pytest.mark.long
def test_processes_write_the_same_bytes_and_reasons(run, samples, tmp_path):
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    for number in range(6):
        shutil.copy(samples / "awb.wav", recordings / f"{number}.wav")
    (recordings / "bad.wav").write_bytes(b"no audio")
    results = [run("log-mels", recordings, "-o", tmp_path / str(jobs), "--jobs", jobs) for jobs in (1, 2)]
    assert results[0].output == results[1].output
    assert results[1].exit_code == 1
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / jobs).iterdir()} for jobs in "12")
    assert one == two
    assert len(one) == 6


def test_a_recording_that_cannot_be_opened_has_a_line(run, samples, tmp_path, monkeypatch):
    target = tmp_path / "slt.wav"
    shutil.copy(samples / "slt.wav", target)

    def refused(path, *arguments, **options):
        if path == target:
            raise PermissionError(13, "Permission denied")
        return original(path, *arguments, **options)

    original = type(target).open
    monkeypatch.setattr(type(target), "open", refused)
    result = run("log-mels", target, "-o", tmp_path / "mels")
    assert result.exit_code == 1
    assert "slt.wav: must be readable: Permission denied" in result.stderr


def test_both_commands_have_help(run):
    assert "--every" in run("frames", "--help").output
    assert "float32 [T, 64]" in run("log-mels", "--help").output
