#!/bin/bash
# A comparison on Slurm: PARTS tasks generate the images on a GPU each, one more times, scores and reports.
#   bash docs/examples/slurm.sh PRESET FOLDER_ON_A_SHARED_DISK [more options of ilf-bench run]
# Options of your cluster (partition, account, GPU type) go into SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_GPUS and the like, or into
# the two calls. PARTS=8 and HOURS=4 unless they are set. Call it again after a failure: what is there is not made again.
set -euo pipefail
preset=$1 out=$2
shift 2
mkdir -p "$out/logs"

# What a job is given on the command line reaches it as it stands, through no second shell.
cat > "$out/logs/job.sh" <<'JOB'
#!/bin/bash
part=()
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then part=(--part "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"); fi
exec ilf-bench run "$@" "${part[@]}"
JOB
submit() { # options of sbatch --, then those of the run
    local options=()
    while [ "$1" != -- ]; do options+=("$1"); shift; done
    shift
    sbatch --parsable --gpus-per-task 1 --time "${HOURS:-4}:00:00" "${options[@]}" "$out/logs/job.sh" "$@"
}

array=$(submit --job-name "$preset" --array "1-${PARTS:-8}" --requeue --output "$out/logs/%A-%a.txt" -- "$preset" --out "$out" "$@")
# afterany: a part that failed is generated here, too
submit --job-name "$preset-report" --dependency "afterany:$array" --output "$out/logs/%j.txt" -- "$preset" --out "$out" "$@"
