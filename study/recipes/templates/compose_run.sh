#!/usr/bin/env bash
# Starts the cluster, if it does not run, and trains the run in it. Started again, it continues.
# Ctrl-C: the workers finish their epoch and save. 'docker compose down' stops the cluster, and keeps the volumes.
set -euo pipefail
cd "$(dirname "$0")"
docker compose up --detach --wait
exec docker compose exec head @{command}
