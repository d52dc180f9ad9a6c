"""Questions to a device, answered at once or a step later."""

import torch

from interface.late_checks import LateChecks

CPU = torch.device("cpu")


def test_a_cpu_answers_at_once():
    heard, checks = [], LateChecks(CPU)
    checks.ask(torch.tensor(True), lambda: heard.append("wrong"))
    checks.ask(torch.tensor(False), lambda: heard.append("right"))
    assert heard == ["right"]
    checks.finish()
    assert heard == ["right"]


def test_a_late_answer_comes_with_the_end_of_the_next_step():
    heard, checks = [], LateChecks(CPU, late=True)
    for step in range(4):
        holds = torch.tensor(step not in (0, 3))
        checks.ask(holds, lambda step=step: heard.append(step))
        holds.fill_(True)  # what the device does with the number afterwards changes no answer
        checks.next_step()
        assert heard == ([] if step == 0 else [0])
    checks.finish()
    assert heard == [0, 3]
    checks.finish()
    assert heard == [0, 3]
