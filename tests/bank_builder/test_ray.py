"""Builds on Ray: the same bytes as without it, also when a node is killed; nothing is shared but Ray itself."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fake_bank_tools import fake_toolbox, write_photographs
from voicestyle.bank_builder import BankError, BankOptions, build_bank
from voicestyle.bank_builder.ray_tasks import CLUSTERS, STATISTICS, _slots

pytestmark = pytest.mark.long
COUNT = 16
ROOT = Path(__file__).parents[2]
MEMORY = 80 * 2**20  # of a node's object store in bytes
# A lost node is noticed after 5 s; Ray's default is 15 s and more.
HEALTH = {"health_check_period_ms": 1000, "health_check_failure_threshold": 5}


@pytest.fixture(scope="module", autouse=True)
def quiet_ray():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(STATISTICS, "0")
        patch.setenv(CLUSTERS, "0")
        yield


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    return write_photographs(tmp_path_factory.mktemp("photographs"), COUNT)


@pytest.fixture(scope="module")
def undisturbed(photographs, tmp_path_factory):
    return build_bank(BankOptions((photographs,), tmp_path_factory.mktemp("bank")), toolbox=fake_toolbox())


def assert_same(built, undisturbed):
    assert built.latents.read_bytes() == undisturbed.latents.read_bytes()
    assert built.bank.read_bytes() == undisturbed.bank.read_bytes()


def test_a_node_killed_in_the_middle_changes_no_byte(photographs, undisturbed, tmp_path):
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    head = {"num_cpus": 0, "object_store_memory": MEMORY, "include_dashboard": False, "_system_config": HEALTH}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    try:
        first, _ = (cluster.add_node(num_cpus=1, object_store_memory=MEMORY) for _ in range(2))
        diary, killed = tmp_path / "diary", []

        def kill_a_node(counts):
            if counts.done >= 4 and not killed:
                killed.append(counts.done)
                cluster.remove_node(first, allow_graceful=False)

        options = BankOptions((photographs,), tmp_path / "bank", shard_size=2, ray=cluster.address)
        built = build_bank(options, kill_a_node, fake_toolbox(seconds=0.3, diary=diary))
    finally:
        cluster.shutdown()
    assert killed
    assert killed[0] < COUNT
    assert_same(built, undisturbed)
    # The killed node's shard was begun twice; a finished shard was not.
    repeated = len(diary.read_text().split()) - len(set(diary.read_text().split()))
    assert repeated <= 2


def test_a_local_cluster_listens_on_loopback_alone_and_gets_the_weight_files(photographs, undisturbed, tmp_path):
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"weights")
    # In its own process, because Ray reads its settings when it is imported.
    environment = {name: value for name, value in os.environ.items() if name not in (STATISTICS, CLUSTERS)}
    command = [sys.executable, "-m", "tests.support.bank_on_ray", photographs, tmp_path / "bank", weights]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert {address.removeprefix("::ffff:") for address in seen["addresses"]} == {"127.0.0.1"}
    assert seen["statistics"] == "0"
    assert (tmp_path / "bank" / "latents.pt").read_bytes() == undisturbed.latents.read_bytes()


def test_an_error_of_a_task_is_the_error_of_the_build(photographs, tmp_path):
    moved = write_photographs(tmp_path / "photographs", 4)

    def change(counts):
        (moved / "003.png").write_bytes((moved / "002.png").read_bytes())

    options = BankOptions((moved,), tmp_path / "bank", shard_size=2, ray="local", workers=1)
    with pytest.raises(BankError, match="must not change during a build, '003.png' did"):
        build_bank(options, change, fake_toolbox())


def test_an_absent_cluster_is_an_error(photographs, tmp_path):
    options = BankOptions((photographs,), tmp_path / "bank", ray="127.0.0.1:1")
    with pytest.raises(BankError, match="must be local or the address of a running cluster, got 127.0.0.1:1"):
        build_bank(options, toolbox=fake_toolbox())


@pytest.mark.parametrize(
    ("resources", "threads", "gpus", "slots"),
    [({"CPU": 8.0}, 1, 0, 8), ({"CPU": 8.0}, 3, 0, 2), ({"CPU": 8.0, "GPU": 2.0}, 1, 1, 2), ({}, 1, 1, 0)],
)
def test_slots_are_what_runs_at_once(resources, threads, gpus, slots):
    assert _slots(resources, threads, gpus) == slots
