#!/usr/bin/env bash
# The published single-stage training of RTSRN. Further arguments are added, e.g.
#   bash scripts/train.sh --train_data_dir DIR DIR --test_data_dir DIR DIR DIR --vis_dir NAME
# It needs rec_pth/crnn.pth and rec_pth/pretrain_transformer.pth (rec_pth/README.md). NPROC=4 uses four GPUs.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
install_requirements requirements.txt
launch=("$PYTHON")
[ "${NPROC:-1}" -gt 1 ] && launch=("$PYTHON" -m torch.distributed.run --standalone --nproc_per_node "$NPROC")
exec "${launch[@]}" main.py --arch rtsrn --test_model CRNN --batch_size 48 --STN --sr_share --gradient --use_distill \
  --stu_iter 1 --vis_dir rtsrn --mask --triple_clues --text_focus --lca "$@"
