from __future__ import annotations

import json

import torch

from cmpc2 import getKNearestSamples


def test_nearest_samples(reference, cluster):
    vectors, meta = reference.vectors, reference.meta
    expected = json.loads((vectors / "nearest_samples.json").read_text())
    queries = torch.from_numpy(reference.normal((meta["queries"], 512), "query"))
    for i, query in enumerate(queries.split(1)):
        paths = getKNearestSamples(
            query, vectors / "frame_memory.pth.tar", vectors / "training.csv", cluster=cluster, K=meta["k"]
        )
        assert paths == expected[f"{cluster}/{i}"]
