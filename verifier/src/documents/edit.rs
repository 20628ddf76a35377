//! Editing a document without losing what people wrote around it.

use toml_edit::{ArrayOfTables, DocumentMut, Item, Table};

/// Keys that tell which entry of a list is meant, in the order in which they are tried.
const IDENTITIES: [&[&str]; 3] = [&["bank", "index"], &["name"], &["digest"]];

/// The text of `new` with the comments and the layout of `old` wherever both say the same thing.
///
/// # Errors
/// A text that is not TOML.
pub fn with_comments_of(old: &str, new: &str) -> Result<String, toml_edit::TomlError> {
    let old: DocumentMut = old.parse()?;
    let mut new: DocumentMut = new.parse()?;
    keep(old.as_table(), new.as_table_mut());
    let trailing = old.trailing().clone();
    new.set_trailing(trailing);
    in_order(new.as_table_mut(), &mut 0);
    Ok(new.to_string())
}

/// Gives every table its place anew, what belongs to it right behind it: tables that were taken over would stand where
/// they stood in the old text, between the tables of others.
fn in_order(table: &mut Table, next: &mut isize) {
    table.set_position(Some(*next));
    *next = next.saturating_add(1);
    for (_, item) in table.iter_mut() {
        match item {
            Item::Table(inner) => in_order(inner, next),
            Item::ArrayOfTables(list) => list.iter_mut().for_each(|inner| in_order(inner, next)),
            Item::None | Item::Value(_) => {}
        }
    }
}

fn keep(old: &Table, new: &mut Table) {
    *new.decor_mut() = old.decor().clone();
    let keys: Vec<String> = new.iter().map(|(key, _)| key.to_owned()).collect();
    for key in keys {
        let Some((old_key, old_item)) = old.get_key_value(&key) else { continue };
        let Some(item) = new.get_mut(&key) else { continue };
        match (old_item, item) {
            (Item::Table(old), Item::Table(new)) => keep(old, new),
            (Item::ArrayOfTables(old), Item::ArrayOfTables(new)) => keep_list(old, new),
            (old, new) if same(old, new) => *new = old.clone(),
            (Item::Value(old), Item::Value(new)) => *new.decor_mut() = old.decor().clone(),
            _ => {}
        }
        if let Some(mut key) = new.key_mut(&key) {
            *key.leaf_decor_mut() = old_key.leaf_decor().clone();
        }
    }
}

fn keep_list(old: &ArrayOfTables, new: &mut ArrayOfTables) {
    for table in new.iter_mut() {
        let same_whole = old.iter().find(|old| {
            let (a, b) = (Item::Table((*old).clone()), Item::Table(table.clone()));
            same(&a, &b)
        });
        if let Some(old) = same_whole {
            *table = old.clone();
        } else if let Some(old) = old.iter().find(|old| is_same_entry(old, table)) {
            keep(old, table);
        }
    }
}

fn is_same_entry(old: &Table, new: &Table) -> bool {
    let text = |table: &Table, key: &str| table.get(key).map(plain);
    IDENTITIES.iter().any(|keys| {
        keys.iter().all(|key| {
            let (old, new) = (text(old, key), text(new, key));
            old.is_some() && old == new
        })
    })
}

/// Whether two items mean the same, however they are laid out.
fn same(old: &Item, new: &Item) -> bool {
    plain(old) == plain(new)
}

/// What an item means, as canonical text.
fn plain(item: &Item) -> String {
    let mut table = Table::new();
    table.insert("x", item.clone());
    let text = DocumentMut::from(table).to_string();
    toml::from_str::<serde_json::Value>(&text).map_or(text, |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::with_comments_of;

    #[test]
    fn comments_stay_where_the_meaning_stays() {
        let old = "\
# Who maintains this: the platform team.
schema = \"assay.golden/v1\" # always
name = \"linux\"
version = 3

# Firmware of the rack.
[[pcr]]
bank = \"sha256\"
index = 0 # code
accept = [{ value = \"aa\" }] # since May

# Kernel.
[[pcr]]
bank = \"sha256\"
index = 4
accept = [{ value = \"bb\" }]
";
        let new = "\
schema = \"assay.golden/v1\"
name = \"linux\"
version = 4

[[pcr]]
bank = \"sha256\"
index = 0

[[pcr.accept]]
value = \"aa\"

[[pcr]]
bank = \"sha256\"
index = 4
accept = [{ value = \"cc\" }]
";
        let edited = with_comments_of(old, new).expect("TOML");
        for comment in [
            "platform team",
            "# always",
            "Firmware of the rack",
            "# code",
            "# since May",
            "# Kernel.",
        ] {
            assert!(edited.contains(comment), "{comment}: {edited}");
        }
        let meaning = |text: &str| toml::from_str::<serde_json::Value>(text).expect("TOML");
        assert_eq!(meaning(&edited), meaning(new), "{edited}");
    }

    /// A rule that moves into a group leaves its neighbours' tables where they belong.
    #[test]
    fn tables_in_tables_stay_with_their_own() {
        let rule = |index: u8| {
            format!(
                "[[pcr]]\nindex = {index}\n\n[[pcr.accept]]\nvalue = \"{index}\"\n\n[[pcr.accept.events]]\ndigest = \"{index}\"\n\n"
            )
        };
        let (two, four, six) = (rule(2), rule(4), rule(6));
        let old = format!("# why\nversion = 1\n\n{two}{four}{six}[[tool]]\nname = \"cc\"\n");
        let group = format!("[[group]]\nname = \"new\"\n\n{}", four.replace("[[", "[[group."));
        let new = format!("version = 2\n\n{two}{six}[[tool]]\nname = \"cc\"\n\n{group}");
        let edited = with_comments_of(&old, &new).expect("TOML");
        let meaning = |text: &str| toml::from_str::<serde_json::Value>(text).expect("TOML");
        assert_eq!(meaning(&edited), meaning(&new), "{edited}");
        assert!(edited.starts_with("# why\nversion = 2\n"), "{edited}");
    }

    #[test]
    fn a_rule_that_is_gone_takes_its_comment_with_it() {
        let old = "a = 1\n\n# One.\n[[x]]\nname = \"one\"\n\n# Two.\n[[x]]\nname = \"two\"\n";
        let new = "a = 1\n\n[[x]]\nname = \"two\"\n\n[[x]]\nname = \"three\"\n";
        let edited = with_comments_of(old, new).expect("TOML");
        assert!(edited.contains("# Two.") && !edited.contains("# One."), "{edited}");
    }
}
