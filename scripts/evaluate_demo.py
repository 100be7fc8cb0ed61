"""Evaluate the demo bundle on the speakers that were held out of its training.

    python scripts/evaluate_demo.py --voices FOLDER [--bundle FOLDER] [--output FOLDER] [--figure FILE]

Needs Node.js with npm for the judge (scripts/face_judge), whose packages (330 MB) are installed into --judge.
"""

from pathlib import Path

import click
from tqdm import tqdm

from voicestyle.demo_bundle import ASSETS
from voicestyle.errors import BundleError
from voicestyle.evaluation.agreement import Agreement
from voicestyle.evaluation.demo import DemoEvaluation
from voicestyle.evaluation.judge import JudgeError, install_judge

FOLDER = click.Path(path_type=Path, file_okay=False)
JUDGE = Path(__file__).parent / "face_judge"


@click.command(context_settings={"show_default": True})
@click.option("--bundle", type=FOLDER, default=Path("bundles/demo"), help="Demo bundle to evaluate.")
@click.option(
    "--voices",
    type=FOLDER,
    required=True,
    help="Folder that was passed to train_demo.py; its held-out recordings are used.",
)
@click.option("--judge", type=FOLDER, default=Path(".cache/face_judge"), help="Folder to install the judge into.")
@click.option("--assets", type=FOLDER, default=ASSETS, help="Folder of encoders.json, which lists held-out speakers.")
@click.option("--output", type=FOLDER, default=Path(".cache/evaluation"), help="Folder for PNGs and report.json.")
@click.option("--figure", type=click.Path(path_type=Path), help="JPEG to write with eight first and last faces.")
@click.option("--steps", type=int, help="Optimisation steps.  [default: the bundle's]")
@click.option("--seed", type=int, default=0, help="Random seed of every face.")
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
    """Generate and judge the faces of the held-out speakers: sex agreement, skin luminance, diversity."""
    evaluation = DemoEvaluation(bundle, assets, voices, judge, output, figure, steps, seed)
    try:
        install_judge(JUDGE, judge)
        report = evaluation.run(lambda steps: tqdm(steps, desc="generating faces"))
    except (FileNotFoundError, JudgeError, BundleError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(str(Agreement(report["confusion"])))
    for name, value in report.items():
        if name not in ("rows", "confusion", "agreement"):
            click.echo(f"{name}: {value}")
    click.echo(f"full report: {output / 'report.json'}")


if __name__ == "__main__":
    main()
