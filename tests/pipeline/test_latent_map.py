"""Maps from voice embeddings to first latents."""

import zipfile

import numpy as np
import pytest
from msgspec.structs import replace

from tests.support.optional_parts import optional_parts, tiny_map
from voicestyle.bundle import Bundle, write_bundle
from voicestyle.errors import BundleError
from voicestyle.latent_map import LatentMap
from voicestyle.options import Options
from voicestyle.pipeline import Pipeline
from voicestyle.prototypes import Prototypes

WEIGHT, BIAS = np.ones((2, 3, 4), np.float32), np.ones((2, 3), np.float32)
GROUPS = np.array([0, 1, 1, 0], np.int32)


@pytest.mark.parametrize(
    ("prototypes", "cosines", "group"),
    [
        ([0, 1, 2], [0.5, 0.3, 0.3], 1),
        ([0, 1, 2], [0.7, 0.3, 0.3], 0),
        ([2, 0, 1], [0.1, 0.3, 0.1], 0),  # cosines belong to the prototypes in their order
        ([0], [-0.4], 0),
        ([1, 2], [-0.4, -0.5], 1),  # group 0 has no prototype here, so its sum is not 0
        ([0, 1], [0.4, 0.4], 0),
    ],
)
def test_the_group_has_the_largest_sum_of_cosines(prototypes, cosines, group):
    assert LatentMap(WEIGHT, BIAS, GROUPS).group(prototypes, np.array(cosines, np.float32)) == group


@pytest.mark.parametrize("rows", [(), (2,)])
def test_the_latent_is_the_groups_affine_map_of_the_unit_embedding(rows):
    latent_map = tiny_map(*rows)
    embedding = np.random.default_rng(1).standard_normal(8).astype(np.float32)
    unit = embedding / np.sqrt((embedding**2).sum())
    expected = np.zeros((*rows, 512))
    for index in np.ndindex(expected.shape):
        at = (1, *index)
        expected[index] = sum(latent_map.weight[at][e] * unit[e] for e in range(8)) + latent_map.bias[at]
    for scale in (1, 70):
        latent = latent_map(scale * embedding, [2], np.ones(1, np.float32))
        assert latent.dtype == np.float32
        np.testing.assert_allclose(latent, expected, rtol=0, atol=1e-5)


def test_a_file_holds_the_map(tmp_path):
    for name in ("one.npz", "two.npz"):
        tiny_map().write(tmp_path / name)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    read = LatentMap.read(tmp_path / "one.npz")
    for name in ("weight", "bias", "groups"):
        np.testing.assert_array_equal(getattr(read, name), getattr(tiny_map(), name))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"weight": WEIGHT.astype(np.float64)},
            r"weight .* must be float32 with 3 or 4 axes .*got float64 \[2, 3, 4\]",
        ),
        ({"bias": BIAS[0]}, r"bias .* must be float32 with 2 or 3 axes .*got float32 \[3\]"),
        ({"groups": GROUPS.astype(np.int64)}, r"groups .* must be int32 with 1 axes .*got int64 \[4\]"),
        ({"groups": GROUPS[:0]}, r"not empty, got int32 \[0\]"),
        ({"bias": np.ones((1, 3), np.float32)}, r"bias and one more axis, got \[2, 3, 4\] and \[1, 3\]"),
        ({"weight": WEIGHT * np.float32(np.nan)}, "must be finite, got NaN or infinity"),
        ({"groups": GROUPS + np.int32(1)}, "must be in 0 … 1, got 1 … 2"),
        ({"groups": GROUPS - np.int32(1)}, "must be in 0 … 1, got -1 … 0"),
    ],
)
def test_other_arrays_are_one_clear_error(change, message):
    with pytest.raises(BundleError, match=message):
        LatentMap(**{"weight": WEIGHT, "bias": BIAS, "groups": GROUPS} | change)


