"""Parts that two or more networks share. Their key names are those of published checkpoints and must not change."""
