//! Who may call: decided by the client certificate, and by what the store says of its name and key.

use std::sync::Arc;

use arc_swap::ArcSwap;
use proto::reason::ReasonCode;
use tonic::{Code, Request, Status};

use super::{answer::store, status::with_reason};
use crate::{
    attestation::Verifier,
    server::Peer,
    store::{By, Role},
    tls::{AdminAuthority, AdminIdentity},
};

/// Tells administrators from everybody else, for every service that only they may call.
#[derive(Debug)]
pub struct Access {
    verifier: Arc<Verifier>,
    authority: ArcSwap<AdminAuthority>,
}

impl Access {
    /// By the administrators of a verifier's store; `authority` tells their certificates from others.
    #[must_use]
    pub fn new(verifier: Arc<Verifier>, authority: AdminAuthority) -> Self {
        Self { verifier, authority: ArcSwap::from_pointee(authority) }
    }

    /// Tells administrators by other CAs from now on.
    pub fn replace_authority(&self, authority: AdminAuthority) {
        self.authority.store(Arc::new(authority));
    }

    /// Whether these certificates are an administrator's, whatever its role.
    ///
    /// # Errors
    /// `ADMIN_CERTIFICATE_REQUIRED`, as a status.
    pub fn identify(&self, peer: Option<&Peer>) -> Result<AdminIdentity, Status> {
        let now = self.verifier.now().map_err(|error| super::status::attest(&error))?;
        let required = |why: String| {
            with_reason(Code::Unauthenticated, ReasonCode::AdminCertificateRequired, why)
        };
        let peer = peer.ok_or_else(|| required("no connection information".to_owned()))?;
        self.authority
            .load()
            .identify(&peer.certificates, u64::try_from(now).unwrap_or(0))
            .map_err(|error| required(error.to_string()))
    }

    /// Who calls, if its role is at least `needed`.
    ///
    /// # Errors
    /// `ADMIN_CERTIFICATE_REQUIRED`, `ADMIN_ROLE_INSUFFICIENT`, as a status.
    pub(super) async fn authorize<T>(
        &self,
        request: &Request<T>,
        needed: Role,
    ) -> Result<By, Status> {
        let now = self.verifier.now().map_err(|error| super::status::attest(&error))?;
        let required = |why: String| {
            with_reason(Code::Unauthenticated, ReasonCode::AdminCertificateRequired, why)
        };
        let identity = self.identify(request.extensions().get::<Peer>())?;
        let name = identity.name().as_str();
        let admins = self.verifier.store().admins().await.map_err(|error| store(&error))?;
        // Name and key as registered: another certificate of the same name is not the administrator.
        let admin = admins
            .iter()
            .find(|admin| {
                admin.name == name
                    && admin.spki_sha256 == identity.spki_sha256()
                    && admin.revoked_at.is_none()
            })
            .ok_or_else(|| {
                required(format!("{name:?} with this key is not an administrator, or was revoked"))
            })?;
        if admin.role < needed {
            return Err(with_reason(
                Code::PermissionDenied,
                ReasonCode::AdminRoleInsufficient,
                format!("{name} has the role {}, this call needs {needed}", admin.role),
            ));
        }
        Ok(By::new(format!("admin/{name}"), now))
    }
}
