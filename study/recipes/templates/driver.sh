#!/usr/bin/env bash
# The run itself. Slurm's batch script or, on several nodes, node.sh on the first node starts it.
set -uo pipefail
folder=$(dirname "$0")

read_secrets() { # Export the variables of secrets.env. A line that is something else is never shown.
  local line number=0
  while IFS= read -r line || [ -n "$line" ]; do
    number=$((number + 1)) line=${line%$'\r'}
    if [[ $line =~ ^[A-Za-z_][A-Za-z0-9_]*= && ! $line =~ =(\'.*\'|\".*\")$ ]]; then
      export "${line?}"
    elif [[ ! $line =~ ^[[:space:]]*(#.*)?$ ]]; then
      echo "error: secrets.env, line $number must be NAME=VALUE without 'export' and quotes" >&2
      return 2
    fi
  done <"$folder/secrets.env"
}

code=0
(
  # sweep.sbatch sends SIGTERM to this process before the time limit.
  echo "$BASHPID" >"$STUDY_DRIVER.pid" && read_secrets && cd @{here} && exec @{command}
) || code=$?
echo "$code" >"$STUDY_DRIVER.code" # srun's own is the highest of all nodes, and that of a lost node is not the run's
exit "$code"
