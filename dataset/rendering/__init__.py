"""The parts of `dataset.synthetic`, from the font to the camera; this file imports nothing."""
