#!/usr/bin/env bash
# raysoft on Slurm: one Ray for one allocation.
#   sbatch cluster/slurm.sh tune tune_configs/rank_sparsity_latency.yaml
#   sbatch cluster/slurm.sh run soft
#   sbatch cluster/slurm.sh resume "$HOME/raysoft-outputs/soft"      after a time limit or a lost node
#
# `ray symmetric-run` starts Ray on every node, runs the command on the first one and ends with `ray stop`, which ends
# every Ray of yours on these nodes: hence --exclusive.
#SBATCH --job-name=raysoft
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --exclusive
#SBATCH --time=04:00:00
#SBATCH --output=raysoft-%j.log
set -euo pipefail

[ "$#" -gt 0 ] || { echo "usage: sbatch cluster/slurm.sh run|tune|resume ..." >&2; exit 2; }
environment="${RAYSOFT_ENVIRONMENT:-$HOME/raysoft-env}"       # a virtual environment that all nodes see
export RAYSOFT_OUTPUTS="${RAYSOFT_OUTPUTS:-$HOME/raysoft-outputs}"  # shared storage: the run outlives the allocation
export RAYSOFT_CACHE="${RAYSOFT_CACHE:-$RAYSOFT_OUTPUTS/.cache}"
# shellcheck source=/dev/null
source "$environment/bin/activate"

umask 077
mkdir -p "$RAYSOFT_OUTPUTS" "$HOME/.ray"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$HOME/.ray/slurm-$SLURM_JOB_ID"
python -c 'import secrets; print(secrets.token_hex(32), end="")' > "$RAY_AUTH_TOKEN_PATH"
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT
export RAY_USAGE_STATS_ENABLED=0 RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300

head="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
port=$((20000 + SLURM_JOB_ID % 10000))  # neighbours on other nodes of the cluster do not matter, leftovers would
gpus=()
[ -z "${SLURM_GPUS_ON_NODE:-}" ] || gpus=("--num-gpus=$SLURM_GPUS_ON_NODE")

srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 \
  ray symmetric-run --address "$head:$port" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus="$SLURM_CPUS_PER_TASK" ${gpus[@]+"${gpus[@]}"} --dashboard-host=127.0.0.1 --disable-usage-stats -- \
  env RAY_ADDRESS="$head:$port" raysoft "$@"
