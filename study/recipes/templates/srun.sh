# A node that ends early ends no other one, whatever the cluster's WaitTime and KillOnBadExit are. Each node's task may
# use all of its CPUs.
unset SLURM_CPUS_PER_TASK SLURM_TRES_PER_TASK
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 \
  --cpu-bind=none --no-kill --wait=0 --kill-on-bad-exit=0 "$folder/node.sh" &
