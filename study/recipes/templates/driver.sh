#!/usr/bin/env bash
# Run by node.sh on the first node, when Ray has started on all nodes: the run itself.
set -euo pipefail
while IFS= read -r line || [ -n "$line" ]; do
  case $line in [A-Z]*=*) export "${line?}" ;; esac
done <"$(dirname "$0")/secrets.env"
cd @{here}
echo $$ >"$STUDY_DRIVER" # sweep.sbatch sends it SIGTERM before the time limit
exec @{command}
