#!/bin/sh
set -e
(umask 077 && mkdir -p /scratch/study/logs)

study=$(sbatch --parsable \
    --export=ALL \
    --job-name=paper \
    --output=/scratch/study/logs/%A_%a.log \
    --array=0-17%4 \
    --qos=long \
    '--constraint=a100|v100' \
    --nodes=1 \
    --ntasks=10 \
    --mem=64G \
    /home/me/jobs/sweep.sbatch \
    /home/me/suite.toml \
    /scratch/study)
echo "study: job ${study%%;*}"
