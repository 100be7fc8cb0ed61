"""The plots of the HTML page, each as a data URL of an SVG image."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from voicestyle.evaluation.intervals import Estimate
from voicestyle.evaluation.report import Conditions, Consistency, Generation, MatchingResult, VerificationResult

_ORDER = ("U", "G", "N", "GN", "A", "GNA")
BLUE, ORANGE, GREY = "#2a6fb0", "#d9772b", "#8a8f98"


def matching_plot(results: Sequence[MatchingResult]) -> str:
    """Accuracy of 1:2 matching by group and direction, with intervals and the chance level."""
    figure, axes = _figure(7, 3.2)
    directions = list(dict.fromkeys(result.direction for result in results))
    groups = sorted({_group(result) for result in results}, key=_place)
    for number, (direction, colour) in enumerate(zip(directions, (BLUE, ORANGE), strict=False)):
        shift = 0.2 * (number - (len(directions) - 1) / 2)
        of_direction = [result for result in results if result.direction == direction]
        positions = [groups.index(_group(result)) + shift for result in of_direction]
        _points(axes, positions, [result.accuracy for result in of_direction], colour, direction)
    axes.axhline(0.5, color=GREY, linestyle="--", linewidth=1, label="chance")
    axes.set_xticks(range(len(groups)), groups)
    axes.set_xlim(-0.5, len(groups) - 0.5)
    axes.set_ylabel("accuracy")
    _legend(axes)
    return _data_url(figure)


def one_to_n_plot(results: Sequence[MatchingResult]) -> str:
    """Accuracy of 1:N matching over N."""
    figure, axes = _figure(7, 3.2)
    directions = list(dict.fromkeys(result.direction for result in results))
    for direction, colour in zip(directions, (BLUE, ORANGE), strict=False):
        of_direction = sorted(
            (each for each in results if each.direction == direction), key=lambda each: each.candidates
        )
        counts = [each.candidates for each in of_direction]
        axes.plot(counts, [each.accuracy.value for each in of_direction], color=colour, linewidth=1)
        _points(axes, counts, [each.accuracy for each in of_direction], colour, direction)
    counts = sorted({each.candidates for each in results})
    axes.plot(counts, [1 / count for count in counts], color=GREY, linestyle="--", linewidth=1, label="chance")
    axes.set_xticks(counts)
    axes.set_ylim(0, 1)
    axes.set_xlabel("candidates N")
    axes.set_ylabel("accuracy")
    _legend(axes)
    return _data_url(figure)


def roc_plot(results: Sequence[VerificationResult]) -> str:
    """The ROC curves of verification lists."""
    figure, axes = _figure(4.6, 4.2)
    for result in sorted(results, key=lambda result: _place(_group(result))):
        rates = np.linspace(0, 1, len(result.roc))
        axes.plot(rates, result.roc, label=f"{_group(result)}: AUC {result.auc.value:.3f}", linewidth=1.5)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    axes.plot([0, 1], [1, 0], color=GREY, linestyle=":", linewidth=1)  # where both error rates are equal
    axes.set_aspect("equal")
    axes.set_xlabel("false-positive rate")
    axes.set_ylabel("true-positive rate")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return _data_url(figure)


def change_plot(generation: Generation) -> str:
    """Values of each recording's faces, from kind to kind: similarity, skin luminance, brightness, side light."""
    figure = Figure(figsize=(9.6, 2.9), layout="constrained")
    kinds = list(generation.faces)
    for number, (name, title) in enumerate(
        {
            "similarity": "similarity (cosine)",
            "skin": "skin luminance",
            "brightness": "brightness of the image",
            "side_light": "light from the side",
        }.items(),
        1,
    ):
        axes = figure.add_subplot(1, 4, number)
        values = np.array([[getattr(row.faces[kind], name) for kind in kinds] for row in generation.rows])
        sexes = np.array([row.sex for row in generation.rows])
        for sex, colour in (("F", ORANGE), ("M", BLUE)):
            if (of_sex := values[sexes == sex]).size:
                axes.plot(range(len(kinds)), of_sex.T, color=colour, alpha=0.45, linewidth=1)
                axes.plot([], [], color=colour, label=sex)
        axes.plot(range(len(kinds)), values.mean(axis=0), color="black", linewidth=2.5, label="mean")
        axes.set_xticks(range(len(kinds)), kinds)
        axes.set_xlim(-0.15, len(kinds) - 0.85)
        axes.set_title(title, fontsize=10)
        if number == 1:
            axes.legend(frameon=False, fontsize=8)
    return _data_url(figure)


def conditions_plot(conditions: Conditions) -> str:
    """Sex agreement under each condition, by the sex of the speaker, with intervals and the chance level."""
    figure, axes = _figure(7, 3.2)
    names = list(conditions.figures)
    for shift, sex, colour in ((-0.1, "F", ORANGE), (0.1, "M", BLUE)):
        found = {
            i: each.sex.agreement_by_sex[sex]
            for i, each in enumerate(conditions.figures.values())
            if each.sex and sex in each.sex.agreement_by_sex
        }
        if found:
            _points(axes, [i + shift for i in found], list(found.values()), colour, sex)
    axes.axhline(0.5, color=GREY, linestyle="--", linewidth=1, label="chance")
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(0, 1.05)
    axes.set_ylabel("sex agreement")
    _legend(axes)
    return _data_url(figure)


def consistency_plot(consistency: Consistency) -> str:
    """Histograms of the cosines of faces of one and of different speakers."""
    figure, axes = _figure(7, 3.2)
    edges = np.linspace(-1, 1, len(consistency.same_counts) + 1)
    for counts, colour, label in (
        (consistency.different_counts, GREY, "different speakers"),
        (consistency.same_counts, BLUE, "one speaker"),
    ):
        shares = np.array(counts) / max(sum(counts), 1)
        axes.stairs(shares, edges, fill=True, color=colour, alpha=0.55, label=f"{label} ({sum(counts)} pairs)")
    used = np.flatnonzero(np.array(consistency.same_counts) + np.array(consistency.different_counts))
    axes.set_xlim(float(edges[used[0]]) - 0.04, float(edges[used[-1] + 1]) + 0.04)
    axes.set_xlabel("cosine of two faces by the recogniser")
    axes.set_ylabel("share of pairs")
    axes.legend(frameon=False, fontsize=9)
    return _data_url(figure)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _points(axes: Axes, positions: Sequence[float], estimates: Sequence[Estimate], colour: str, label: str) -> None:
    values = np.array([each.value for each in estimates])
    lows = np.array([each.value if each.low is None else each.low for each in estimates])
    highs = np.array([each.value if each.high is None else each.high for each in estimates])
    # A percentile interval need not contain the value.
    errors = np.clip([values - lows, highs - values], 0, None)
    axes.errorbar(positions, values, errors, fmt="o", color=colour, capsize=3, label=label)


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))


def _group(result: MatchingResult | VerificationResult) -> str:
    return f"{result.group or result.list}{'*' if result.derived else ''}"


def _place(label: str) -> tuple[bool, int, str]:
    """Where a label stands: groups of lists in their usual order, then groups selected from them, then other lists."""
    group = label.rstrip("*")
    return label.endswith("*"), _ORDER.index(group) if group in _ORDER else len(_ORDER), label


def _data_url(figure: Figure) -> str:
    stream = io.BytesIO()
    with rc_context({"svg.hashsalt": "voicestyle"}):  # the same report gives the same bytes
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(stream.getvalue()).decode()
