# Settings of every process of a Slurm job. Read by both batch files, and by hand:
#     srun --overlap --jobid=JOB --nodes=1 --ntasks=1 bash -c '. deploy/slurm/env.sh; attach RUN; outertrain scale RUN 64'
export PATH="${OUTERTRAIN_VENV:-${SLURM_SUBMIT_DIR:-$PWD}/.venv}/bin:$PATH"
export OUTERTRAIN_RUNS="${OUTERTRAIN_RUNS:-${SLURM_SUBMIT_DIR:-$PWD}/runs}" # on storage that all nodes share
export RAY_AUTH_MODE=token                     # other users of the cluster reach these ports too
export RAY_USAGE_STATS_ENABLED=0
export RAY_worker_niceness=0                   # Ray's default of 15 starves the learner
export RAY_prestart_worker_first_driver=0
export RAY_worker_register_timeout_seconds=300 # many workers may start at once on one node
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0  # a worker does not know that its node is draining

# Ray's sockets, logs and sessions: node-local, and short, because the path of a socket holds 107 bytes (many sites set a longer TMPDIR).
# Ray opens its own folder to all users, so it lies in one that is ours alone.
private_folder="${OUTERTRAIN_RAY_FOLDER:-/tmp}/ot-${SLURM_JOB_ID:-$$}"

# What every `ray start` of a job gets: free ports, because nodes may be shared, and no object store to speak of, because messages travel inline.
ray_options=(--block --temp-dir="$private_folder/r" --include-log-monitor=false --object-store-memory=104857600
             --dashboard-agent-listen-port=0 --log-color=false)

# Starts Ray on this node, in a folder that no other user can enter or has prepared.
start_node() {
    mkdir -m 700 "$private_folder" 2>/dev/null
    if [ -L "$private_folder" ] || [ ! -O "$private_folder" ] || ! chmod 700 "$private_folder"; then
        echo "$private_folder on $(hostname) belongs to another user: set OUTERTRAIN_RAY_FOLDER to another folder of each node" >&2
        return 1
    fi
    exec ray start "$@" "${ray_options[@]}"
}

# Where the token and the address of a run's Ray head lie.
state_of() { echo "$OUTERTRAIN_RUNS/.slurm/$1"; }

# Makes the following commands talk to the Ray head of a run.
attach() {
    if ! . "$(state_of "$1")/address" 2>/dev/null; then
        echo "no job has started the run '$1' (no file $(state_of "$1")/address): submit deploy/slurm/run.sbatch first" >&2
        return 2
    fi
    RAY_AUTH_TOKEN_PATH="$(state_of "$1")/token"
    export RAY_ADDRESS RAY_AUTH_TOKEN_PATH
}

# Whether a job runs, or is suspended and may run again. Yes when Slurm does not say: its controller may be restarting.
job_runs() {
    local jobs
    if jobs=$(squeue --noheader --jobs="$1" --states=RUNNING,SUSPENDED 2>&1); then
        [ -n "$jobs" ]
    else
        [[ $jobs != *"Invalid job id"* ]]
    fi
}

# Lets this job alone check who has a run, and take it: of two jobs that start together, one waits here for the other. A link
# is made at once or not at all, on shared storage too, and names its job: if that was killed in between, its link is removed.
lock_run() {
    local lock owner failed=0
    lock=$(state_of "$1")/taking
    mkdir -p "${lock%/*}" && [ -w "${lock%/*}" ] || {
        echo "${lock%/*} cannot be written: set OUTERTRAIN_RUNS to a folder on storage that all nodes share" >&2
        return 1
    }
    until ln -s "$SLURM_JOB_ID" "$lock" 2>/dev/null; do
        if ! owner=$(readlink "$lock"); then # it was removed just now, or none can be made here
            ((failed += 1))
            [ "$failed" -lt 20 ] || {
                echo "no symbolic link can be made in ${lock%/*}: set OUTERTRAIN_RUNS to a folder on storage that has them" >&2
                return 1
            }
            sleep 0.1
        elif [ "$owner" = "$SLURM_JOB_ID" ] || ! job_runs "$owner"; then
            [ "$(readlink "$lock")" != "$owner" ] || rm -f "$lock"
        else
            sleep 1
        fi
    done
}
unlock_run() { rm -f "$(state_of "$1")/taking"; }

# Seconds until the time limit of this job, nothing where it has none.
seconds_left() {
    local left
    left=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%L 2>/dev/null | tr -d ' ') # [[days-]hours:]minutes:seconds
    if [[ $left =~ ^(([0-9]+)-)?(([0-9]+):)?([0-9]+):([0-9]+)$ ]]; then
        echo $(((10#${BASH_REMATCH[2]:-0} * 24 + 10#${BASH_REMATCH[4]:-0}) * 3600 + 10#${BASH_REMATCH[5]} * 60 + 10#${BASH_REMATCH[6]}))
    elif [ -z "$left" ] && [ -n "${SLURM_JOB_END_TIME:-}" ]; then # Slurm does not answer
        echo $((SLURM_JOB_END_TIME - $(date +%s)))
    fi
}

# Runs a command until it ends or the shell gets a signal that it traps.
interruptibly() { "$@" & wait $!; }

ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"
