# Sourced by the other scripts: finds or makes a Python environment and sets $PYTHON.
#
#   STISR_VENV=DIR   use (or create) the virtual environment DIR
#   otherwise        the active virtual environment or conda environment (not conda's base), if there is one
#   otherwise        .venv in the repository
#
# STISR_PYTHON names the interpreter that creates an environment (default python3).
# install_requirements FILE... installs once; it does nothing while the files stay the same.
set -euo pipefail
REPO="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$REPO"

if [ -n "${STISR_VENV:-}" ]; then
  ENVIRONMENT="$STISR_VENV"
elif [ -n "${VIRTUAL_ENV:-}" ]; then
  ENVIRONMENT="$VIRTUAL_ENV"
elif [ -n "${CONDA_PREFIX:-}" ] && [ "${CONDA_DEFAULT_ENV:-base}" != base ]; then
  ENVIRONMENT="$CONDA_PREFIX"
else
  ENVIRONMENT="$REPO/.venv"
fi
if [ ! -x "$ENVIRONMENT/bin/python" ]; then
  echo "creating the environment $ENVIRONMENT"
  "${STISR_PYTHON:-python3}" -m venv "$ENVIRONMENT"
fi
PYTHON="$ENVIRONMENT/bin/python"
"$PYTHON" - <<'CHECK' || exit 2
import sys
if sys.version_info < (3, 10):
    sys.exit(f"Python 3.10 or newer is needed, {sys.version.split()[0]} was found; set STISR_PYTHON to a newer one")
CHECK

install_requirements() {
  local stamp arguments=() file
  stamp="$ENVIRONMENT/.stisr-$(cat "$@" ${PIP_CONSTRAINT:+"$PIP_CONSTRAINT"} | cksum | cut -d' ' -f1)"
  [ -e "$stamp" ] && return
  for file in "$@"; do arguments+=(-r "$file"); done
  echo "installing $* into $ENVIRONMENT (several GB with PyTorch the first time)"
  "$PYTHON" -m pip install --quiet --disable-pip-version-check "${arguments[@]}"
  touch "$stamp"
}
