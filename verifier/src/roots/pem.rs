//! PEM blocks (RFC 7468), read laxly enough for what manufacturers publish.

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// Blocks of one file.
const MAX_BLOCKS: usize = 20_000;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// One block: its label, and its content or what is wrong with it.
pub(super) struct Block {
    pub(super) label: String,
    pub(super) content: Result<Vec<u8>, &'static str>,
}

/// The blocks of a PEM file, or `None` if it has none. Text between blocks is ignored.
pub(super) fn blocks(bytes: &[u8]) -> Option<Vec<Block>> {
    // DER begins with SEQUENCE; a text that cannot be UTF-8 may still hold blocks in ASCII.
    if bytes.first() == Some(&0x30) {
        return None;
    }
    let text = String::from_utf8_lossy(bytes);
    let mut blocks = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let Some(label) = line.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(DASHES))
        else {
            continue;
        };
        let end = format!("{END}{label}{DASHES}");
        let mut body = String::new();
        let mut ended = false;
        for line in lines.by_ref() {
            if line == end {
                ended = true;
                break;
            }
            body.push_str(line);
        }
        let content = if ended {
            STANDARD.decode(&body).map_err(|_| "the PEM block is not base64")
        } else {
            Err("the PEM block does not end")
        };
        blocks.push(Block { label: label.to_owned(), content });
        if blocks.len() >= MAX_BLOCKS {
            break;
        }
    }
    (!blocks.is_empty()).then_some(blocks)
}
