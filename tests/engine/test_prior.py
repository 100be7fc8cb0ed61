"""The latent prior in the engine: against a plain loop, and items with and without it in one batch."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support.tiny_engine import engine, item, take_steps
from voicestyle.engine import CudaCapture, Engine, Schedule
from voicestyle.engine.objective import TargetSpec
from voicestyle.latent_prior import LatentPrior

DIM = 8
STEPS = 6
ALL = {"prior_weight": 0.3, "hold": True}


def prior(dim, held=2, rows=None):
    source = np.random.default_rng(dim)
    directions = np.linalg.qr(source.standard_normal((dim, dim)))[0][:held]
    whitening = source.standard_normal((rows or dim, dim))
    return LatentPrior(*(each.astype(np.float32) for each in (whitening, source.standard_normal(dim), directions)))


@pytest.fixture(params=[False, True], ids=["sequential", "batched"])
def batched(request):
    return request.param


class Linear(torch.nn.Module):
    """Images of one pixel, which are three sums of the components of w; no noise maps."""

    latent_dim = DIM
    noise_shapes: list[list[int]] = []

    def forward(self, w, noise):
        source = torch.Generator().manual_seed(3)
        weight = torch.randn(DIM, 3, generator=source, dtype=torch.float64)
        return (w if w.dim() == 2 else w.mean(dim=1)) @ weight.to(w)


class Squared:
    """The squared distance of an image from its target."""

    figures = ("distance",)
    targets = (TargetSpec((3,)),)

    def __call__(self, images, targets):
        distance = (images - targets[0]).square().sum(dim=1)
        return distance, distance[:, None]


def linear_item(number, shape):
    source = torch.Generator().manual_seed(number)
    draw = lambda *sizes: torch.randn(*sizes, generator=source, dtype=torch.float64)  # noqa: E731
    return {"target": [draw(3)], "first_latent": draw(*shape), "latent_noise": draw(STEPS, *shape)}


def plain_loop(target, first_latent, latent_noise, latent_prior, weight, centre, hold):
    """w after each step: each number of the schedule, Adam and the prior written out, gradients from autograd."""
    whitening, held = (torch.from_numpy(each).double() for each in (latent_prior.whitening, latent_prior.held))
    w = first_latent.clone()
    first, second = torch.zeros_like(w), torch.zeros_like(w)
    states = []
    for i in range(STEPS):
        t = i / STEPS
        rate = 0.01 * (0.5 - 0.5 * math.cos(math.pi * min(1, (1 - t) / 0.25))) * min(1, t / 0.05)
        noise = 2.0 * 0.05 * max(0, 1 - t / 0.75) ** 2 * latent_noise[i]
        w.requires_grad_()
        loss = (Linear()((w + noise)[None], [])[0] - target[0]).square().sum()
        rows = (w - centre).view(-1, DIM)
        distances = [(whitening @ row).square().sum() / len(whitening) for row in rows]
        loss = loss + weight * sum(distances) / len(distances)
        [gradient] = torch.autograd.grad(loss, w)
        w = w.detach()
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        w = w - rate * (first / (1 - 0.9 ** (i + 1))) / ((second / (1 - 0.999 ** (i + 1))).sqrt() + 1e-8)
        if hold:
            for direction in held:
                w = w - ((w - first_latent) @ direction)[..., None] * direction
        states.append(w)
    return states


@pytest.mark.parametrize("rows", [None, 3])
@pytest.mark.parametrize("centred_on_bank", [False, True])
def test_steps_equal_a_plain_loop(batched, rows, centred_on_bank):
    latent_prior = prior(DIM, rows=5)
    shape = (DIM,) if rows is None else (rows, DIM)
    running = Engine(
        Linear(), Squared(), latent_std=2.0, latent_rows=rows, dtype=torch.float64, batched=batched, prior=latent_prior
    )
    centre = torch.from_numpy(latent_prior.mean).double() if centred_on_bank else None
    asked = [(0.0, False), (0.7, False), (0.0, True), (0.7, True), (5.0, True)]
    for number, (weight, hold) in enumerate(asked):
        running.add(
            number,
            **linear_item(number, shape),
            seed=0,
            steps=STEPS,
            prior_weight=weight,
            prior_centre=centre if weight else None,
            hold=hold,
        )
    states = []
    for number, (weight, hold) in enumerate(asked):
        given = linear_item(number, shape)
        given["centre"] = given["first_latent"] if centre is None else centre
        states.append(plain_loop(**given, latent_prior=latent_prior, weight=weight, hold=hold))
    for i in range(STEPS):
        running.step()
        for number, expected in enumerate(states):
            latent = running.outcome(number).latent[0]
            torch.testing.assert_close(latent, expected[i], rtol=1e-9, atol=1e-8)
    assert (states[0][-1] - linear_item(0, shape)["first_latent"]).abs().max() > 1e-3


def test_a_heavy_weight_keeps_w_at_its_centre():
    latent_prior = prior(5)
    whitening, centre = (torch.from_numpy(each).double() for each in (latent_prior.whitening, latent_prior.mean))
    distances = []
    for weight in (0.0, 0.1, 100.0):
        running = engine(prior=latent_prior, schedule=Schedule(base_lr=0.05))
        running.add("x", **item(0, steps=40), prior_weight=weight, prior_centre=centre)
        latent = take_steps(running, 40)["x"].latent[0]
        distances.append(float((whitening @ (latent - centre)).square().mean()))
    assert distances[2] < distances[1] < distances[0]


def test_held_components_are_those_of_the_first_latent_in_float32():
    latent_prior = prior(DIM, held=3)
    held = torch.from_numpy(latent_prior.held)
    for rows in (None, 2):
        running = Engine(Linear(), Squared(), latent_std=2.0, latent_rows=rows, prior=latent_prior)
        shape = (DIM,) if rows is None else (rows, DIM)
        given = linear_item(1, shape)
        first = 20 * given["first_latent"].float()
        for key, hold in (("held", True), ("free", False)):
            running.add(key, given["target"], first, seed=1, steps=100, hold=hold)
        finished = take_steps(running, 100)
        moved = {key: (finished[key].latent[0] - first) @ held.T for key in finished}
        assert moved["held"].abs().max() < 1e-5
        assert moved["free"].abs().max() > 0.1
        assert (finished["held"].latent[0] - first).abs().max() > 0.1


def run_mixed(latent_prior, batched, capture=None, **asked):
    """Outcomes of items that join and leave, of which the odd ones get the arguments `asked`."""
    running = engine(capacity=6, batched=batched, prior=latent_prior)
    if capture:
        running.capture(capture)
    add = lambda number, steps: running.add(number, **item(number, steps), **(asked if number % 2 else {}))  # noqa: E731
    for number in range(4):
        add(number, 20)
    take_steps(running, 3)
    running.remove(0)  # the last item moves into its row
    for number in (4, 5):
        add(number, 12)
    finished = take_steps(running, 8)
    running.remove(1)
    add(6, 10)
    return finished | take_steps(running, 20)


def replay_all(run):
    """Stands for a captured graph."""
    run()
    return run


@pytest.mark.parametrize(
    ("batched", "capture"),
    [(False, None), (True, None), (True, replay_all)],
    ids=["sequential", "batched", "graphs"],
)
def test_items_that_ask_for_no_prior_get_the_same_bits(batched, capture):
    without = run_mixed(None, batched, capture)
    unused = run_mixed(prior(5), batched, capture)
    mixed = run_mixed(prior(5), batched, capture, **ALL)
    assert set(without) == set(mixed) == {2, 3, 4, 5, 6}
    for number, expected in without.items():
        for outcomes in (unused, mixed):
            same = torch.equal(outcomes[number].latent, expected.latent)
            assert same == (number % 2 == 0 or outcomes is unused)
            if same:
                assert all(map(torch.equal, outcomes[number].noise, expected.noise))
                assert torch.equal(outcomes[number].figures["similarity"], expected.figures["similarity"])
        assert list(mixed[number].figures) == ["similarity"]


def test_a_weight_of_zero_ignores_a_distance_that_overflows():
    outcomes = []
    for asked in ({}, {"prior_weight": 0.0, "prior_centre": torch.full((5,), math.inf)}):
        running = engine(prior=prior(5))
        running.add("x", **item(0), **asked)
        outcomes.append(take_steps(running, 20)["x"])
    assert torch.equal(outcomes[0].latent, outcomes[1].latent)


@pytest.mark.parametrize("capture", [None, replay_all], ids=["plain", "graphs"])
def test_batched_and_sequential_items_agree(capture):
    alone, together = run_mixed(prior(5), False, **ALL), run_mixed(prior(5), True, capture, **ALL)
    for number, expected in alone.items():
        torch.testing.assert_close(together[number].latent, expected.latent, rtol=1e-9, atol=1e-10)


def test_a_sequential_item_has_the_same_bits_alone():
    crowded = run_mixed(prior(5), False, **ALL)
    running = engine(batched=False, prior=prior(5))
    running.add(5, **item(5, 12), **ALL)
    assert torch.equal(take_steps(running, 12)[5].latent, crowded[5].latent)


class Operations(TorchDispatchMode):
    """Counts the operations that torch executes."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


