"""Disk -> `Batch` (`dataset.loading`). Nothing here knows of models; this file imports nothing, so tools start fast."""
