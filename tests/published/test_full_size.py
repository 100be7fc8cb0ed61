"""Full-size files in the published format, built and served with the commands of docs/checkpoints.md."""

from __future__ import annotations

import io
import re
from dataclasses import fields
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from PIL import Image

from cmpc2 import ResNetConfig
from tests.support.generated_faces import write_faces
from voicestyle.cli import main
from voicestyle.generators import StyleGAN2Config
from voicestyle.serving import TorchServe

pytestmark = [pytest.mark.slow, pytest.mark.serving]


PERSONS = 4  # that have photographs


def photographs_and_frames(folder):
    """One photograph of each of the first persons, and a frame of each of their videos; as flags."""
    photographs = [folder / "photos" / f"Person_{person:03}" / "a.png" for person in range(PERSONS)]
    write_faces(photographs)
    for row in range(6 * PERSONS):
        frame = folder / "frames" / f"Person_{row // 6:03}" / "1.6" / f"video_{row:05}" / "000001.png"
        frame.parent.mkdir(parents=True)
        frame.write_bytes(photographs[row // 6].read_bytes())
    return [f"--photos={folder / 'photos'}", f"--frames={folder / 'frames'}", "--steps=2", "--max-yaw=90"]


@pytest.mark.parametrize("with_photographs", [False, True], ids=["latents", "photographs"])
def test_full_size_files_give_a_served_face(published_files, samples, tmp_path, with_photographs):
    files = published_files(
        encoder=ResNetConfig(), generator=StyleGAN2Config(256), levels=(500, 1000, 1500), videos=2000
    )
    names = [field.name for field in fields(files) if field.name != "latents" or not with_photographs]
    given = [f"--{name}={getattr(files, name)}" for name in names]
    if with_photographs:
        given += photographs_and_frames(tmp_path)
    bundle, archive = tmp_path / "bundle", tmp_path / "store" / "voicestyle.mar"
    for arguments in (
        ["bundle", "published", *given, "--encoder-size=224", "-o", str(bundle)],
        ["archive", "--bundle", str(bundle), "-o", str(archive)],
    ):
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 0, done.output
    with TorchServe(archive) as server, httpx.Client(timeout=600, trust_env=False) as client:
        answer = client.post(
            server.url,
            content=(samples / "slt.wav").read_bytes(),
            headers={"Content-Type": "application/octet-stream", "X-VoiceStyle-Steps": "3"},
        )
        (worker,) = server.worker_pids()
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{worker}/status").read_text())
    assert answer.status_code == 200, answer.text
    assert Image.open(io.BytesIO(answer.content)).size == (256, 256)
    assert -1 <= float(answer.headers["X-VoiceStyle-Similarity"]) <= 1
    assert peak is not None
    print(f"archive {archive.stat().st_size / 1e6:.0f} MB, worker's peak memory {int(peak[1]) / 1e6:.2f} GB")
    assert int(peak[1]) < 6e6
