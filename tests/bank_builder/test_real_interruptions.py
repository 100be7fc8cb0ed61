"""Real inversions of the demo generator: killed three times, or with a Ray node killed, the bank has the same bytes."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from voicestyle import torchscript
from voicestyle.bank_builder import BankOptions, build_bank
from voicestyle.bank_builder.ray_tasks import CLUSTERS, STATISTICS
from voicestyle.bundle import GENERATOR_INTERFACE
from voicestyle.generators import map_seeds
from voicestyle.images import to_pixels

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "face_networks"
SEEDS = np.array([11, 12, 13, 15], dtype=np.uint32)  # generated faces that pass the gates
STEPS = 3


@pytest.fixture(scope="module")
def photographs(demo_bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    Image.fromarray(data.astronaut()).save(folder / "real.png")
    generator = torchscript.load(demo_bundle / "generator.pt", "cpu", keep=GENERATOR_INTERFACE)
    with torch.inference_mode():
        for seed, w in zip(SEEDS, map_seeds(generator, SEEDS), strict=True):
            Image.fromarray(to_pixels(generator.render(w[None], [], 1024)[0])).save(folder / f"{seed}.jpg", quality=95)
    return folder


@pytest.fixture(scope="module")
def make(photographs, demo_bundle):
    def options(folder, **changes):
        return BankOptions((photographs,), folder, bundle=demo_bundle, cache=CACHE, steps=STEPS, **changes)

    return options


@pytest.fixture(scope="module")
def undisturbed(make, tmp_path_factory):
    built = build_bank(make(tmp_path_factory.mktemp("bank")))
    assert built.description.photographs.kept >= 4
    return built


def assert_same(built, undisturbed):
    assert built.latents.read_bytes() == undisturbed.latents.read_bytes()
    assert built.bank.read_bytes() == undisturbed.bank.read_bytes()


def test_a_build_that_is_killed_three_times_gives_the_same_bytes(make, undisturbed, photographs, demo_bundle, tmp_path):
    flags = ["--bundle", demo_bundle, "--cache", CACHE, "--steps", STEPS, "--shard-size", 1]
    command = [sys.executable, "-m", "voicestyle.cli", "bank", "build", photographs, "-o", tmp_path / "bank", *flags]
    source = random.Random(3)
    done = []
    for _ in range(3):
        process = subprocess.Popen(list(map(str, command)), cwd=ROOT, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 300
        while len(found := sorted((tmp_path / "bank").glob("shards/[0-9]*.shard"))) <= len(done):
            assert process.poll() is None
            assert time.monotonic() < end, "waited too long"
            time.sleep(0.05)
        time.sleep(source.random())
        process.send_signal(signal.SIGKILL)
        process.wait()
        done = [(path.name, path.stat().st_mtime_ns) for path in found]
    built = build_bank(make(tmp_path / "bank", shard_size=1))
    assert_same(built, undisturbed)
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "bank" / "shards").iterdir()}
    assert set(done) <= set(kept.items())  # no shard was written again


def test_a_killed_ray_node_changes_no_byte(make, undisturbed, tmp_path, monkeypatch):
    monkeypatch.setenv(STATISTICS, "0")
    monkeypatch.setenv(CLUSTERS, "0")
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    memory = 200 * 2**20
    head = {"num_cpus": 0, "object_store_memory": memory, "include_dashboard": False}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    killed = []
    try:
        first, _ = (cluster.add_node(num_cpus=1, object_store_memory=memory) for _ in range(2))

        def kill_a_node(counts):
            if counts.done >= 1 and not killed:
                killed.append(counts.done)
                cluster.remove_node(first, allow_graceful=False)

        built = build_bank(make(tmp_path / "bank", shard_size=1, ray=cluster.address), kill_a_node)
    finally:
        cluster.shutdown()
    assert killed
    assert killed[0] < built.description.photographs.total
    assert_same(built, undisturbed)
