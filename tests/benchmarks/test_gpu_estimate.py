"""The estimate of a step on a GPU: its counts by hand, its arithmetic, and the rows that it writes."""

import json

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import gpu_estimate
from benchmarks.gpu_estimate import Counts, Gpu, Networks, arithmetic_seconds, estimate, traffic_seconds, with_capacity
from benchmarks.operations import Operation, OperationCounter, StepCount
from cmpc2 import ResNet, ResNetConfig
from cmpc2.resnet import fold_batch_norm
from voicestyle.generators import StyleGAN2, StyleGAN2Config

FLOAT = 4  # bytes
GPU = Gpu("a GPU", {torch.float32: 2e12, torch.bfloat16: 8e12}, 1e12, 10**9, 10, torch.bfloat16)
H100 = gpu_estimate.GPUS[0]


def counted(run):
    with torch.device("meta"), OperationCounter() as counter:
        run()
    return counter.count


def rows(count):
    return [(each.name, each.kernels, each.flops, each.moved) for each in count.operations]


def test_a_convolution_and_its_gradient_by_hand():
    x, weight = (torch.empty(*shape, device="meta") for shape in ((2, 3, 8, 8), (4, 3, 3, 3)))

    def run():
        y = F.conv2d(x.requires_grad_(), weight, torch.zeros(4), padding=1)
        torch.autograd.grad(y, x, torch.zeros_like(y))

    features, filters, result = 2 * 3 * 64 * FLOAT, 4 * 27 * FLOAT, 2 * 4 * 64 * FLOAT
    flops = 2 * 27 * 4 * 2 * 64
    forward, backward = (row for row in rows(counted(run)) if row[0].startswith("convolution"))
    assert forward == ("convolution", 2, flops, features + filters + 4 * FLOAT + result)  # two kernels, for the bias
    # The gradient of the image needs the gradient of the result and the filters alone.
    assert backward == ("convolution_backward", 1, flops, result + filters + features)


def test_views_cost_nothing_and_expanded_tensors_are_read_once():
    row, square = torch.empty(1, 100, device="meta"), torch.empty(100, 100, device="meta")
    assert rows(counted(lambda: square.t()[3:].unsqueeze(0).detach())) == []
    assert rows(counted(lambda: row.expand(100, 100) + square)) == [("add", 1, 0, (100 + 2 * 10_000) * FLOAT)]
    assert rows(counted(lambda: square.copy_(row))) == [("copy_", 1, 0, (100 + 10_000) * FLOAT)]
    assert rows(counted(lambda: square.zero_())) == [("zero_", 1, 0, 10_000 * FLOAT)]


def test_indexing_moves_the_chosen_elements():
    table, chosen = torch.empty(1000, 10, device="meta"), torch.empty(3, dtype=torch.long, device="meta")
    moved = 3 * 8 + 2 * 3 * 10 * FLOAT
    assert rows(counted(lambda: table[chosen])) == [("index", 1, 0, moved)]
    values = torch.empty(3, 10, device="meta")
    assert rows(counted(lambda: table.index_put_((chosen,), values))) == [("index_put_", 1, 0, moved)]


def test_the_peak_is_that_of_tensors_alive_at_once():
    outside = torch.empty(1000, device="meta")

    def run():
        first = torch.empty(100) + 1  # two of 100, then one
        second = first[:50] * 2  # 100 and 50
        del first
        third = second.repeat(4)  # 50 and 200
        outside.add_(1)  # in place: nothing new
        return third

    assert counted(run).peak == 250 * FLOAT


def test_a_matrix_product_computes_whole_tiles_on_all_multiprocessors():
    product = Operation("mm", 1, flops=2 * 65 * 64 * 100, moved=0, dtype=torch.float32, matrices=(65, 64, 1))
    # 65 rows are two tiles of 64 rows; they take one wave of ten, at half of 2e12 operations a second for all ten.
    assert arithmetic_seconds(product, GPU) == pytest.approx(2 * 64 * 64 * 100 / (0.5 * 2e12 / 10))
    eleven = Operation("bmm", 1, flops=11 * 2 * 64 * 64 * 100, moved=0, dtype=torch.float32, matrices=(64, 64, 11))
    assert arithmetic_seconds(eleven, GPU) == pytest.approx(2 * 2 * 64 * 64 * 100 / (0.5 * 2e12 / 10))


def test_the_example_of_the_documentation():
    # 512 channels to 512 by 3×3 at 64 pixels, in bfloat16.
    weight, x = (torch.empty(*s, device="meta", dtype=torch.bfloat16) for s in ((512, 512, 3, 3), (1, 512, 64, 64)))
    (convolution,) = counted(lambda: F.conv2d(x, weight, padding=1)).operations
    assert convolution.flops / 1e9 == pytest.approx(19.3, abs=0.05)
    assert arithmetic_seconds(convolution, H100) * 1e6 == pytest.approx(40.3, abs=0.05)
    assert traffic_seconds(convolution, H100) * 1e6 == pytest.approx(5.2, abs=0.05)


