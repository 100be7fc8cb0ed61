"""Train tiny encoders in one of several processes: `python -m tests.support.train_two_ranks DATA OUTPUT`."""

import json
import sys
from pathlib import Path

import torch

from cmpc2 import CMPC, ResNetConfig
from voicestyle.training.cmpc import CmpcObjective, CmpcOptions
from voicestyle.training.distributed import process_group
from voicestyle.training.optimiser import OptimiserOptions
from voicestyle.training.trainer import LoopOptions, Trainer
from voicestyle.training.video_batches import DataOptions, Samples, VideoBatches
from voicestyle.training.videos import find_folders, read_videos

TINY = ResNetConfig(widths=(4, 8, 8, 16), depths=(1, 1, 1, 1), embedding_dim=16)


def make_trainer(folder, ranks):
    videos = read_videos(folder / "training.csv", *find_folders(folder)).videos
    options = DataOptions(batch=6, image_size=32, frames=40, workers=0)
    objective = CmpcObjective(
        len(videos),
        16,
        CmpcOptions(levels=(3, 5), warm_up_epochs=2, cluster_every=1, temperature=0.1, negatives=4),
        ranks=ranks,
    )
    loop = LoopOptions(5, optimiser=OptimiserOptions("sgd", 1e-2, 1e-3, clip=5.0))
    torch.manual_seed(0)
    model = CMPC(TINY, TINY).double()  # rounding would grow from step to step
    source = VideoBatches(Samples(videos, options), ranks)
    return Trainer(model, source, objective, loop, ranks)


def main(folder, output):
    torch.set_num_threads(1)
    losses = []
    with process_group("cpu") as ranks:
        trainer = make_trainer(folder, ranks)
        trainer.run(lambda epoch, mean: losses.append(mean))
        trainer.save(output / f"state_{ranks.rank}.pt")
    (output / f"losses_{ranks.rank}.json").write_text(json.dumps(losses))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
