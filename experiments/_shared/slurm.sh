#!/bin/bash
# Train one stage on the nodes of a SLURM job, with one process per GPU.
# Submit: sbatch --nodes 2 --ntasks-per-node 8 --gpus-per-node 8 experiments/_shared/slurm.sh ARGUMENTS
#   with the arguments of alignlab fit, such as experiments/tldr:sft --scale full
#   or --config my.yaml. Options of sbatch override the lines below.
# Continue a run that was stopped: the same line with --resume lightning_logs/version_0.
# What was tested: docs/nodes.md.
#SBATCH --job-name=alignlab
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --output=%x-%j.log
set -euo pipefail

nodes=${SLURM_JOB_NUM_NODES:?Submit this script with sbatch}
per_node=${SLURM_NTASKS_PER_NODE:?Give sbatch --ntasks-per-node, the number of GPUs of a node}
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1} # srun does not take it from sbatch

# Lightning takes ranks from SLURM, the first node as main address, and a port from the job's id.
exec srun --kill-on-bad-exit=1 \
  alignlab fit "$@" --trainer.num_nodes "$nodes" --trainer.devices "$per_node"