def test_an_operator_takes_the_longer_of_arithmetic_and_memory():
    matrix = Operation("mm", 1, flops=2 * 640 * 64 * 10**5, moved=10, dtype=torch.bfloat16, matrices=(640, 64, 1))
    copy = Operation("copy_", 2, flops=0, moved=3 * 10**9, dtype=torch.bfloat16)
    grouped = Operation("convolution", 1, 10, 4 * 10**8, torch.bfloat16, matrices=(1, 1, 1), grouped=True)
    counts = Counts({2: StepCount([matrix, copy, grouped], peak=5 * 2**20)}, weights=3 * 2**20, rows=2**20)
    row = estimate(GPU, "tiny", counts, 2, steps=10)
    assert row["arithmetic_ms"] == pytest.approx(1000 * 2 * 640 * 64 * 1e5 / 4e12, rel=1e-3)
    assert row["memory_ms"] == pytest.approx(4 + 1)  # 3 GB at 750 GB/s, and 0.4 GB at 400 GB/s
    assert row["launches_ms"] == pytest.approx(0.008)
    assert row["ms_per_step"] == pytest.approx(row["arithmetic_ms"] + 5.008, rel=1e-3)
    assert row["faces_per_second"] == pytest.approx(2 / (10 * row["ms_per_step"] / 1000), rel=1e-3)
    assert row["memory_mib"] == 1024 + 3 + 2 + 5


def test_without_graphs_the_host_limits_small_kernels():
    kernels = [Operation("mul", 1, 0, moved=750, dtype=torch.float32)] * 1000
    row = estimate(GPU, "tiny", Counts({1: StepCount(kernels, 0)}, 0, 0), 1, steps=1)
    assert (row["ms_per_step"], row["ms_without_graphs"]) == (pytest.approx(2.001), 8)


@pytest.mark.parametrize(
    ("milliseconds", "memory_mib", "capacity"),
    [
        ((10, 12, 20), (100, 100, 100), 4),
        ((10, 12, 200), (100, 100, 100), 2),  # above 150 ms
        ((10, 19.9, 39), (100, 100, 100), 1),  # the same faces a second
        ((10, 12, 20), (100, 100, 10**5), 2),  # above 80 GB
    ],
)
def test_the_capacity_is_chosen_as_the_service_would(milliseconds, memory_mib, capacity):
    columns = zip((1, 2, 4), milliseconds, memory_mib, strict=True)
    found = [dict(zip(("batch", "ms_per_step", "memory_mib"), each, strict=True)) for each in columns]
    assert {row["capacity"] for row in with_capacity(H100, found, 0.15)} == {capacity}


def tiny():
    config = ResNetConfig(widths=(4, 4, 8, 8), depths=(1, 1, 1, 1), embedding_dim=8)
    generator = StyleGAN2(StyleGAN2Config(64, max_width=8))
    return Networks(generator, fold_batch_norm(ResNet(3, config).eval()), embedding_dim=8)


@pytest.mark.long
def test_a_step_is_forward_and_backward_of_both_networks():
    networks = tiny()
    forward = FlopCounterMode(display=False)
    with torch.no_grad(), forward:
        noise = [torch.zeros(1, 1, *shape) for shape in networks.generator.noise_shapes]
        networks.face_encoder(networks.generator(torch.zeros(1, 512), noise))
    counts = gpu_estimate.count(networks, torch.float32, sizes=(1, 2))
    # The gradients of styles and noise need no convolution of their own.
    assert counts.steps[1].flops == pytest.approx(2 * forward.get_total_flops(), rel=0.02)
    assert counts.steps[2].flops == 2 * counts.steps[1].flops
    assert counts.steps[2].kernels == counts.steps[1].kernels > 500
    assert counts.steps[2].moved < 2 * counts.steps[1].moved  # weights are read once
    assert counts.steps[2].peak == pytest.approx(2 * counts.steps[1].peak, rel=0.01)
    latent_noise, latent, maps = 500 * 512, 512, sum(h * w for h, w in networks.generator.noise_shapes)
    assert counts.rows == pytest.approx(FLOAT * (latent_noise + 3 * (latent + maps) + 500 + 8), rel=1e-3)


@pytest.mark.long
def test_the_command_writes_its_rows_in_place_of_the_old_ones(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_estimate, "NETWORKS", {"full": (100, tiny)})
    monkeypatch.setattr(gpu_estimate, "GPUS", (H100,))
    monkeypatch.setattr(gpu_estimate, "SIZES", (1, 2))
    file = tmp_path / "gpu_estimate.jsonl"
    file.write_text("old\n")
    for arguments in ([], ["--write"]):
        assert file.read_text() == "old\n"
        done = CliRunner().invoke(gpu_estimate.main, [*arguments, "--results", str(tmp_path)], catch_exceptions=False)
        assert "Computed, not measured" in done.output
        assert "| H100 SXM, bfloat16 | 2 (auto) " in done.output
    written = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["batch"] for row in written] == [1, 2]
    assert all(row["commit"] for row in written)
