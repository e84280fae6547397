#!/bin/bash
# Stands in for fedreid-mpi in tests of the job scripts: says where each rank is, and obeys a STOP file as a run
# does. DELAY: seconds before it looks; STEPS: half seconds that it takes; CODE: how it ends; KILLED: by a signal.
if [[ $1 == study && $3 == --list ]]; then
    printf '%s\n' first-seed0 second-seed0
    exit
fi
rank=${OMPI_COMM_WORLD_RANK:-${SLURM_PROCID:-0}}
echo "rank $rank on $SLURMD_NODENAME, GPUs ${CUDA_VISIBLE_DEVICES:-none}, until ${SLURM_JOB_END_TIME:-ever}"
case $1 in
    train) run_dir=$4 ;;
    study) run_dir=$3/$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" <<<$'first-seed0\nsecond-seed0') ;;
    *) exit 0 ;;
esac
if [[ -n ${KILLED:-} ]]; then
    kill -KILL $$
fi
if ((rank > 0)); then
    exit 0
fi
printf '%s\0' "$@" >"$run_dir/arguments"
sleep "${DELAY:-0}"
rm -f "$run_dir/STOP"
state='done'
touch "$run_dir/begun.${SLURM_RESTART_COUNT:-0}"
for ((step = 0; step < ${STEPS:-1}; step++)); do
    [[ -e $run_dir/STOP ]] && state=interrupted && break
    sleep 0.5
done
printf '{\n "state": "%s",\n "round": 0,\n "rounds": 5,\n "attempt": 1,\n "reason": "a \\"word\\""\n}\n' "$state" >"$run_dir/status.json"
exit "${CODE:-0}"
