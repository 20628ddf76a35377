//! What the documents show of the demo, written there.

use std::{fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use swtpm_tests::{cluster::AnyError, documented::with_block};

use crate::site::Site;

const RESULTS: &str = "../docs/RESULTS.md";
const README: &str = "../README.md";

/// What docs/RESULTS.md shows.
pub(crate) struct Examples {
    vsa: String,
    dispatch: String,
    admitted: String,
    refused: String,
}

impl Examples {
    /// The statements about the job that ran, and what was said of its artifact.
    pub(crate) fn of(site: &Site, admitted: String, refused: String) -> Result<Self, AnyError> {
        let statement = |name: &str| -> Result<String, AnyError> {
            let bundle = fs::read(site.path("results").join(name))?;
            let bundle: serde_json::Value = serde_json::from_slice(&bundle)?;
            let payload = bundle["dsseEnvelope"]["payload"].as_str().ok_or("no statement")?;
            Ok(indented(&String::from_utf8(STANDARD.decode(payload)?)?))
        };
        let (vsa, dispatch) =
            (statement("node.sigstore.json")?, statement("dispatch.sigstore.json")?);
        Ok(Self { vsa, dispatch, admitted, refused })
    }

    /// Writes them, and what the demo said, into the documents.
    pub(crate) fn write(&self, said: &str) -> Result<(), AnyError> {
        let blocks = [
            ("example: vsa", "json", &self.vsa),
            ("example: dispatch", "json", &self.dispatch),
            ("example: admitted", "text", &self.admitted),
            ("example: not admitted", "text", &self.refused),
        ];
        edit(RESULTS, |text| {
            blocks.iter().try_fold(text, |text, (name, language, content)| {
                with_block(&text, name, language, content)
            })
        })?;
        edit(README, |text| with_block(&text, "demo output", "text", said))
    }
}

fn edit(
    document: &str,
    change: impl FnOnce(String) -> Result<String, String>,
) -> Result<(), AnyError> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let text = fs::read_to_string(&path)?;
    fs::write(&path, change(text).map_err(|why| format!("{document}: {why}"))?)?;
    println!("wrote {document}");
    Ok(())
}

/// JSON in lines, its members in the order in which they stand: a statement has one.
fn indented(json: &str) -> String {
    let (mut out, mut depth, mut in_string, mut escaped) = (String::new(), 0_usize, false, false);
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.push_str(&"  ".repeat(depth));
    };
    for character in json.chars() {
        if in_string {
            in_string = escaped || character != '"';
            escaped = character == '\\' && !escaped;
            out.push(character);
            continue;
        }
        match character {
            '{' | '[' => {
                depth += 1;
                out.push(character);
                line(&mut out, depth);
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(character);
            }
            ',' => {
                out.push(character);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ => {
                in_string = character == '"';
                out.push(character);
            }
        }
    }
    out
}
