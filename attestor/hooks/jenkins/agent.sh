#!/bin/sh
# A Jenkins agent that connects only while this worker proves itself, and is ended with its permit.
# Installed by `attestor hook install jenkins`, and one of the measured tools: a change denies this worker.
#
# From the unit: JENKINS_URL, JENKINS_AGENT_NAME, JENKINS_SECRET_FILE, JENKINS_AGENT_JAR, JENKINS_WORK_DIR, and JENKINS_JAVA.
agent_path=${PATH:-}
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH
set -eu
: "${JENKINS_URL:?is the address of the controller}"
: "${JENKINS_AGENT_NAME:?is the name of this agent}"
: "${JENKINS_SECRET_FILE:?is a file with the secret of this agent}"
: "${JENKINS_AGENT_JAR:?is the agent.jar of the controller}"
work=${JENKINS_WORK_DIR:-@ROOT@/var/lib/jenkins-agent}

# The session of the agent is the job: one start of the unit, one permit.
ASSAY_JOB_ID="jenkins-agent/$JENKINS_AGENT_NAME"
ASSAY_JOB_RUN_ID=${INVOCATION_ID:-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')}
export ASSAY_JOB_ID ASSAY_JOB_RUN_ID
PATH=$agent_path
exec "@ATTESTOR@" exec --job generic --socket "@SOCKET@" --refused-code 3 -- \
    "${JENKINS_JAVA:-/usr/bin/java}" -jar "$JENKINS_AGENT_JAR" \
    -url "$JENKINS_URL" -name "$JENKINS_AGENT_NAME" -secret "@$JENKINS_SECRET_FILE" -workDir "$work"
