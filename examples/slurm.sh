#!/bin/bash
# A run in eight parts on a cluster without Ray:
#
#   parts=$(sbatch --parsable examples/slurm.sh)
#   sbatch --dependency=afterok:$parts --gpus=1 --wrap "
#       corrsteer merge runs/part-*/ --out runs/collected &&
#       corrsteer train --task mini-mmlu --collected runs/collected --out runs/all"
#
#SBATCH --array=1-8
#SBATCH --gpus=1
#SBATCH --time=04:00:00
#SBATCH --requeue
set -euo pipefail
part=${SLURM_ARRAY_TASK_ID:-1}
parts=${SLURM_ARRAY_TASK_COUNT:-8}

# --resume starts anew where nothing was done yet, so a part that is queued again loses little
corrsteer train --task "${TASK:-mini-mmlu}" ${MODEL:+--model "$MODEL"} ${SAMPLES:+--samples "$SAMPLES"} \
    --shard "$part/$parts" --out "runs/part-$part" --resume
