"""The square of FFHQ from five points, by weights fitted to generated faces."""

from voicestyle.photographs.alignment import Points, Square, ffhq_square


def five_point_square(points: Points) -> Square:
    return ffhq_square((points[0], points[1]), (points[3], points[4]))
