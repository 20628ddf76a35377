//! Why a request was refused: stable codes, and the gRPC status each becomes.

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// `domain` of every `google.rpc.ErrorInfo` that the server sends.
pub const ERROR_DOMAIN: &str = "assay";

macro_rules! refusals {
    ($($variant:ident $code:literal $status:ident $doc:literal;)*) => {
        /// Why the Workload API refused. Alphabetical.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum RefusalCode {
            $(#[doc = $doc] $variant,)*
        }

        impl RefusalCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable wire string, `ErrorInfo.reason`.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// The gRPC status that a client's library acts on.
            #[must_use]
            pub const fn status(self) -> Code {
                match self { $(Self::$variant => Code::$status,)* }
            }

            /// What it means, one sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $doc,)* }
            }
        }
    };
}

refusals! {
    AudienceInvalid "WORKLOAD_AUDIENCE_INVALID" InvalidArgument "No audience, an empty one, too many, or one that is too long.";
    HeaderMissing "WORKLOAD_HEADER_MISSING" InvalidArgument "The metadata `workload.spiffe.io: true` is not there exactly once.";
    IdentityAmbiguous "WORKLOAD_IDENTITY_AMBIGUOUS" PermissionDenied "Several jobs claim the process equally closely, so it gets no identity.";
    IdentityNone "WORKLOAD_IDENTITY_NONE" PermissionDenied "No job claims the process, or the job has no identity of this kind.";
    IdentityNotGranted "WORKLOAD_IDENTITY_NOT_GRANTED" PermissionDenied "The SPIFFE ID asked for is not the job's.";
    JobChanged "WORKLOAD_JOB_CHANGED" PermissionDenied "The process now belongs to another job than when the stream began.";
    JobEnded "WORKLOAD_JOB_ENDED" PermissionDenied "The job's permit ended.";
    JwtRefused "WORKLOAD_JWT_REFUSED" PermissionDenied "The issuer of JWT-SVIDs refused.";
    JwtSourceFaulty "WORKLOAD_JWT_SOURCE_FAULTY" Internal "The issuer answered with a token that is not for the job or not for the audiences.";
    JwtTooMany "WORKLOAD_JWT_TOO_MANY" ResourceExhausted "The job asked for JWT-SVIDs more often than a job may.";
    JwtUnavailable "WORKLOAD_JWT_UNAVAILABLE" Unavailable "The issuer of JWT-SVIDs could not be asked.";
    NotReady "WORKLOAD_NOT_READY" Unavailable "The worker has no attested identity yet.";
    PeerGone "WORKLOAD_PEER_GONE" PermissionDenied "The process that opened the connection is gone.";
    PeerUnreadable "WORKLOAD_PEER_UNREADABLE" Unavailable "What the kernel says of the process could not be read.";
    RequestTimeout "WORKLOAD_REQUEST_TIMEOUT" DeadlineExceeded "The request was not complete, or not answered, in time.";
    SpiffeIdInvalid "WORKLOAD_SPIFFE_ID_INVALID" InvalidArgument "The SPIFFE ID asked for is none.";
    Stopping "WORKLOAD_STOPPING" Unavailable "The server stops.";
    SvidExpired "WORKLOAD_SVID_EXPIRED" Unavailable "The job's X.509-SVID expired and no newer one has come.";
    TokenInvalid "WORKLOAD_TOKEN_INVALID" InvalidArgument "The JWT-SVID to validate is not valid for the audience.";
    TokenTooLong "WORKLOAD_TOKEN_TOO_LONG" InvalidArgument "The JWT-SVID to validate is longer than the limit.";
}

/// A refusal: a stable code and what happened, in words for the job's log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {what}", .code.code())]
pub struct Refusal {
    code: RefusalCode,
    what: String,
}

impl Refusal {
    pub(crate) fn new(code: RefusalCode, what: impl Into<String>) -> Self {
        Self { code, what: what.into() }
    }

    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> RefusalCode {
        self.code
    }

    /// The status that leaves the server: the code stands in its message and in its `ErrorInfo`.
    #[must_use]
    pub fn to_status(&self) -> Status {
        let mut details = ErrorDetails::new();
        let reason = self.code.code();
        details.set_error_info(reason, ERROR_DOMAIN, std::collections::HashMap::new());
        Status::with_error_details(self.code.status(), self.to_string(), details)
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        refusal.to_status()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_sorted_unique_and_upper_snake() {
        let codes: Vec<_> = RefusalCode::ALL.iter().map(|code| code.code()).collect();
        let sorted: BTreeSet<_> = codes.iter().copied().collect();
        assert_eq!(codes, sorted.into_iter().collect::<Vec<_>>());
        for code in codes {
            assert!(code.len() <= 63, "{code}");
            assert!(code.starts_with("WORKLOAD_"), "{code}");
            assert!(code.chars().all(|c| c.is_ascii_uppercase() || c == '_'), "{code}");
        }
    }

    #[test]
    fn the_users_guide_lists_each_code_with_its_status() {
        let guide = include_str!("../../../docs/SPIFFE.md");
        for code in RefusalCode::ALL {
            let status = match code.status() {
                Code::InvalidArgument => "INVALID_ARGUMENT",
                Code::PermissionDenied => "PERMISSION_DENIED",
                Code::Unavailable => "UNAVAILABLE",
                Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
                Code::Internal => "INTERNAL",
                Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
                other => panic!("{other:?}"),
            };
            let row = guide.lines().find(|line| line.starts_with(&format!("| `{status}` |")));
            let row = row.unwrap_or_default();
            assert!(row.contains(&format!("`{}`", code.code())), "{status}: {}", code.code());
        }
    }

    #[test]
    fn a_status_carries_the_code_twice() {
        let status = Refusal::new(RefusalCode::JobEnded, "over").to_status();
        assert_eq!(status.code(), Code::PermissionDenied);
        assert_eq!(status.message(), "WORKLOAD_JOB_ENDED: over");
        let info = status.get_details_error_info().map(|info| (info.reason, info.domain));
        assert_eq!(info, Some(("WORKLOAD_JOB_ENDED".to_owned(), ERROR_DOMAIN.to_owned())));
    }
}
