#!/usr/bin/env bash
# The published three-stage training of RTSRN: one SR network and one student for each stage. See train.sh.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
install_requirements requirements.txt
launch=("$PYTHON")
[ "${NPROC:-1}" -gt 1 ] && launch=("$PYTHON" -m torch.distributed.run --standalone --nproc_per_node "$NPROC")
exec "${launch[@]}" main.py --arch rtsrn --test_model CRNN --batch_size 48 --STN --gradient --use_distill \
  --stu_iter 3 --vis_dir rtsrn_stages3 --mask --triple_clues --text_focus --lca "$@"
