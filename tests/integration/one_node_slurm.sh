#!/usr/bin/env bash
# A SLURM of one node on this machine, for test_real_slurm.py: one_node_slurm.sh start|stop, as root, with Debian's or Ubuntu's
# packages slurm-wlm and munge. Then export SLURM_CONF=/tmp/one_node_slurm/slurm.conf. Jobs of the partition high take the place
# of those of the partition low, which have 20 seconds to end.
set -euo pipefail
FOLDER=${SLURM_FOLDER:-/tmp/one_node_slurm}
HOST=$(hostname -s)
case "$1" in
start)
  mkdir -p "$FOLDER"/{state,spool,log} /run/munge
  chown munge:munge /run/munge && chmod 755 /run/munge
  cat >"$FOLDER/slurm.conf" <<CONF
ClusterName=one
SlurmctldHost=$HOST
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation=$FOLDER/state
SlurmdSpoolDir=$FOLDER/spool
SlurmctldLogFile=$FOLDER/log/slurmctld.log
SlurmdLogFile=$FOLDER/log/slurmd.log
SlurmctldPidFile=$FOLDER/slurmctld.pid
SlurmdPidFile=$FOLDER/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
MpiDefault=none
ReturnToService=2
KillWait=10
MailProg=/bin/true
SchedulerParameters=sched_min_interval=0,batch_sched_delay=0,bf_interval=1
NodeName=$HOST CPUs=2 RealMemory=$(( $(free -m | awk '/Mem:/ {print $2}') - 500 )) State=UNKNOWN
PartitionName=low Nodes=$HOST Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=high Nodes=$HOST MaxTime=INFINITE State=UP PriorityTier=9 PreemptMode=OFF
CONF
  pgrep -x munged >/dev/null || runuser -u munge -- /usr/sbin/munged
  export SLURM_CONF=$FOLDER/slurm.conf
  slurmctld && slurmd
  for _ in $(seq 50); do
    [ "$(sinfo -h -o %T 2>/dev/null | head -1)" = idle ] && { sinfo; exit 0; }
    sleep 0.2
  done
  tail -5 "$FOLDER"/log/*.log >&2
  exit 1 ;;
stop)
  for name in slurmd slurmctld; do kill "$(cat "$FOLDER/$name.pid")" || true; done
  ;;
esac
