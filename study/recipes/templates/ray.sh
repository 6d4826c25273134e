# All nodes share a token; without it, nobody can use this Ray.
token=$folder/ray-token-$SLURM_JOB_ID
trap 'rm -f "$token" "$driver".*' EXIT
(umask 077 && head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$token")
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$token RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300

# Ray's files: a short path, because it makes sockets there, and one name for all nodes, because it takes the head's.
RAY_TMPDIR=$(mktemp --dry-run /tmp/ray-XXXXXX)
export RAY_TMPDIR

# This script runs on the first node, which becomes Ray's head. A single node listens on loopback only. Several use the
# address from which the first one reaches the second: its own name may stand for 127.0.1.1, as on Debian.
address=127.0.0.1
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
  mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
  # Connecting a datagram socket only chooses the address: nothing is sent.
  probe='import socket, sys; s = socket.socket(type=socket.SOCK_DGRAM); s.connect((sys.argv[1], 9)); print(*s.getsockname()[:1])'
  address=$(python -I -c "$probe" "${nodes[1]}" 2>/dev/null) || address=
fi
if [[ -z $address ]]; then
  echo "error: the first node cannot find an IPv4 address of the second by its name, ${nodes[1]}" >&2
  exit 1
fi
export STUDY_RAY=$address:$((20000 + SLURM_JOB_ID % 10000))
