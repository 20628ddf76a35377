//! Statements: refused, or the very bytes that they are written as.
#![no_main]

use libfuzzer_sys::fuzz_target;
use results::statement::{Predicate, Statement, slsa};

fuzz_target!(|data: &[u8]| match Statement::parse(data) {
    Ok(Statement::Vsa(vsa)) => assert_eq!(vsa.to_json().as_deref(), Ok(data)),
    Ok(Statement::Dispatch(dispatch)) => {
        assert_eq!(dispatch.to_json().as_deref(), Ok(data));
        assert!(slsa::provenance_parts(&dispatch, &dispatch.vsa).starts_with('{'));
    }
    Err(refusal) => assert!(!refusal.to_string().chars().any(char::is_control)),
});
