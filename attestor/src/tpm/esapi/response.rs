//! From TSS error values to [`TpmError`].

use tss_esapi::{
    Error,
    constants::response_code::{Tss2ResponseCode, Tss2ResponseCodeKind as Kind},
};

use crate::tpm::TpmError;

/// TSS layers in bits 16–23 of a `TSS2_RC`.
const LAYER_TPM: u32 = 0;
const LAYER_TCTI: u32 = 10;

/// Which password a command shows, for the error's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hierarchy {
    Endorsement,
    Owner,
    Null,
}

impl Hierarchy {
    const fn name(self) -> &'static str {
        match self {
            Self::Endorsement => "endorsement",
            Self::Owner => "owner",
            Self::Null => "null",
        }
    }
}

/// What went wrong in `command`, which uses `hierarchy`'s password if any.
pub(super) fn tpm_error(
    error: Error,
    command: &'static str,
    hierarchy: Option<Hierarchy>,
) -> TpmError {
    let code = match error {
        Error::Tss2Error(code) => code,
        Error::WrapperError(kind) => {
            return TpmError::Malformed { command, detail: kind.to_string() };
        }
    };
    let number = code_number(code);
    if layer(number) == LAYER_TCTI {
        return TpmError::ConnectionLost { command, code: number };
    }
    // Response codes of resource managers carry the TPM's own in the low bits; the layers of
    // libtss2 itself do not.
    if layer(number) != LAYER_TPM {
        return TpmError::Response { command, code: number, text: "refused by the TSS".to_owned() };
    }
    match (code.kind(), hierarchy) {
        (Some(Kind::Initialize), _) => TpmError::NotStarted { command },
        (Some(Kind::Failure), _) => TpmError::FailureMode { command },
        (Some(Kind::Lockout), _) => TpmError::Lockout { command },
        (
            Some(
                Kind::ObjectMemory
                | Kind::SessionMemory
                | Kind::SessionHandles
                | Kind::ObjectHandles
                | Kind::Memory,
            ),
            _,
        ) => TpmError::NoSlot { command },
        (Some(Kind::BadAuth | Kind::AuthFail), Some(hierarchy)) => {
            TpmError::WrongAuth { hierarchy: hierarchy.name(), command }
        }
        (Some(Kind::Hierarchy), Some(hierarchy)) => {
            TpmError::HierarchyDisabled { hierarchy: hierarchy.name(), command }
        }
        _ => TpmError::Response { command, code: number, text: code.to_string() },
    }
}

/// The TPM's own answer, where the error is one.
pub(super) fn kind(error: &Error) -> Option<Kind> {
    match error {
        Error::Tss2Error(code) if layer(code_number(*code)) == LAYER_TPM => code.kind(),
        _ => None,
    }
}

const fn layer(code: u32) -> u32 {
    (code >> 16) & 0xff
}

/// The number in a response code, which tss-esapi shows only in its text: `… value: 0x18b`.
fn code_number(code: Tss2ResponseCode) -> u32 {
    let text = match code {
        Tss2ResponseCode::Success => return 0,
        Tss2ResponseCode::FormatZero(inner) => inner.to_string(),
        Tss2ResponseCode::FormatOne(inner) => inner.to_string(),
    };
    let digits = text.rsplit("0x").next().unwrap_or_default();
    u32::from_str_radix(digits, 16).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: u32, hierarchy: Option<Hierarchy>) -> TpmError {
        tpm_error(Error::Tss2Error(code.into()), "TPM2_Test", hierarchy)
    }

    #[test]
    fn codes_become_words() {
        let command = "TPM2_Test";
        let endorsement = Some(Hierarchy::Endorsement);
        assert_eq!(error(0x100, None), TpmError::NotStarted { command });
        assert_eq!(error(0x101, None), TpmError::FailureMode { command });
        assert_eq!(error(0x921, endorsement), TpmError::Lockout { command });
        for slots in [0x902, 0x903, 0x904, 0x905, 0x906] {
            assert_eq!(error(slots, None), TpmError::NoSlot { command });
        }
        let wrong = TpmError::WrongAuth { hierarchy: "endorsement", command };
        // TPM_RC_BAD_AUTH and TPM_RC_AUTH_FAIL of session 1.
        assert_eq!(error(0x9a2, endorsement), wrong);
        assert_eq!(error(0x98e, endorsement), wrong);
        assert_eq!(
            error(0x185, endorsement),
            TpmError::HierarchyDisabled { hierarchy: "endorsement", command }
        );
        let Some(TpmError::Response { code: 0x18b, .. }) = Some(error(0x18b, None)) else {
            panic!("the handle's code is kept");
        };
    }

    #[test]
    fn layers_are_kept_apart() {
        // TSS2_TCTI_RC_IO_ERROR and TSS2_TCTI_RC_NO_CONNECTION.
        for code in [0x000a_000a, 0x000a_0008] {
            let command = "TPM2_Test";
            assert_eq!(error(code, None), TpmError::ConnectionLost { command, code });
        }
        // TSS2_ESYS_RC_MEMORY has the low bits of TPM_RC_FAILURE's neighbours; it is no TPM answer.
        let Some(TpmError::Response { code: 0x0007_0017, .. }) = Some(error(0x0007_0017, None))
        else {
            panic!("an ESAPI code is not a TPM code");
        };
        assert_eq!(kind(&Error::Tss2Error(0x0007_0101.into())), None);
        assert_eq!(kind(&Error::Tss2Error(0x101.into())), Some(Kind::Failure));
    }

    #[test]
    fn lockout_and_wrong_password_say_what_to_do() {
        let text = error(0x921, None).to_string();
        assert!(text.contains("dictionary attack lockout"), "{text}");
        assert!(text.contains("tpm2_dictionarylockout --clear-lockout"), "{text}");
        let text = error(0x9a2, Some(Hierarchy::Endorsement)).to_string();
        assert!(text.contains("endorsement_auth_file"), "{text}");
    }
}
