#!/usr/bin/env bash
# Makes an environment if there is none, installs what tests need, runs the whole test suite and the linters.
# Further arguments go to pytest, e.g.  bash scripts/run_tests.sh -k resume
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
install_requirements requirements.txt requirements-dev.txt

cores="$("$PYTHON" -c 'import os; print(max(1, min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)))')"
if [ $# -eq 0 ]; then
  "$PYTHON" -m ruff check .
  "$PYTHON" -m mypy
fi
# One thread for each test process: the suite is parallel by itself.
OMP_NUM_THREADS=1 "$PYTHON" -m pytest -n "$cores" --dist worksteal "$@"
