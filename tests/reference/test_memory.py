from __future__ import annotations

import json

import numpy as np
import torch

from cmpc2 import getKNearestSamples
from cmpc2.memory import read_memory
from voicestyle.latent_bank import LatentBank
from voicestyle.prototypes import Prototypes
from voicestyle.published import InvertedLatents
from voicestyle.published.bank import make_bank


def test_nearest_samples_are_the_published_videos(reference, cluster):
    vectors, meta = reference.vectors, reference.meta
    expected = json.loads((vectors / "nearest_samples.json").read_text())
    queries = torch.from_numpy(reference.normal((meta["queries"], 512), "query"))
    for i, query in enumerate(queries.split(1)):
        paths = getKNearestSamples(
            query, vectors / "frame_memory.pth.tar", vectors / "training.csv", cluster=cluster, K=meta["k"]
        )
        assert paths == expected[f"{cluster}/{i}"]


def test_the_latent_bank_selects_the_published_videos(reference, cluster):
    vectors, meta = reference.vectors, reference.meta
    expected = json.loads((vectors / "nearest_samples.json").read_text())
    memory = read_memory(vectors / "frame_memory.pth.tar", vectors / "training.csv", cluster)
    latents = np.random.default_rng(0).standard_normal((len(memory.videos), 512)).astype(np.float32)
    bank = make_bank(memory, InvertedLatents(latents[::-1], tuple(reversed(memory.videos))))
    index, rows = Prototypes.from_centroids(bank.centroids), LatentBank(bank.latents, bank.assignments)
    for i, query in enumerate(reference.normal((meta["queries"], 512), "query")):
        prototypes = index.nearest(query, meta["k"])
        paths = expected[f"{cluster}/{i}"]
        assert rows.holds(prototypes) == bool(paths)  # this memory has empty prototypes
        if paths:
            found = rows.first_rows(prototypes, 8)
            assert [bank.videos[row] for row in found] == paths[:8]
            by_path = [latents[memory.videos.index(path)] for path in paths[:8]]
            np.testing.assert_allclose(rows.mean(found), np.mean(by_path, axis=0), rtol=1e-5, atol=1e-6)
