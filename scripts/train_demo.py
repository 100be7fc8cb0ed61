"""Train the demo bundle and write its files in voicestyle/assets/demo, all but those of the generator's head.

    python scripts/train_demo.py --voices FOLDER [--wheel FILE] [--work FOLDER] [--assets FOLDER]

First the encoders, the latent bank and the map of first latents, then the mapper, through the bundle that these make.
Needs the `train` and `photos` extras and npm. FOLDER contains speakers.csv (file,speaker,sex) and one recording per
speaker. An interrupted run resumes when it is started again with the same work folder.
"""

import logging
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from voicestyle import demo_bundle
from voicestyle.bundle import Bundle
from voicestyle.face_networks.npm_package import DEFAULT_CACHE
from voicestyle.generators import DEFAULT_HEAD
from voicestyle.precision import AUTO, choose_dtype
from voicestyle.training.demo import DemoTraining
from voicestyle.training.errors import TrainingDataError
from voicestyle.training.faces import CAPACITY
from voicestyle.training.mapper_options import MapperOptions
from voicestyle.training.mapper_training import train_mapper
from voicestyle.training.options import TUNE, FaceOptions, TrainOptions
from voicestyle.training.voices import read_speakers
from voicestyle.voice_networks import fetch_ge2e_wheel

WHEELS = Path(".cache/wheels")
MAPPER_STEPS = 700
MAPPER_PRIOR = 0.3  # one pass may move further than the optimisation, whose steps drift
PATH = click.Path(path_type=Path)


def progress(title: str) -> Callable[[range], Iterable[int]]:
    return lambda steps: tqdm(steps, desc=title, mininterval=1.0)


@click.command(context_settings={"show_default": True})
@click.option("--voices", type=PATH, required=True, help="Folder with speakers.csv.")
@click.option("--wheel", type=PATH, help="Wheel of the generator; downloaded by default.")
@click.option("--networks", type=PATH, default=DEFAULT_CACHE, help="Folder of dlib's ResNet, which npm downloads.")
@click.option("--work", type=PATH, default=Path(".cache/train_demo"), help="Folder for faces, checkpoint and log.")
@click.option("--assets", type=PATH, default=demo_bundle.ASSETS, help="Folder to write the weights to.")
@click.option("--faces", type=click.IntRange(1, CAPACITY), default=FaceOptions().draws, help="Faces to draw.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Seed of the weights, the pairing and the batches.")
def main(
    voices: Path,
    wheel: Path | None,
    networks: Path,
    work: Path,
    assets: Path,
    faces: int,
    seed: int,
) -> None:
    """Train the demo encoders on a folder of voices and on generated faces."""
    try:
        read_speakers(voices)  # check before anything is downloaded or drawn
    except TrainingDataError as error:
        raise click.ClickException(str(error)) from error
    work.mkdir(parents=True, exist_ok=True)
    handlers = [logging.StreamHandler(), logging.FileHandler(work / "train.log")]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", handlers=handlers)
    try:
        training = DemoTraining(
            voices=voices,
            work=work,
            wheel=wheel or demo_bundle.fetch_wheel(WHEELS),
            wheels=WHEELS,
            networks=networks,
            assets=assets,
            face_options=replace(FaceOptions(), draws=faces),
            head_options=replace(TrainOptions(), seed=seed),
            tune_options=replace(TUNE, seed=seed),
        )
        (assets / demo_bundle.MAPPER).unlink(missing_ok=True)  # it belongs to the encoders that are replaced
        with logging_redirect_tqdm():
            trained = training.run(progress, logging.info)
            if not (assets / DEFAULT_HEAD.name).is_file():
                shutil.copyfile(DEFAULT_HEAD, assets / DEFAULT_HEAD.name)  # the faces were drawn with it
            ge2e_wheel = fetch_ge2e_wheel(WHEELS)
            demo_bundle.build_demo_bundle(work / "bundle", training.wheel, ge2e_wheel, assets)
            dtype = choose_dtype(AUTO, "cpu")
            mapper = train_mapper(
                Bundle.load(work / "bundle", dtype=dtype),
                trained.voices,
                MapperOptions(seed=seed, steps=MAPPER_STEPS, minutes=None, prior_weight=MAPPER_PRIOR, virtual=0),
                checkpoint=work / "mapper.pt",
                report=lambda validation: logging.info("mapper: %s", validation),
            )
            np.savez_compressed(assets / demo_bundle.MAPPER, allow_pickle=False, **mapper.to_arrays())
    except (ValueError, OSError, ImportError) as error:
        raise click.ClickException(str(error)) from error
    for name, value in trained.measured.items():
        click.echo(f"{name}: {value}")


if __name__ == "__main__":
    main()
