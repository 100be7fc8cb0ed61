"""The main figures of generated faces as lines of text, for a terminal."""

from collections.abc import Iterator

from voicestyle.evaluation.report import Generation, Sex


def summary(generation: Generation) -> Iterator[str]:
    """The lines."""
    for kind, figures in generation.faces.items():
        yield f"{kind} faces"
        yield f"  similarity  {figures.similarity}"
        if figures.sex:
            yield f"  sex agreement  {_sexes(figures.sex)}"
        if found := figures.consistency:
            yield f"  same speaker or not  AUC {found.auc}  cosine between speakers {found.between_speakers}"
            yield f"  nearest face is the same speaker's  {found.nearest}  chance {found.nearest_chance:.3f}"
        for sex, cosine in figures.between_speakers_by_sex.items():
            bank = generation.bank.between_by_sex.get(sex)
            beside = "" if bank is None else f"  bank {bank:.3f}"
            yield f"  cosine between {sex} speakers  {cosine}{beside}"
        if figures.skin:
            yield f"  skin luminance  mean change {figures.skin.mean}  absolute {figures.skin.mean_absolute}"
    if conditions := generation.conditions:
        yield f"conditions, preset {conditions.preset}"
        for name, found in conditions.figures.items():
            agreement = f"sex agreement {_sexes(found.sex)}  " if found.sex else ""
            yield f"  {name}  {agreement}similarity {found.similarity}"
    if found := generation.sensitivity:
        yield (
            f"change of similarity  background {found.background or 'not measured'}  light {found.light}  "
            f"colour {found.colour}  another speaker {found.another_speaker or 'not measured'}"
        )


def _sexes(sex: Sex) -> str:
    by_sex = "".join(f"  {name} {share}" for name, share in sex.agreement_by_sex.items())
    return f"{sex.agreement}{by_sex}"
