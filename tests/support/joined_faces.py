"""Faces that join and leave an engine, and comparisons of what became of them."""

import torch

# By the step at which they join: faces and the steps that they take. 4 faces, of which 2 leave and 2 join, then 2,
# then 1: only batch sizes that have a graph of their own, so no row is padding.
WITHOUT_PADDING = {0: [(0, 6), (1, 4), (2, 4), (3, 6)], 4: [(4, 5), (5, 3)]}


def optimise(faces, joining):
    """The outcomes by face. joining: by step, faces and the steps that they take."""
    outcomes, step = {}, 0
    while faces.engine.live or step <= max(joining):
        for face, steps in joining.get(step, ()):
            faces.add(face, steps)
        for face in faces.engine.step():
            outcomes[face] = faces.engine.outcome(face)
            faces.engine.remove(face)
        step += 1
    return outcomes


def warm_up(faces):
    """Take steps at each batch size, so that the compiled modules have their final form."""
    for count in (4, 2, 1):
        optimise(faces, {0: [(face, 4) for face in range(count)]})


def tensors(outcome):
    """All tensors of an outcome by name."""
    noise = {f"noise map {level}": values for level, values in enumerate(outcome.noise)}
    return {"latent": outcome.latent, **noise, **outcome.figures}


def check_not_trivial(outcomes):
    """Comparisons of zeros hold always: each step must change the face, and faces must differ."""
    for face, outcome in outcomes.items():
        similarity = outcome.figures["similarity"]
        assert len(similarity.unique()) == len(similarity), f"face {face} does not change in each step: {similarity}"
        for name, values in tensors(outcome).items():
            assert values.isfinite().all(), f"{name} of face {face}"
            assert values.numel() == 1 or values.std() > 1e-3, f"{name} of face {face} is constant"
    latents = torch.stack([outcome.latent for outcome in outcomes.values()])
    assert len(outcomes) == 1 or (latents.std(dim=0) > 1e-3).float().mean() > 0.9, "the faces have equal latents"


def check_equal(outcomes, expected, why):
    """To the bit. why: what it means if they are not."""
    assert outcomes.keys() == expected.keys()
    for face, outcome in outcomes.items():
        others = tensors(expected[face])
        for name, values in tensors(outcome).items():
            assert torch.equal(values, others[name]), (
                f"{name} of face {face} differs by up to {(values - others[name]).abs().max():.3g}: {why}"
            )


def check_close(outcomes, expected, tolerance, why):
    """Within a tolerance of the norm of each tensor, and within it as an absolute difference of figures."""
    assert outcomes.keys() == expected.keys()
    for face, outcome in outcomes.items():
        others = tensors(expected[face])
        for name, values in tensors(outcome).items():
            error = difference(values, others[name])
            assert error < tolerance, f"{name} of face {face} differs by {error:.3g} of its norm: {why}"


def difference(values, expected):
    """The norm of the difference as a share of that of `expected`; both go to the CPU in float64."""
    values, expected = values.detach().cpu().double(), expected.detach().cpu().double()
    return float((values - expected).norm() / expected.norm())
