# Environment of every node, sourced by login shells (ray up, ray exec) or manually.
export PATH="$HOME/outertrain/venv/bin:$PATH"
export OUTERTRAIN_RUNS="${OUTERTRAIN_RUNS:-$HOME/runs}"
if [ -d "$HOME/outertrain/deploy/monitoring/targets" ]; then
    export OUTERTRAIN_TARGETS="$HOME/outertrain/deploy/monitoring/targets"
fi
export RAY_AUTH_MODE=token                       # the token is in ~/.ray/auth_token
export RAY_USAGE_STATS_ENABLED=0
export RAY_worker_niceness=0                     # with Ray's default of 15 the learner starves
export RAY_prestart_worker_first_driver=0
export RAY_worker_register_timeout_seconds=300   # many workers may start at once on one node
