//! Whole chains of issuing CAs: what relying parties are given who verify long after.

use super::{CaDir, CaError, CaRole, certificates_of, files};

impl CaDir {
    /// Chains of the current and the former CAs of a role, DER: what issues first, its root last.
    ///
    /// A former CA whose root left the trust bundle is not among them; a current one always is.
    ///
    /// # Errors
    /// [`CaError::File`]; [`CaError::Certificate`]; [`CaError::Unknown`] if the current CA's root is not in the bundle.
    pub fn chains(&self, role: CaRole) -> Result<Vec<Vec<Vec<u8>>>, CaError> {
        let current = self.role_path(role);
        let mut chains: Vec<Vec<Vec<u8>>> = Vec::new();
        for path in [current.clone()].into_iter().chain(self.retired_files(role)?) {
            let mut chain = certificates_of(&path, &files::read_secret(&path)?)?;
            match self.root_of(&chain)? {
                Some(root) => chain.push(root),
                None if path == current => {
                    let what = format!("the root of the issuing CA {role} in the trust bundle");
                    return Err(CaError::Unknown(what));
                }
                None => continue,
            }
            if !chains.contains(&chain) {
                chains.push(chain);
            }
        }
        Ok(chains)
    }
}
