//! What is shown of a document before it is signed.

use appraisal::policy::{
    GoldenSet,
    diff::{diff, to_text},
};
use proto::digest::HashAlg;
use toml_edit::{
    Array, DocumentMut, InlineTable, Item, KeyMut, Table, Value,
    visit_mut::{
        VisitMut, visit_array_mut, visit_inline_table_mut, visit_table_like_kv_mut,
        visit_table_mut, visit_value_mut,
    },
};

use crate::{
    cli::{
        Done,
        output::{Output, printable_lines},
    },
    documents::payload_of,
    store::DocumentKind,
};

/// What a signature would approve: against what is in force, or all of it.
pub(super) fn show_before_signing(
    output: Output,
    kind: DocumentKind,
    before: Option<&str>,
    text: &str,
) -> Done {
    if output.is_json() {
        return Ok(());
    }
    let digest = HashAlg::Sha256.hash(&[text.as_bytes()]);
    match (kind, before.map(GoldenSet::document), GoldenSet::document(text)) {
        (DocumentKind::Golden, Some(Ok(before)), Ok(after)) => {
            output.line(format!("Against version {}, which is in force:", before.version))?;
            output.line(to_text(&diff(&before, &after), false).trim_end())?;
        }
        // The first set, a policy, keys: short enough to be read whole, or not to be compared with anything.
        _ => output.line(printable_lines(as_signed(text, kind).trim_end()))?,
    }
    output.line(format!("TOML {digest}"))
}

/// All that is signed of a document, and nothing else: comments and space are not signed, and enough of them would push
/// a rule out of sight.
fn as_signed(text: &str, kind: DocumentKind) -> String {
    let Ok(mut document) = text.parse::<DocumentMut>() else { return text.to_owned() };
    document.set_trailing("");
    Bare.visit_document_mut(&mut document);
    let bare = document.to_string();
    eprintln!(
        "DBG {bare}\n{:?} {:?}",
        payload_of(text, kind).map(String::from_utf8),
        payload_of(&bare, kind).map(String::from_utf8)
    );
    // Whoever reads it relies on that. Where it is not so, the whole text is shown.
    match (payload_of(text, kind), payload_of(&bare, kind)) {
        (Ok(before), Ok(after)) if before == after => bare,
        _ => text.to_owned(),
    }
}

/// Takes away how a document was written; what it says stays.
struct Bare;

impl VisitMut for Bare {
    fn visit_table_mut(&mut self, table: &mut Table) {
        table.decor_mut().clear();
        visit_table_mut(self, table);
    }

    fn visit_table_like_kv_mut(&mut self, mut key: KeyMut<'_>, item: &mut Item) {
        key.fmt();
        visit_table_like_kv_mut(self, key, item);
    }

    fn visit_inline_table_mut(&mut self, table: &mut InlineTable) {
        visit_inline_table_mut(self, table);
        table.set_trailing("");
        table.fmt();
    }

    fn visit_array_mut(&mut self, array: &mut Array) {
        visit_array_mut(self, array);
        array.set_trailing("");
        array.fmt();
        // A long list is read line by line.
        if array.len() > 1 {
            for value in array.iter_mut() {
                value.decor_mut().set_prefix("\n    ");
            }
            array.set_trailing_comma(true);
            array.set_trailing("\n");
        }
    }

    fn visit_value_mut(&mut self, value: &mut Value) {
        value.decor_mut().clear();
        match value {
            // As it was spelled, a string may hold lines that are not part of it.
            Value::String(scalar) => scalar.fmt(),
            Value::Integer(scalar) => scalar.fmt(),
            Value::Float(scalar) => scalar.fmt(),
            Value::Boolean(scalar) => scalar.fmt(),
            Value::Datetime(scalar) => scalar.fmt(),
            Value::Array(_) | Value::InlineTable(_) => {}
        }
        visit_value_mut(self, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r##"# what nobody signs
schema = "assay.policy/v1"
name = "site" # a name
version = 1
pools = [
    "linux", # one
    # and another
    "mac",
]
description = """
# part of the text, not a comment
"""

# the rule
[[rule]]
name = 'debug'
message = """Debug \
    

    mode."""
expr = '!boot.debug_mode'
# the end
"##;

    #[test]
    fn what_is_shown_is_what_is_signed() {
        let shown = as_signed(POLICY, DocumentKind::Policy);
        let expected = r##"schema = "assay.policy/v1"
name = "site"
version = 1
pools = [
    "linux",
    "mac",
]
description = """
# part of the text, not a comment
"""

[[rule]]
name = "debug"
message = "Debug mode."
expr = "!boot.debug_mode"
"##;
        assert_eq!(shown, expected);
    }

    #[test]
    fn nothing_that_is_not_signed_pushes_a_rule_out_of_sight() {
        let many = "# nothing to see\n\n".repeat(2000);
        let text = POLICY.replace("# the rule\n", &many).replace("# one\n", &many);
        let text = text.replace("Debug \\\n", &format!("Debug \\\n{}", "   \n".repeat(2000)));
        let shown = as_signed(&text, DocumentKind::Policy);
        assert_eq!(shown, as_signed(POLICY, DocumentKind::Policy));
    }

    #[test]
    fn what_cannot_be_read_is_shown_whole() {
        for text in ["schema = ", "# why\nschema = \"assay.policy/v1\"\ncolour = \"red\"\n"] {
            assert_eq!(as_signed(text, DocumentKind::Policy), text);
        }
    }
}
