#!/usr/bin/env bash
# From nothing to a report: environment, rendered data set, a short RTSRN training, evaluation by PP-OCR.
# Further arguments go to the training, e.g.  bash scripts/quickstart.sh --steps 2000
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
started=$SECONDS
install_requirements requirements.txt
installed=$SECONDS

if [ ! -e data/synthetic/test/hard/data.mdb ]; then
  "$PYTHON" scripts/make_synthetic.py --out data/synthetic --pairs 1500 --test_pairs 100
fi
name="quickstart-$(date +%Y%m%d-%H%M%S)"
"$PYTHON" main.py --arch rtsrn --config quickstart.yaml --vis_dir "$name" "$@"

report="$(ls -d "ckpt/$name"/report-*/report.html)"
echo
echo "environment $((installed - started)) s, the rest $((SECONDS - installed)) s"
echo "report:      $report"
echo "go on:       $PYTHON main.py --resume ckpt/$name --steps 5000"
echo "curves:      $ENVIRONMENT/bin/tensorboard --logdir ckpt/$name/tensorboard"
if [ -t 1 ]; then (xdg-open "$report" || open "$report") >/dev/null 2>&1 || true; fi
