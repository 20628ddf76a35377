//! The one PEM block of a file that matters.

use der::pem::decode_vec;
use zeroize::Zeroizing;

use super::KeyError;

/// Largest file, bytes: keys have a few hundred.
const MAX_PEM_BYTES: usize = 16 * 1024;

const BEGIN: &str = "-----BEGIN ";

/// Content of the only block whose label is one of `labels`, and that label.
///
/// Text before, between and after blocks is passed over, and so are `EC PARAMETERS`, which
/// `openssl ecparam -genkey` puts before a key; any other block is an error.
pub(super) fn only_block(
    text: &str,
    labels: &[&'static str],
) -> Result<(&'static str, Zeroizing<Vec<u8>>), KeyError> {
    if text.len() > MAX_PEM_BYTES {
        return Err(KeyError::Pem(format!(
            "{} bytes, at most {MAX_PEM_BYTES} are allowed",
            text.len()
        )));
    }
    let mut found = None;
    let mut rest = text;
    while let Some(start) = rest.find(BEGIN) {
        let block = rest.get(start..).unwrap_or_default();
        let (label, length) = extent(block)?;
        let (block, after) = block.split_at(length);
        rest = after;
        if label == "EC PARAMETERS" {
            continue;
        }
        // RFC 1421 headers mark what older programs encrypt.
        if label.starts_with("ENCRYPTED ") || block.contains("Proc-Type: 4,ENCRYPTED") {
            return Err(KeyError::Encrypted);
        }
        let Some(label) = labels.iter().find(|wanted| **wanted == label) else {
            return Err(KeyError::Label { found: label.to_owned(), expected: labels.join(" or ") });
        };
        if found.replace((*label, block)).is_some() {
            return Err(KeyError::Pem("more than one key".to_owned()));
        }
    }
    let (label, block) =
        found.ok_or_else(|| KeyError::Pem(format!("no block {}", labels.join(" or "))))?;
    let (_, der) =
        decode_vec(block.as_bytes()).map_err(|error| KeyError::Pem(error.to_string()))?;
    Ok((label, Zeroizing::new(der)))
}

/// Label and length of the block at the start of `block`.
fn extent(block: &str) -> Result<(&str, usize), KeyError> {
    let label = block
        .strip_prefix(BEGIN)
        .and_then(|rest| rest.split_once("-----"))
        .map(|(label, _)| label)
        .ok_or_else(|| KeyError::Pem("a block has no label".to_owned()))?;
    let end = format!("-----END {label}-----");
    let at =
        block.find(&end).ok_or_else(|| KeyError::Pem(format!("the block {label} has no end")))?;
    Ok((label, at.saturating_add(end.len())))
}
