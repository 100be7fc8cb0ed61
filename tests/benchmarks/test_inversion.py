"""The benchmark of the inversion: its baseline computes what the engine computes, and its rows."""

import pytest
import torch
from click.testing import CliRunner

from benchmarks import inversion, results
from benchmarks.networks import stylegan2_weights
from benchmarks.published_loop import photograph_distance, published_loop
from benchmarks.published_stylegan2 import StyleGAN2
from benchmarks.results import MeasurementError
from benchmarks.tables import PROJECTOR
from tests.benchmarks.test_step import MACHINE
from tests.support.tiny_face_network import TinyNetwork
from voicestyle.engine import Engine
from voicestyle.generators import StyleGAN2Config, read_stylegan2
from voicestyle.inversion import IdentityTerm, InversionLoss, PixelTerm

CONFIG = StyleGAN2Config(256, max_width=4)
STEPS = 10


def test_steps_equal_the_published_projector(tmp_path):
    weights = stylegan2_weights(CONFIG)
    torch.save({"g_ema": weights}, tmp_path / "stylegan2.pt")
    generator = read_stylegan2(tmp_path / "stylegan2.pt")[0].double()
    draw = torch.Generator().manual_seed(0)
    photograph = torch.rand(3, 256, 256, generator=draw, dtype=torch.float64) * 2 - 1
    noise = [torch.randn(1, *shape, generator=draw, dtype=torch.float64) for shape in generator.noise_shapes]
    latent_noise = torch.randn(STEPS, 512, generator=draw, dtype=torch.float64)
    first = torch.randn(512, generator=draw, dtype=torch.float64)
    pixels, network = PixelTerm(), TinyNetwork()
    loss = InversionLoss("both", [pixels, IdentityTerm(network)], network)
    engine = Engine(generator, loss, latent_std=9.0, schedule=inversion.SCHEDULE, dtype=torch.float64)
    engine.add(0, loss.target(photograph), first, seed=0, steps=STEPS, noise=noise, latent_noise=latent_noise)
    states = list(
        published_loop(
            StyleGAN2(weights).double(),
            photograph_distance(
                lambda ours, theirs: pixels(ours, pixels.target(theirs)), network.embed, photograph[None]
            ),
            first_latent=first[None],
            first_noise=[level[None] for level in noise],
            latent_noise=latent_noise,
            latent_std=9.0,
            base_lr=inversion.SCHEDULE.base_lr,
        )
    )
    for _ in range(STEPS):
        engine.step()
    outcome = engine.outcome(0)
    total = sum(outcome.figures.values())
    assert [state.distance for state in states] == pytest.approx(total.tolist(), abs=1e-6)
    torch.testing.assert_close(states[-1].latent, outcome.latent, rtol=0, atol=1e-5)
    assert (outcome.latent[0] - first).abs().max() > 0.1


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run the benchmark with scripted measurements; bfloat16 always fails."""
    calls = []

    def run_process(module, function, environment, *, variant, **arguments):
        assert (module, environment) == ("benchmarks.inversion", inversion.VARIANTS[variant])
        calls.append((function, variant))
        if variant == "bfloat16":
            raise MeasurementError("RuntimeError: no")
        if function == "quality":
            return {"loss": 0.25}
        seconds = (8.0 if variant == PROJECTOR else 2.0) * arguments["batch"] * (1 + len(calls) / 100)
        return {"machine": MACHINE, "steps": arguments["steps"], "seconds": seconds, "peak_resident_mib": 100}

    monkeypatch.setattr(inversion, "run_process", run_process)

    def invoke(*arguments):
        chosen = ["--variant", PROJECTOR, "--variant", "float32", "--variant", "bfloat16"]
        done = CliRunner().invoke(inversion.main, [*chosen, "--results", str(tmp_path), *arguments])
        assert done.exit_code == 0, done.output
        return results.read(tmp_path / "inversion.jsonl"), done.output, calls

    return invoke


def test_rows_of_repeated_measurements(run):
    rows, output, calls = run("--repeats", "3")
    published, ours, failed = rows
    assert published["ms_per_step_and_photograph"]["min"] == 8080.0
    assert ours["ms_per_step_and_photograph"]["median"] == pytest.approx(2110, rel=0.02)
    assert ours["photographs_per_hour"] == pytest.approx(3600 / (2.1 * inversion.STEPS), rel=0.02)
    assert ours["quality"] == {"loss": 0.25}
    assert ours["repeats"] == 3
    assert failed["error"] == "RuntimeError: no"
    assert [variant for function, variant in calls if function == "time"].count("bfloat16") == 1
    line = next(line for line in output.splitlines() if line.startswith("| float32"))
    assert [cell.strip() for cell in line.split("|")][4] in ("3.8", "3.9", "4")


def test_quick_writes_nothing(run):
    rows, output, calls = run("--quick")
    assert rows == []
    assert "failed: RuntimeError: no" in output
    assert {function for function, _ in calls} == {"time"}


def test_an_interrupted_run_writes_what_was_measured(monkeypatch, tmp_path):
    def run_process(*_, variant, **arguments):
        if variant == PROJECTOR:
            raise KeyboardInterrupt
        return {"machine": MACHINE, "steps": arguments["steps"], "seconds": 2.0, "peak_resident_mib": 100}

    monkeypatch.setattr(inversion, "run_process", run_process)
    words = ["--variant", "float32", "--variant", PROJECTOR, "--results", str(tmp_path)]
    done = CliRunner().invoke(inversion.main, words)
    assert done.exit_code == 1
    assert "| float32" in done.output
    assert [row["variant"] for row in results.read(tmp_path / "inversion.jsonl")] == ["float32"]


@pytest.mark.parametrize("variant", [PROJECTOR, "float32", "bfloat16"])
def test_variants_move_the_same_latents(monkeypatch, variant):
    monkeypatch.setattr(inversion, "SOURCE", inversion.Synthetic(CONFIG, inversion.ResNetConfig()))
    monkeypatch.setattr(inversion, "losses", small_losses)
    step, latents = inversion.start(variant, 2, 4)
    for _ in range(2):
        step()
    assert latents().shape == (2, 512)
    assert torch.isfinite(latents().float()).all()


def small_losses():
    return PixelTerm(), TinyNetwork()
