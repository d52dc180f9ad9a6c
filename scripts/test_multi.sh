#!/usr/bin/env bash
# The published three-stage test; see test.sh.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
install_requirements requirements.txt
exec "$PYTHON" main.py --arch rtsrn --test_model CRNN --batch_size 48 --STN --gradient --use_distill \
  --stu_iter 3 --mask --triple_clues --text_focus --lca --go_test --resume "${RESUME:-ckpt/rtsrn_stages3}" "$@"
