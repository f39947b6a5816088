#!/bin/bash
# sbatch examples/cluster/slurm.sh recipe.yaml: two machines with eight accelerators each, as in the recipe's `hardware`.
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --requeue
set -euo pipefail
recipe=${1:?which recipe?}
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun torchrun --nnodes "$SLURM_NNODES" --nproc-per-node 8 --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d \
  --rdzv-endpoint "$first:29400" --no-python tunewright run "$recipe"
