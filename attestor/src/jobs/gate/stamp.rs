//! Time stamps over what jobs sign: passed on to the verifier, to which a job has no trusted way of its own.
//!
//! What comes back proves itself to whoever verifies: nothing here has to be believed, and nothing is looked at but its
//! size.

use std::time::Duration;

use proto::pb;
use results::timestamp::{MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES};
use tokio::time::timeout;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use workload::{ERROR_DOMAIN, Observation};

use super::{Gate, LineError, Refusal};

/// Time stamps asked for at once, of all jobs together: the verifier counts what comes from one address, and attestations
/// and permits of this worker must find their place.
pub(super) const AT_ONCE: usize = 2;
/// Longest wait for one, the others' turns included.
const WITHIN: Duration = Duration::from_secs(30);

impl Gate {
    /// Asks the verifier for a time stamp, for a process of a job that runs or for a user who may start one.
    pub(super) async fn stamp(
        &self,
        request: pb::TimestampRequest,
        caller: &Observation,
    ) -> Result<pb::TimestampReply, StampRefused> {
        if !self.may_stamp(caller) {
            let why = format!(
                "user {} is not listed under jobs.users, and the caller is no process of a job that runs",
                caller.uid
            );
            return Err(refused(Code::PermissionDenied, "GATE_USER_NOT_ALLOWED", why));
        }
        if request.request.len() > MAX_REQUEST_BYTES {
            let why = format!("a request for a time stamp has at most {MAX_REQUEST_BYTES} bytes");
            return Err(refused(Code::InvalidArgument, "EVIDENCE_LIMIT_EXCEEDED", why));
        }
        let late = |_| {
            let why = format!("no time stamp within {} s", WITHIN.as_secs());
            refused(Code::Unavailable, "GATE_LATE", why)
        };
        timeout(WITHIN, self.pass_on(request)).await.map_err(late)?
    }

    fn may_stamp(&self, caller: &Observation) -> bool {
        caller.uid == 0
            || self.settings.users.contains(&caller.uid)
            || self.jobs().values().any(|job| job.deferred.is_none() && job.processes.have(caller))
    }

    async fn pass_on(
        &self,
        request: pb::TimestampRequest,
    ) -> Result<pb::TimestampReply, StampRefused> {
        let stopping = |_| refused(Code::Unavailable, "GATE_STOPPING", "the daemon is stopping");
        let _turn = self.stamps.acquire().await.map_err(stopping)?;
        let reply = async {
            let mut client = self.link.client().await?;
            Ok::<_, LineError>(client.timestamp(request).await?.into_inner())
        };
        let reply = reply.await.map_err(|error| match error {
            LineError::Refused { code, why } => refused(Code::FailedPrecondition, &code, why),
            other => refused(Code::Unavailable, "GATE_NO_TIMESTAMP", crate::chain(&other)),
        })?;
        if reply.response.len() > MAX_RESPONSE_BYTES {
            let why = format!("the verifier sent more than {MAX_RESPONSE_BYTES} bytes");
            return Err(refused(Code::Unavailable, "GATE_NO_TIMESTAMP", why));
        }
        Ok(reply)
    }
}

/// Why there is no time stamp: `PermissionDenied`, `InvalidArgument` and `FailedPrecondition` are answers, `Unavailable` is
/// none.
#[derive(Debug)]
pub(super) struct StampRefused {
    status: Code,
    why: Refusal,
}

fn refused(status: Code, code: &str, why: impl Into<String>) -> StampRefused {
    StampRefused { status, why: Refusal::new(code, why) }
}

impl From<StampRefused> for Status {
    fn from(StampRefused { status, why: Refusal(refused) }: StampRefused) -> Self {
        let details = ErrorDetails::with_error_info(
            refused.code,
            ERROR_DOMAIN,
            std::collections::HashMap::new(),
        );
        Status::with_error_details(status, refused.why, details)
    }
}