def test_an_engine_without_prior_runs_no_operation_for_it():
    names = {}
    for key, latent_prior in (("none", None), ("unheld", prior(5, held=0)), ("held", prior(5))):
        running = engine(prior=latent_prior)
        running.add("x", **item(0))
        running.step()
        with Operations() as seen:
            running.step()
        names[key] = Counter(seen.names)
    for key, selections in (("unheld", 1), ("held", 2)):
        assert not names["none"] - names[key]
        assert (names[key] - names["none"])["where"] == selections
    for seen in names.values():  # nothing waits for the device
        assert not {"_local_scalar_dense", "nonzero", "is_nonzero"} & seen.keys()


@pytest.mark.parametrize(
    ("latent_prior", "change", "message"),
    [
        (None, {"prior_weight": 0.1}, "need an engine with a prior"),
        (None, {"hold": True}, "need an engine with a prior"),
        (None, {"prior_centre": torch.zeros(5)}, "need an engine with a prior"),
        (prior(5), {"prior_weight": -0.1}, "prior_weight must be a number of at least 0, got -0.1"),
        (prior(5), {"prior_weight": math.nan}, "prior_weight must be a number of at least 0, got nan"),
        (prior(5), {"prior_weight": math.inf}, "prior_weight must be a number of at least 0, got inf"),
        (prior(5), {"prior_centre": torch.zeros(1, 5)}, r"prior_centre must have shape \[5\], got \[1, 5\]"),
        (prior(5, held=0), {"hold": True}, "hold needs a prior with held directions, got one without"),
    ],
)
def test_wrong_arguments_leave_nothing_behind(latent_prior, change, message):
    running = engine(prior=latent_prior)
    with pytest.raises(ValueError, match=message):
        running.add("x", **item(0) | change)
    assert running.live == 0


def test_a_prior_must_fit_the_latents():
    with pytest.raises(ValueError, match="must be for latents of 5 numbers, got 8"):
        engine(prior=prior(8))


@pytest.mark.gpu
def test_cuda_graphs_equal_single_kernels_with_a_prior():
    weight = torch.ones(DIM, 3, device="cuda")
    generator = Linear()
    generator.forward = lambda w, noise: w @ weight  # a graph contains no copy from the host
    outcomes = []
    for capture in (None, CudaCapture(torch.device("cuda"))):
        running = Engine(generator, Squared(), latent_std=2.0, capacity=4, device="cuda", prior=prior(DIM))
        if capture:
            running.capture(capture)
        for number in range(3):
            given = linear_item(number, (DIM,))
            asked = ALL if number else {}
            running.add(number, given["target"], given["first_latent"], seed=number, steps=5 + number, **asked)
        finished = take_steps(running, 7)
        outcomes.append([finished[number].latent for number in range(3)])
    for plain, captured in zip(*outcomes, strict=True):
        torch.testing.assert_close(captured, plain, rtol=0, atol=1e-4)
