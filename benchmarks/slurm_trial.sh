#!/usr/bin/env bash
# One suite by `zoo-bench run --launcher slurm` on a real SLURM of this one machine, with a run that is requeued while it works.
#
#     benchmarks/slurm_trial.sh [PYTHON]          as root, after: apt-get install slurm-wlm; pip install "landslide-zoo[slurm]"
#
# It starts munge, controller and node from a folder of its own and ends them; no other SLURM of the machine is touched.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${1:-python3}"
for program in munged slurmctld slurmd sbatch squeue; do
  command -v "$program" >/dev/null || { echo "error: $program is missing; apt-get install slurm-wlm" >&2; exit 2; }
done
[ "$(id -u)" = 0 ] || { echo "error: the daemons of SLURM need root" >&2; exit 2; }

place="$(mktemp -d /tmp/slurm-trial.XXXXXX)"
chmod 755 "$place"
mkdir "$place/munge" "$place/state" "$place/spool"
chmod 755 "$place/munge"
head -c 128 /dev/urandom >"$place/munge/key"
chmod 600 "$place/munge/key"
daemons=()
cleanup() {
  kill "${daemons[@]}" 2>/dev/null || true
  wait 2>/dev/null || true
}
trap cleanup EXIT

cat >"$place/slurm.conf" <<CONF
ClusterName=trial
SlurmctldHost=$(hostname -s)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$place/munge/socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=5
StateSaveLocation=$place/state
SlurmdSpoolDir=$place/spool
SlurmctldPidFile=$place/slurmctld.pid
SlurmdPidFile=$place/slurmd.pid
SlurmctldLogFile=$place/slurmctld.log
SlurmdLogFile=$place/slurmd.log
SlurmctldPort=26817
SlurmdPort=26818
NodeName=$(hostname -s) CPUs=$(nproc) State=UNKNOWN
PartitionName=trial Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF="$place/slurm.conf"
munged --foreground --force --key-file="$place/munge/key" --socket="$place/munge/socket" --pid-file="$place/munge/pid" \
  --log-file="$place/munge/log" --seed-file="$place/munge/seed" 2>"$place/munge/stderr" &
daemons+=($!)
for _ in $(seq 50); do [ -S "$place/munge/socket" ] && break; sleep 0.2; done
slurmctld -D 2>/dev/null &
daemons+=($!)
slurmd -D 2>/dev/null &
daemons+=($!)
for _ in $(seq 60); do sinfo --noheader --format=%t 2>/dev/null | grep -q idle && break; sleep 1; done
sinfo

cat >"$place/trial.yaml" <<YAML
extends: demo
name: trial
data: {synthesize: {scenes: 4, seed: 0, size: 256}}
budget: {max_steps: 12, validate_every: 3}
seeds: [0]
references: [all_background]
without: ["ICSSN (DEM)", "MRIFE (DEM)"]
YAML
"$python" -m benchmarks run "$place/trial.yaml" --runs "$place/runs" --launcher slurm --slurm gres=none time=30 --threads 1 --wandb off &
runner=$!
# Once a training has a checkpoint, its job is requeued, as SLURM does with what it preempts.
requeued=""
while kill -0 "$runner" 2>/dev/null && [ -z "$requeued" ]; do
  for checkpoint in "$place"/runs/trial/*/checkpoints/last.ckpt; do
    [ -f "$checkpoint" ] || continue
    key="$(basename "$(dirname "$(dirname "$checkpoint")")")"
    job="$(sed -n 's/.*"job_id": "\(.*\)".*/\1/p' "$place/runs/trial/slurm/$key.json")"
    if squeue --noheader --array --format='%i %T' | grep -qx "$job RUNNING"; then
      scontrol requeue "$job" && requeued="$key" && echo "requeued $job, the run $key" && break
    fi
  done
  sleep 0.2
done
wait "$runner"
[ -n "$requeued" ] || { echo "error: no run was at work when it was looked for" >&2; exit 1; }
grep --count "attempt of" "$place/runs/trial/$requeued/log.txt" | sed 's/^/attempts of the requeued run: /'
grep -h "continuing from" "$place/runs/trial/$requeued/log.txt"
echo "done: $(ls "$place"/runs/trial/records/*.json | wc -l) records; all of it lies in $place"