def test_other_files_are_one_clear_error(tmp_path):
    path = tmp_path / "latent_map.npz"
    np.savez(path, weight=WEIGHT, bias=BIAS)
    with pytest.raises(
        BundleError, match=r"latent_map.npz must have the arrays weight, bias, groups, got bias, weight"
    ):
        LatentMap.read(path)
    with path.open("wb") as file:
        np.save(file, WEIGHT)
    with pytest.raises(BundleError, match="of plain arrays: a single array"):
        LatentMap.read(path)
    with path.open("wb") as file:
        np.savez(file, weight=WEIGHT, bias=BIAS, groups=np.array([{}], object))
    with pytest.raises(BundleError, match="Object arrays cannot be loaded"):
        LatentMap.read(path)
    with path.open("wb") as file:
        np.savez(file, weight=WEIGHT, bias=BIAS, groups=GROUPS + np.int32(9))
    with pytest.raises(BundleError, match=r"latent_map.npz: groups of the latent map must be in 0 … 1, got 9 … 10"):
        LatentMap.read(path)
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("weight", "bias", "groups"):
            archive.writestr(name, b"no array")
    with pytest.raises(BundleError, match=r"latent_map.npz must be a .npz file of plain arrays: "):
        LatentMap.read(path)


def test_cosines_are_those_of_the_prototypes_in_order():
    centroids = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32) * 9
    voice = np.random.default_rng(1).standard_normal(8).astype(np.float32) * 40
    expected = [row @ voice / np.linalg.norm(row) / np.linalg.norm(voice) for row in centroids[[4, 0, 2]]]
    cosines = Prototypes.from_centroids(centroids).cosines(voice, [4, 0, 2])
    assert cosines.dtype == np.float32
    np.testing.assert_allclose(cosines, expected, rtol=0, atol=1e-6)


def test_the_pipeline_takes_the_first_latent_from_the_map(tmp_path, samples):
    parts = optional_parts()
    write_bundle(tmp_path / "bundle", **parts)
    bundle = Bundle.load(tmp_path / "bundle")
    pipeline = Pipeline(bundle, capacity=1)
    for sample in ("slt", "rms", "awb"):
        prepared = pipeline.prepare(samples / f"{sample}.wav", Options())
        voice = prepared.voice.embedding.numpy()
        unit = parts["centroids"] / np.linalg.norm(parts["centroids"], axis=1, keepdims=True)
        sums = [0.0, 0.0]
        for prototype in np.argsort(-(unit @ voice))[:3]:
            sums[parts["latent_map"].groups[prototype]] += float(unit[prototype] @ voice)
        group = int(np.argmax([total or -np.inf for total in sums]))
        weight, bias = parts["latent_map"].weight[group], parts["latent_map"].bias[group]
        expected = weight @ (voice / np.linalg.norm(voice)) + bias
        np.testing.assert_allclose(prepared.first_latent.numpy(), expected, rtol=0, atol=1e-4)
        assert len(prepared.prototypes) == 3


def test_a_map_must_fit_its_bundle(tmp_path):
    parts = optional_parts()
    latent_map = parts["latent_map"]
    cases = (
        (
            tiny_map(2),
            r"shape of a group's weight in latent_map.npz must be \(512, 8\) as in bundle.json, got \(2, 512, 8\)",
        ),
        (
            LatentMap(latent_map.weight[:, :, :6], latent_map.bias, latent_map.groups),
            r"must be \(512, 8\) .*got \(512, 6\)",
        ),
        (
            LatentMap(latent_map.weight, latent_map.bias, latent_map.groups[:4]),
            "prototypes of latent_map.npz must be 5 as in bundle.json, got 4",
        ),
    )
    for given, message in cases:
        with pytest.raises(BundleError, match=message):
            write_bundle(tmp_path / "bundle", **parts | {"latent_map": given})
    assert list(tmp_path.iterdir()) == []


def test_a_map_to_w_plus(tmp_path, samples):
    parts = optional_parts()
    latents = np.repeat(parts["latents"][:, None], 2, axis=1)
    changed = {"latent_map": tiny_map(2), "latents": latents, "manifest": replace(parts["manifest"], latent_rows=2)}
    write_bundle(tmp_path / "bundle", **parts | changed)
    prepared = Pipeline.load(tmp_path / "bundle", capacity=1).prepare(samples / "slt.wav", Options())
    assert prepared.first_latent.shape == (2, 512)
