# shellcheck shell=bash
# What the job scripts share. They source this file, which reads env.sh, and then call `run_ranks` or a command.

jobs=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)

# In a function, so that what env.sh sources does not see the job's own arguments.
load_environment() {
    # shellcheck source=env.sh
    source "$(realpath -- "${FEDREID_ENV:-jobs/env.sh}")" || exit 2
}
load_environment
set -u

# The number of one task of an array may also be that of the whole array.
job=$SLURM_JOB_ID
if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then
    job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
fi

# By this a run knows when to stop; older SLURMs do not set it.
if [[ -z ${SLURM_JOB_END_TIME:-} ]]; then
    # With several clusters, and at sites with banners, other lines precede the time.
    end=$(squeue --noheader --format=%e --jobs="$job" | grep -E -m 1 '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]+$')
    if [[ -n $end ]]; then
        SLURM_JOB_END_TIME=$(date -d "$end" +%s)
        export SLURM_JOB_END_TIME
    fi
fi

# Since SLURM 22.05 steps no longer take this over from the job.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}

say() {
    printf '%s job %s: %s\n' "$(date +%FT%T)" "$job" "$*"
}

# counted NUMBER NOUN: e.g. "1 node", "4 ranks".
counted() {
    local plural=s
    (($1 == 1)) && plural=
    printf '%s %s%s' "$1" "$2" "$plural"
}

# launch COMMAND…: run it on all ranks of the job.
launch() {
    case ${FEDREID_LAUNCHER:-$launcher} in
        mpirun) "${mpirun[@]}" -n "$SLURM_NTASKS" "$@" ;;
        srun) "${srun[@]}" --ntasks="$SLURM_NTASKS" "$@" ;;
        *) say "launcher is '${FEDREID_LAUNCHER:-$launcher}', expected mpirun or srun" && return 2 ;;
    esac
}

# run_ranks RUN_DIR COMMAND…: run the ranks of a run. When SLURM says that time is short, have the run stop after its
# round and put the job back into the queue, where it continues from there. Ends the script: with 0 if the run is
# done, so that jobs that depend on this one start then and only then.
run_ranks() {
    run_dir=$1
    local program before logs=$run_dir/logs/$job
    # By its full path, as launchers may put a folder of their own before it on the PATH.
    program=$(type -P "$2") || { say "$2 is not on the PATH: see env.sh"; exit 2; }
    shift 2
    (umask 077 && mkdir -p -- "$run_dir/logs") || exit 2
    before=$(version_of_status)
    say "start $((${SLURM_RESTART_COUNT:-0} + 1)), $(counted "$SLURM_NTASKS" rank) on $(counted "$SLURM_JOB_NUM_NODES" node)"
    warned=no terminated=no signalled=yes
    trap 'signalled=yes warned=yes; ask_to_stop USR2' USR2
    trap 'signalled=yes terminated=yes; ask_to_stop TERM' TERM
    launch bash "$jobs/rank.sh" "$logs" "$program" "$@" &
    ranks=$!
    end_lingering "$before" &
    local code
    # A trapped signal ends `wait` early; the ranks continue.
    while [[ $signalled == yes ]]; do
        signalled=no
        wait "$ranks"
        code=$?
    done
    if ((code != 0 && code != lingered)); then
        say "the ranks ended with exit code $code"
        find "$run_dir/logs" -name "$job.rank*.log" -size +0 -exec tail -v -n 5 -- {} +
        exit "$code"
    fi
    # mpirun --with-ft also ends with 0 where signals killed every rank. So what the run says of itself counts,
    # and that only if it is not from before.
    local state=
    [[ $(version_of_status) == "$before" ]] || state=$(status state)
    case $state in
        done) exit 0 ;;
        interrupted) requeue ;;
        *) say "the ranks are gone, and none said that the run is done" ;;
    esac
    exit 1
}

# end_lingering VERSION: some versions of mpirun now and then wait forever for ranks that have ended. Once the run
# has said so itself, in another status.json than VERSION, it has FEDREID_LINGER seconds left. SLURM ends what
# remains of it, as it does whenever a job's script ends.
lingered=$((128 + 14)) # SIGALRM
end_lingering() {
    local over=0
    while sleep 1 && kill -0 "$ranks"; do
        [[ $(version_of_status) != "$1" && $(status state) =~ ^(done|interrupted)$ ]] || continue
        ((over += 1))
        if ((over > ${FEDREID_LINGER:-300})); then
            say "the run has ended, but its launcher is still waiting: ending it"
            kill -ALRM "$ranks"
        fi
    done 2>/dev/null
}

# Again and again, as a run that is still starting takes the file for that of an earlier stop, and removes it.
ask_to_stop() {
    say "signal $1: the run is asked to stop after its round"
    while kill -0 "$ranks"; do
        touch -- "$run_dir/STOP"
        sleep 2
    done 2>/dev/null &
}

# status KEY: print a value of the run's status.json, which has one key per line.
status() {
    sed -n "s/^ *\"$1\": \"\(.*\)\",\{0,1\}\$/\1/p" -- "$run_dir/status.json" 2>/dev/null
}

# Tell one version of status.json, which is replaced as a whole, from another.
version_of_status() {
    stat --format='%i %y' -- "$run_dir/status.json" 2>/dev/null
}

# Put an interrupted run back into the queue: if time was what it lacked. Whoever stopped it by hand, or
# cancelled the job, does not want it back, and a preempted job is requeued by SLURM itself.
requeue() {
    local restarts=${SLURM_RESTART_COUNT:-0} cap=${FEDREID_MAX_REQUEUES:-20}
    say "interrupted: $(status reason)"
    [[ $terminated == no ]] || return
    [[ $warned == yes || $(status reason) == "time limit"* ]] || return
    if ((restarts >= cap)); then
        say "not requeued: this was restart $restarts of at most $cap; submit it again to continue"
        return
    fi
    trap '' TERM
    # SLURM ends this script in the course of it.
    scontrol requeue "$job" && say "requeued" && exit 0
}
