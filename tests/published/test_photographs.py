"""Published files without latents: photographs and frames become the latents first."""

from __future__ import annotations

import io
import shutil

import pytest
from click.testing import CliRunner
from PIL import Image

from tests.support.generated_faces import write_faces
from voicestyle.bank_builder import BankOptions, build_bank
from voicestyle.cli import main
from voicestyle.offline import generate_face
from voicestyle.options import Options
from voicestyle.photographs import Gates
from voicestyle.pipeline import Pipeline
from voicestyle.published import PublishedOptions, build_published_bundle, read_latents

PERSONS = 3
VIDEOS = 18  # six of each person


@pytest.fixture
def folders(tmp_path):
    """Two photographs of each person, and a frame of each video that is one of them."""
    photographs = [tmp_path / "photos" / f"Person_{i:03}" / f"{name}.png" for i in range(PERSONS) for name in "ab"]
    write_faces(photographs)
    chosen = {}
    for row in range(VIDEOS):
        video = f"Person_{row // 6:03}/1.6/video_{row:05}"
        photograph = photographs[2 * (row // 6) + row % 2]
        frame = tmp_path / "frames" / video / "000001.jpg"
        frame.parent.mkdir(parents=True)
        Image.open(photograph).resize((200, 200)).save(frame)
        chosen[video] = photograph
    return tmp_path / "photos", tmp_path / "frames", chosen


@pytest.mark.long
def test_photographs_of_persons_become_latents_of_their_videos(
    published_files, folders, small_encoder, samples, tmp_path
):
    photographs, frames, chosen = folders
    files = published_files(videos=VIDEOS)
    build = BankOptions(
        (photographs,),
        tmp_path / "bank",
        stylegan=files.stylegan,
        csv=files.csv,
        frames=frames,
        steps=2,
        gates=Gates(max_yaw=90, max_pitch=90),
    )
    bank = build_bank(build)
    latents = read_latents(bank.latents)
    assert sorted(latents.videos) == sorted(chosen)
    by_video = dict(zip(latents.videos, latents.latents.tolist(), strict=True))
    for video, photograph in chosen.items():  # videos share the latent of the photograph that was chosen for them
        same = [other for other, its in chosen.items() if its == photograph]
        assert {other for other, latent in by_video.items() if latent == by_video[video]} == set(same)

    shutil.copy(bank.latents, files.latents)
    options = PublishedOptions(level=6, encoder_size=64, encoders=small_encoder)
    built = build_published_bundle(tmp_path / "bundle", files, options)
    assert built.bank.videos_without_latent == 0
    face = generate_face(Pipeline.load(tmp_path / "bundle", capacity=1), samples / "slt.wav", Options(steps=2))
    assert Image.open(io.BytesIO(face.image)).size == (64, 64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a bundle needs --latents, or --photos and --frames to make them"),
        (["--photos=a"], "a bundle needs --latents, or --photos and --frames to make them"),
        (["--latents=a", "--photos=a"], "--latents and --photos exclude each other"),
        (["--latents=a", "--clip=a"], "--frames, --clip and --work belong to --photos"),
    ],
)
def test_latents_and_photographs_exclude_each_other(tmp_path, arguments, message):
    given = [f"--{name}={tmp_path / name}" for name in ("cmpc", "memory", "csv", "stylegan")]
    done = CliRunner().invoke(main, ["bundle", "published", *given, *arguments])
    assert done.exit_code == 2
    assert message in done.stderr


def test_other_files_are_checked_before_the_inversion(published_files, tmp_path):
    files = published_files()
    files.stylegan.write_bytes(b"truncated")
    given = [f"--{name}={getattr(files, name)}" for name in ("cmpc", "memory", "csv", "stylegan")]
    work = tmp_path / "work"
    arguments = ["--level=6", f"--photos={tmp_path}", f"--frames={tmp_path}", f"--work={work}"]
    done = CliRunner().invoke(main, ["bundle", "published", *given, *arguments])
    assert done.exit_code == 2
    assert "must be a torch file" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not work.exists()
