"""How things are run. This file imports nothing, so `main.py --help` starts at once."""
