"""Questions to a GPU whose answers are looked at a step later, so that nobody waits for it in every step."""

from collections.abc import Callable

import torch
from torch import Tensor


class LateChecks:
    """What must hold of numbers that are computed in each step, and what happens if it does not.

    A GPU works behind the program that gives it its work. Whoever asks for a number waits until it has caught up, and
    the GPU then waits for new work. So the answers to the questions of a step are copied to the host while the next
    step is on its way, and looked at after that. A CPU answers at once.

    Args:
        device: of the numbers.
        late: whether answers are looked at later; by default on GPUs.
    """

    def __init__(self, device: torch.device, *, late: bool | None = None) -> None:
        self._gpu = device.type == "cuda"
        self._late = self._gpu if late is None else late
        self._asked: list[_Question] = []
        self._before: list[_Question] = []

    def ask(self, holds: Tensor, otherwise: Callable[[], None]) -> None:
        """Call `otherwise` if `holds`, a () bool, is False: at once, or when the answer is looked at."""
        question = _Question(holds, otherwise, late=self._late, gpu=self._gpu)
        if self._late:
            self._asked.append(question)
        else:
            question.answer()

    def next_step(self) -> None:
        """Look at the answers to what was asked before the step that ends now."""
        before, self._before, self._asked = self._before, self._asked, []
        for question in before:
            question.answer()

    def finish(self) -> None:
        """Look at all answers; to be called before anything is kept that depends on them."""
        self.next_step()
        self.next_step()


class _Question:
    def __init__(self, holds: Tensor, otherwise: Callable[[], None], *, late: bool, gpu: bool) -> None:
        self._otherwise, self._copied = otherwise, None
        self._holds = holds
        if late:
            self._holds = torch.empty((), dtype=torch.bool, pin_memory=gpu)
            self._holds.copy_(holds, non_blocking=True)
        if late and gpu:
            self._copied = torch.cuda.Event()
            self._copied.record()

    def answer(self) -> None:
        if self._copied is not None:
            self._copied.synchronize()
        if not self._holds:
            self._otherwise()
