# All nodes share a token; without it, nobody can use this Ray.
token=$folder/ray-token-$SLURM_JOB_ID
trap 'rm -f "$token" "$driver".*' EXIT
(umask 077 && head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$token")
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$token RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300

# Ray's files: a short path, because it makes sockets there, and one name for all nodes, because it takes the head's.
RAY_TMPDIR=$(mktemp --dry-run /tmp/ray-XXXXXX)
export RAY_TMPDIR

# This script runs on the first node, which becomes Ray's head. A single node listens on loopback only.
address=127.0.0.1
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
  mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
  read -r address _ < <(getent ahostsv4 "${nodes[0]}" | awk '$1 !~ /^127\./') || address=
fi
if [ -z "$address" ]; then
  echo "error: the first node has no address that other nodes can use" >&2
  exit 1
fi
export STUDY_RAY=$address:$((20000 + SLURM_JOB_ID % 10000))
