"""The mapper network: first latent plus a bounded residual, scripted, and stored in arrays without pickle."""

import io

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from voicestyle import torchscript
from voicestyle.bundle import Bundle, write_bundle, write_with_mapper
from voicestyle.errors import BundleError
from voicestyle.mapper import Mapper

EMBEDDING, DIM = 8, 512


def make(held=None, random=True, **options):
    """A mapper whose last layer is random, with statistics that differ between components."""
    torch.manual_seed(0)
    numbers = np.random.default_rng(0)
    mapper = Mapper(EMBEDDING, numbers.standard_normal(DIM), numbers.uniform(0.5, 2, DIM), held, **options)
    if random:
        torch.nn.init.normal_(mapper.last.weight)
        torch.nn.init.normal_(mapper.last.bias)
    return mapper.eval()


def inputs(*rows):
    source = torch.Generator().manual_seed(1)
    return torch.randn(3, EMBEDDING, generator=source), torch.randn(3, *rows, DIM, generator=source)


@pytest.mark.parametrize("rows", [(), (4,)])
def test_an_untrained_mapper_returns_the_first_latent(rows):
    voice, first = inputs(*rows)
    assert torch.equal(make(random=False)(voice, first), first)


def test_residual_is_bounded_and_the_same_for_all_rows():
    mapper = make(bound=0.7)
    voice, first = inputs(4)
    moved = (mapper(voice, first) - first) / mapper.std
    assert 0.5 < moved.abs().max() <= 0.7 + 1e-5
    torch.testing.assert_close(moved[:, 0], moved[:, 3], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mapper(voice, first)[:, 0] - first[:, 0], mapper(voice, first.mean(1)) - first.mean(1))


def test_held_directions_are_those_of_the_first_latent():
    held = np.linalg.qr(np.random.default_rng(3).standard_normal((DIM, 5)))[0].T
    mapper, (voice, first) = make(held), inputs()
    moved = mapper(voice, first) - first
    assert moved.norm(dim=1).min() > 1
    assert (moved @ mapper.held.T).abs().max() < 1e-4


def test_the_norm_of_the_embedding_and_the_batch_do_not_matter():
    mapper, (voice, first) = make(), inputs()
    latents = mapper(voice, first)
    torch.testing.assert_close(mapper(7 * voice, first), latents)
    alone = torch.cat([mapper(voice[i : i + 1], first[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(alone, latents, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(mapper(voice.flip(0), first), latents)


@pytest.mark.parametrize("rows", [(), (4,)])
def test_scripted(tmp_path, rows):
    mapper, (voice, first) = make(np.eye(DIM)[:2]), inputs(*rows)
    torchscript.save(mapper, tmp_path / "mapper.pt")
    for dtype in (torch.float32, torch.bfloat16):
        loaded = torchscript.load(tmp_path / "mapper.pt", "cpu", dtype)
        torch.testing.assert_close(loaded(voice, first), mapper(voice, first))


def test_arrays_are_small_and_give_the_mapper_back():
    mapper, (voice, first) = make(np.eye(DIM)[:2], layers=2), inputs()
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **mapper.to_arrays())
    assert 1e6 < len(stream.getvalue()) < 3e6
    stream.seek(0)
    with np.load(stream, allow_pickle=False) as stored:
        again = Mapper.from_arrays(dict(stored))
    assert not again.training
    assert again.last.weight.dtype == torch.float32
    torch.testing.assert_close(again(voice, first), mapper(voice, first), atol=0.05, rtol=0.05)
    assert torch.equal(again.held, mapper.held)
    third = Mapper.from_arrays(again.to_arrays())
    assert torch.equal(third(voice, first), again(voice, first))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": None}, "must have the arrays of Mapper.to_arrays: 'mean'"),
        ({"last.bias": None}, r"array last.bias of a mapper must have the shape \(512,\), got None"),
        ({"other": np.zeros(2)}, r"array other of a mapper must have the shape None, got \(2,\)"),
        ({"last.weight": np.zeros((DIM, 3))}, r"array last.weight .* \(512, 512\), got \(512, 3\)"),
        ({"std": np.zeros(DIM)}, "std must have no component below 0 and at least one above 0"),
        ({"last.bias": np.full(DIM, np.nan, np.float32)}, "array last.bias of a mapper must be finite"),
    ],
)
def test_other_arrays_are_rejected(change, message):
    arrays = make().to_arrays() | change
    with pytest.raises(BundleError, match=message):
        Mapper.from_arrays({name: value for name, value in arrays.items() if value is not None})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((8, np.zeros(4), np.ones(5)), r"mean \[D\], std \[D\] and held \[H, D\], got \[4\], \[5\] and \[0, 4\]"),
        ((8, np.zeros(4), np.ones(4), np.eye(3)), r"got \[4\], \[4\] and \[3, 3\]"),
        ((0, np.zeros(4), np.ones(4)), "must be at least 1 and bound above 0, got 0, 512, 2 and 3.0"),
    ],
)
def test_arguments_must_match(arguments, message):
    with pytest.raises(ValueError, match=message):
        Mapper(*arguments)


def test_inputs_of_other_shapes():
    mapper = make()
    with pytest.raises(ValueError, match=r"embedding must be \[N, 8\]"):
        mapper(torch.zeros(1, 9), torch.zeros(1, DIM))
    with pytest.raises(ValueError, match=r"first_latent must be \[N, 512\] or \[N, L, 512\]"):
        mapper(torch.zeros(1, EMBEDDING), torch.zeros(1, 9))


def test_components_that_hardly_vary_stay_where_they_are():
    std = np.ones(4)
    std[1] = 0
    mapper = Mapper(2, np.zeros(4), std)
    torch.nn.init.constant_(mapper.last.bias, 100.0)
    first = torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    latent = mapper(torch.ones(1, 2), first)
    assert latent.isfinite().all()
    assert (latent - first)[0, 1] < 0.01 < (latent - first)[0, 0]


@pytest.mark.parametrize("rows", [None, 2])
def test_a_bundle_takes_it(tmp_path, parts, rows):
    if rows:
        latents = np.repeat(parts["latents"][:, None], rows, axis=1)
        parts |= {"latents": latents, "manifest": replace(parts["manifest"], latent_rows=rows)}
    write_bundle(tmp_path / "base", **parts)
    mapper = make()
    write_with_mapper(tmp_path / "bundle", tmp_path / "base", mapper)
    bundle = Bundle.load(tmp_path / "bundle")
    voice, first = inputs(*([rows] if rows else []))
    torch.testing.assert_close(bundle.mapper(voice, first), mapper(voice, first))
