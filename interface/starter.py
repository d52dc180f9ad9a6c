"""Weights that come along with the program; the json beside each says how it was made and what it scores."""

CRNN = "rec_pth/crnn.safetensors"
TEXT_FOCUS = "rec_pth/focus_transformer_small.safetensors"
RTSRN = "ckpt/zoo/rtsrn.safetensors"
