"""Recognizers: image in, text out. Each one prepares its own input and decodes its own output."""
