"""Judge the demo bundle's faces for the speakers that were held out of its training.

    python scripts/evaluate_demo.py --bundle DIR --voices FOLDER --judge FOLDER [--output FOLDER] [--figure FILE]

The judge's folder holds judge.cjs and its package.json, after `npm install`.
"""

from pathlib import Path

import click
from tqdm import tqdm

from voicestyle.demo_bundle import ASSETS
from voicestyle.errors import BundleError
from voicestyle.evaluation.agreement import Agreement
from voicestyle.evaluation.demo import DemoEvaluation
from voicestyle.evaluation.judge import JudgeError

FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command(context_settings={"show_default": True})
@click.option("--bundle", type=FOLDER, required=True, help="A demo bundle.")
@click.option("--voices", type=FOLDER, required=True, help="The folder that the bundle was trained on.")
@click.option("--judge", type=FOLDER, required=True, help="The installed face judge.")
@click.option("--assets", type=FOLDER, default=ASSETS, help="Where encoders.json names the held-out speakers.")
@click.option("--output", type=FOLDER, default=Path(".cache/evaluation"), help="PNGs and report.json.")
@click.option("--figure", type=click.Path(path_type=Path), help="A JPEG of eight first and last faces.")
@click.option("--steps", type=int, help="Optimisation steps; the bundle's default without it.")
@click.option("--seed", type=int, default=0, help="Seed of every face.")
def main(
    bundle: Path,
    voices: Path,
    judge: Path,
    assets: Path,
    output: Path,
    figure: Path | None,
    steps: int | None,
    seed: int,
) -> None:
    """Faces of the held-out speakers: agreement in sex, skin luminance, spread."""
    evaluation = DemoEvaluation(bundle, assets, voices, judge, output, figure, steps, seed)
    try:
        report = evaluation.run(lambda steps: tqdm(steps, desc="generating faces"))
    except (FileNotFoundError, JudgeError, BundleError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(str(Agreement(report["confusion"])))
    for name, value in report.items():
        if name not in ("rows", "confusion", "agreement"):
            click.echo(f"{name}: {value}")
    click.echo(f"all of it: {output / 'report.json'}")


if __name__ == "__main__":
    main()
