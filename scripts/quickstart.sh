#!/usr/bin/env bash
# From nothing to a report: environment, rendered data set, a test of the RTSRN that comes along, a short training that
# goes on from it, and the report of that.
# Further arguments go to the training, e.g.  bash scripts/quickstart.sh --steps 2000
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
started=$SECONDS
install_requirements requirements.txt
installed=$SECONDS

if [ ! -e data/synthetic/test/hard/data.mdb ]; then
  "$PYTHON" scripts/make_synthetic.py --out data/synthetic --pairs 1500 --test_pairs 100
fi
weights=ckpt/zoo/rtsrn.safetensors
name="quickstart-$(date +%Y%m%d-%H%M%S)"
"$PYTHON" main.py --go_test --resume "$weights" --config quickstart.yaml --report_dir "ckpt/$name-before"
"$PYTHON" main.py --resume "$weights" --config quickstart.yaml --vis_dir "$name" "$@"

report="$(ls -d "ckpt/$name"/report-*/report.html)"
echo
echo "environment $((installed - started)) s, the rest $((SECONDS - installed)) s"
echo "reports:     ckpt/$name-before/report.html (the weights that come along)"
echo "             $report (after the training)"
echo "go on:       $PYTHON main.py --resume ckpt/$name --steps 5000"
echo "your words:  $PYTHON main.py --demo --demo_dir DIR --resume $weights"
echo "curves:      $ENVIRONMENT/bin/tensorboard --logdir ckpt/$name/tensorboard"
if [ -t 1 ]; then (xdg-open "$report" || open "$report") >/dev/null 2>&1 || true; fi
