#!/usr/bin/env bash
# The published single-stage test; RESUME names the run (a folder of this program or a published one), e.g.
#   RESUME=ckpt/rtsrn bash scripts/test.sh --test_data_dir DIR DIR DIR --test_model CRNN,PPOCR
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
install_requirements requirements.txt
exec "$PYTHON" main.py --arch rtsrn --test_model CRNN --batch_size 48 --STN --sr_share --gradient --use_distill \
  --stu_iter 1 --mask --triple_clues --text_focus --lca --go_test --resume "${RESUME:-ckpt/rtsrn}" "$@"
