"""A pen alphabet, drawn for this project: letters as strokes, for machines without fonts and for hand-painted signs."""

import cv2
import numpy as np

from dataset.rendering.fonts import EM, Face

# Strokes separated by "|", "~" before a smooth one, points as two hexadecimal digits x, y; 3 is the baseline, 8 the
# x-height, b the height of capitals, 0 the descender line.
_STROKES = dict(
    line.split("=", 1)
    for line in """
A=03 3b 63|16 56;B=03 0b|~0b 4b 59 47 07|~07 47 65 43 03;C=~69 4b 2b 08 06 23 43 65;D=03 0b|~0b 3b 68 66 33 03
E=6b 0b 03 63|07 47;F=6b 0b 03|07 47;G=~69 4b 2b 08 06 23 43 64|63 67 37;H=03 0b|63 6b|07 67;I=03 0b
J=~4b 45 33 13 05;K=03 0b|5b 07 63;L=0b 03 53;M=03 0b 35 6b 63;N=03 0b 63 6b;O=~3b 1a 07 14 33 54 67 5a 3b
P=03 0b|~0b 4b 69 47 07;Q=~3b 1a 07 14 33 54 67 5a 3b|46 72;R=03 0b|~0b 4b 69 47 07|37 63
S=~5a 3b 1a 18 37 56 54 33 04;T=0b 6b|3b 33;U=~0b 05 23 43 65 6b;V=0b 33 6b;W=0b 23 49 63 8b;X=0b 63|6b 03
Y=0b 37 6b|37 33;Z=0b 6b 03 63;a=~48 28 07 04 23 45|48 43;b=0b 03|~06 28 47 44 23 04;c=~47 28 07 04 23 44
d=4b 43|~46 28 07 04 23 44;e=~06 46 47 28 07 04 23 44;f=~4a 3b 29 23|08 38;g=48 42|~42 20 01|~47 28 07 04 23 45
h=0b 03|~06 28 47 43;i=08 03|0a 0b;j=28 21|~21 10 00|2a 2b;k=0b 03|38 05 43;l=0b 03
m=08 03|~06 28 36 33|~36 58 66 63;n=08 03|~06 28 47 43;o=~28 07 04 23 44 47 28;p=08 00|~06 28 47 44 23 04
q=48 40|~46 28 07 04 23 44;r=08 03|~06 18 38;s=~37 28 07 16 35 44 23 03;t=~1a 14 23 34|08 38;u=~08 04 23 45|48 43
v=08 23 48;w=08 13 37 53 68;x=08 43|48 03;y=08 23|48 00;z=08 48 03 43;0=~2b 09 05 23 45 49 2b;1=09 2b 23
2=~0a 2b 49 36 03|03 53;3=~0a 2b 49 27|~27 45 23 04;4=33 3b 05 55;5=4b 0b 07|~07 38 46 44 23 04
6=~3b 07 04 23 45 37 06;7=0b 4b 13;8=~2b 09 27 44 23 04 27 49 2b;9=~48 17 09 2b 49 45 13;.=03 04;,=13 02
:=04 03|07 08;!=0b 06|03 04;-=07 37;'=0b 09;/=02 3b;&=~62 19 2b 39 05 14 33 66;$=~5a 3b 1a 18 37 56 54 33 04|3c 32
""".strip()
    .replace("\n", ";")
    .split(";")
)


def _path(stroke: str) -> np.ndarray:
    """Points of one stroke of `_STROKES`, (n, 2) float64, x to the right and y up from the baseline, in EM / 11."""
    points = np.array([[int(point[0], 16), int(point[1], 16) - 3] for point in stroke.lstrip("~").split()], float)
    if stroke[0] != "~":
        steps = np.linspace(0, len(points) - 1, 48 * (len(points) - 1) + 1)
        return np.stack([np.interp(steps, np.arange(len(points)), axis) for axis in points.T], axis=1)
    # Catmull-Rom: through every point, without corners
    ends = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    t = np.linspace(0, 1, 48, endpoint=False)[:, None]
    pieces = []
    for p0, p1, p2, p3 in zip(ends, ends[1:], ends[2:], ends[3:], strict=False):
        pieces.append(p1 + 0.5 * t * (p2 - p0 + t * (2 * p0 - 5 * p1 + 4 * p2 - p3 + t * (3 * (p1 - p2) + p3 - p0))))
    return np.concatenate([*pieces, points[-1:]])


def draw_with_pen(face: Face, char: str, x: int, y: int) -> tuple[np.ndarray, float]:
    """A letter of the pen alphabet: plane (3 EM, 3 EM) uint8 with the pen starting at (x, y), and its advance."""
    fine, unit, kind = 4, EM / 11, face.source.removeprefix("pen:")
    plane = np.zeros((3 * EM * fine, 3 * EM * fine), np.uint8)
    width = 0.0
    for stroke in filter(None, _STROKES.get(char, "").split("|")):
        path = _path(stroke)
        width = max(width, float(path[:, 0].max()))
        pressure = np.ones(len(path))
        if kind == "brush":  # set down firmly, lifted towards the end
            pressure = 1.25 - 0.8 * np.linspace(0, 1, len(path)) ** 2
        for (px, py), force in zip(path, pressure, strict=True):
            centre = (round(fine * (x + unit * px)), round(fine * (y - unit * py)))
            radius = max(1, round(fine * face.weight * force * (0.8 if kind == "nib" else 0.5)))
            axes = (radius, max(1, round(radius * (0.3 if kind == "nib" else 1.0))))
            cv2.ellipse(plane, centre, axes, -40.0 if kind == "nib" else 0.0, 0, 360, 255, -1)
    shrunk = cv2.resize(plane, None, fx=1 / fine, fy=1 / fine, interpolation=cv2.INTER_AREA)
    return shrunk, unit * (width + 2) + 0.4 * face.weight
