#!/usr/bin/env bash
# Run by node.sh on the first node, when Ray has started on all nodes: the run itself.
set -euo pipefail
while IFS= read -r line || [ -n "$line" ]; do
  case $line in [A-Z]*=*) export "${line?}" ;; esac
done <"$(dirname "$0")/secrets.env"
cd @{here}
code=0
(
  # sweep.sbatch sends SIGTERM to this process before the time limit.
  echo "$BASHPID" >"$STUDY_DRIVER.pid" && exec @{command}
) || code=$?
echo "$code" >"$STUDY_DRIVER.code" # srun's own is the highest of all nodes, and that of a lost node is not the run's
exit "$code"
