#!/usr/bin/env bash
# Run by sweep.sbatch on each node: Ray starts here. On the first node it then runs driver.sh.
set -uo pipefail
mkdir -m 700 "$RAY_TMPDIR" || exit 1

# When it stops, Ray prints the whole command line of each of its processes (VINFO).
ray symmetric-run --address "$STUDY_RAY" --min-nodes "$SLURM_JOB_NUM_NODES" --num-cpus="$SLURM_CPUS_ON_NODE" \
  --object-store-memory=1000000000 -- "$(dirname "$0")/driver.sh" 2>&1 |
  grep --line-buffered -v 'VINFO scripts.py'
code=${PIPESTATUS[0]}

case $code in
  0 | 2 | 3 | 130) rm -rf "$RAY_TMPDIR" ;; # the run ended in an orderly way, or was refused
  *) echo "Ray's logs on $(hostname): $RAY_TMPDIR/ray/session_latest/logs" >&2 ;;
esac
exit "$code"
