//! Variables that a CI agent wrote for a job: what is taken is bounded, and none of it runs something before the job may.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::job::agent_file::{MAX_VARIABLES, read_agent_file};

const PATH: &str = "/usr/bin";

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(variables) = read_agent_file(text, Some(PATH)) else { return };
    assert!(variables.len() <= MAX_VARIABLES);
    for (name, value) in &variables {
        assert!(!name.starts_with("LD_") && !name.starts_with("BASH_FUNC_"));
        assert!(!["ENV", "BASH_ENV", "PS4", "SHELLOPTS"].contains(&name.as_str()));
        assert!(name != "PATH" || value == PATH);
    }
    // Both forms say the same: as JSON, what was taken is taken again.
    let json = serde_json::to_string(&variables).expect("a map of texts");
    assert_eq!(read_agent_file(&json, Some(PATH)).as_ref(), Ok(&variables));
});
