"""Weights that come along with the program; the json beside each says how it was made and what it scores."""

RECOGNIZER = "rec_pth/crnn.safetensors"
TEXT_FOCUS = "rec_pth/focus_transformer_small.safetensors"
SUPER_RESOLUTION = "ckpt/zoo/rtsrn.safetensors"
