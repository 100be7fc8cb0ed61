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
from voicestyle.cli import main
from voicestyle.generators import StyleGAN2Config
from voicestyle.serving import TorchServe

pytestmark = [pytest.mark.slow, pytest.mark.serving]


@pytest.mark.parametrize("encoder_size", [224])
def test_full_size_files_give_a_served_face(published_files, samples, tmp_path, encoder_size):
    files = published_files(
        encoder=ResNetConfig(), generator=StyleGAN2Config(256), levels=(500, 1000, 1500), videos=2000
    )
    given = [f"--{field.name}={getattr(files, field.name)}" for field in fields(files)]
    bundle, archive = tmp_path / "bundle", tmp_path / "store" / "voicestyle.mar"
    for arguments in (
        ["bundle", "published", *given, f"--encoder-size={encoder_size}", "-o", str(bundle)],
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
