"""Weights that come along with the program; the json beside each says how it was made and what it scores."""

from pathlib import Path

RECOGNIZER = "rec_pth/crnn.safetensors"
TEXT_FOCUS = "rec_pth/focus_transformer_small.safetensors"
STROKE_FOCUS = "rec_pth/stroke_transformer_small.safetensors"
"""Offered where it is there; nothing counts on it."""
SUPER_RESOLUTION = "ckpt/zoo/rtsrn.safetensors"
ALL = (RECOGNIZER, TEXT_FOCUS, SUPER_RESOLUTION)


def way_out(missing: str | Path, own: str, flag: str, otherwise: str) -> str:
    """What to do about a missing file.

    Args:
        missing: what was asked for.
        own: the file that comes along and can stand in its place.
        flag: names it.
        otherwise: how to do without.
    """
    if Path(missing).name == Path(own).name:
        return f"it comes along with the program, so `git checkout {own}` brings it back; {otherwise}"
    return f"{flag} {own} takes the one that comes along; {otherwise}"
