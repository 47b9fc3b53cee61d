#!/bin/bash
# A comparison on Slurm: PARTS tasks generate the images on a GPU each, one more times, scores and reports.
#   bash docs/examples/slurm.sh PRESET FOLDER_ON_A_SHARED_DISK [more options of ilf-bench run]
# Options of your cluster (partition, account, GPU type) go into SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_GPUS and the like, or into
# the two calls. PARTS=8 and HOURS=4 unless they are set. Call it again after a failure: what is there is not made again.
set -euo pipefail
preset=$1 out=$2
shift 2
mkdir -p "$out/logs"
command=$(printf '%q ' ilf-bench run "$preset" --out "$out" "$@")

array=$(sbatch --parsable --job-name "$preset" --array "1-${PARTS:-8}" --gpus-per-task 1 --time "${HOURS:-4}:00:00" --requeue \
    --output "$out/logs/%A-%a.txt" --wrap "$command"'--part "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"')
# afterany: a part that failed is generated here, too
sbatch --parsable --job-name "$preset-report" --dependency "afterany:$array" --gpus-per-task 1 --time "${HOURS:-4}:00:00" \
    --output "$out/logs/%j.txt" --wrap "$command"
