#!/usr/bin/env bash
# Run on Ray's head: the run itself. Started again, it continues.
set -euo pipefail
cd /files
exec @{limit}@{command}
