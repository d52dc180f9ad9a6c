"""What networks have in common that leave out parts of their published form which its forward never uses."""

from typing import Any

import torch


class PublishedForm:
    """For networks whose `published_unused=True` makes them hold those parts, too.

    Attributes:
        options: keywords with which the network was built.
    """

    options: dict[str, Any]

    def published_shapes(self) -> dict[str, torch.Size]:
        """State keys of a published checkpoint with these options and their shapes; ours are among them.

        A strict reader checks a file against this table and loads the keys that this network has.
        """
        with torch.device("meta"):
            published = type(self)(**self.options, published_unused=True)  # type: ignore[call-arg]
        shapes: dict[str, torch.Size] = {key: value.shape for key, value in published.state_dict().items()}  # type: ignore[attr-defined]
        return shapes
