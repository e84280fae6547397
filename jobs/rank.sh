#!/bin/bash
# rank.sh LOG COMMAND…: what a launcher starts as each rank. The server speaks in the job's log, the others each
# in LOG.rankN.log.
log=$1
shift
rank=${OMPI_COMM_WORLD_RANK:-${PMIX_RANK:-${PMI_RANK:-${SLURM_PROCID:-0}}}}
if ((rank > 0)); then
    exec >>"$log.rank$rank.log" 2>&1
fi
exec "$@"
