//! Columns to values and back.

use proto::digest::Digest;
use sqlx::{Decode, Row as _, Sqlite, Type, sqlite::SqliteRow};

use super::StoreError;

pub(super) fn get<'r, T>(row: &'r SqliteRow, column: &'static str) -> Result<T, StoreError>
where
    T: Decode<'r, Sqlite> + Type<Sqlite>,
{
    row.try_get(column)
        .map_err(|error| StoreError::Corrupt { what: "column", why: format!("{column}: {error}") })
}

pub(super) fn get_u64(row: &SqliteRow, column: &'static str) -> Result<u64, StoreError> {
    let value: i64 = get(row, column)?;
    value.try_into().map_err(|_| corrupt(column, &value))
}

pub(super) fn get_u32(row: &SqliteRow, column: &'static str) -> Result<u32, StoreError> {
    let value: i64 = get(row, column)?;
    value.try_into().map_err(|_| corrupt(column, &value))
}

/// A word or a digest.
pub(super) fn parse<T: std::str::FromStr>(
    row: &SqliteRow,
    column: &'static str,
) -> Result<T, StoreError> {
    let text: String = get(row, column)?;
    text.parse().map_err(|_| corrupt(column, &text))
}

pub(super) fn parse_optional(
    row: &SqliteRow,
    column: &'static str,
) -> Result<Option<Digest>, StoreError> {
    let text: Option<String> = get(row, column)?;
    text.map(|text| text.parse().map_err(|_| corrupt(column, &text))).transpose()
}

fn corrupt(column: &'static str, value: &dyn std::fmt::Debug) -> StoreError {
    StoreError::Corrupt { what: "column", why: format!("{column}: {value:?}") }
}

pub(super) fn to_i64(what: &'static str, value: u64) -> Result<i64, StoreError> {
    value.try_into().map_err(|_| StoreError::Invalid { what, why: format!("{value} is too large") })
}

pub(super) fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value)
        .map_err(|error| StoreError::Invalid { what: "audit entry", why: error.to_string() })
}
