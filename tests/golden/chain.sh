#!/bin/sh
set -e
(umask 077 && mkdir -p '/scratch/me/it'"'"'s a run/100%/logs')

prepare=$(FEDREID_ENV=/home/me/jobs/env.sh \
    FEDREID_LAUNCHER=srun \
    sbatch --parsable \
    --export=ALL \
    --job-name=FedPav-prepare \
    '--output=/scratch/me/it'"'"'s a run/100%%/logs/prepare-%j.log' \
    --partition=gpu \
    --account=proj42 \
    --mail-type=END \
    /home/me/jobs/prepare.sbatch \
    --all \
    '/data/re id' \
    /scratch/archives)
echo "prepare: job ${prepare%%;*}"

train=$(FEDREID_ENV=/home/me/jobs/env.sh \
    FEDREID_LAUNCHER=srun \
    sbatch --parsable \
    --dependency=afterok:"${prepare%%;*}" --kill-on-invalid-dep=yes \
    --export=ALL \
    '--job-name=FedPav, it'"'"'s on' \
    '--output=/scratch/me/it'"'"'s a run/100%%/logs/train-%j.log' \
    --partition=gpu \
    --account=proj42 \
    --nodes=3 \
    --ntasks=10 \
    --ntasks-per-node=4 \
    --cpus-per-task=4 \
    --gpus-per-node=4 \
    --time=12:00:00 \
    --mail-type=END \
    /home/me/jobs/train.sbatch \
    /home/me/paper.toml \
    '/scratch/me/it'"'"'s a run/100%' \
    --set \
    'run.name='"'"'two words'"'"'')
echo "train: job ${train%%;*}"
