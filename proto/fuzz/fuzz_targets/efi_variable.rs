//! What events carry: variables, signature lists, boot entries, device paths, partition tables, and words for them.
#![no_main]

use appraisal::boot_log::describe;
use libfuzzer_sys::fuzz_target;
use proto::{
    digest::PcrIndex,
    eventlog::{
        EventType, device_path, gpt::Gpt, load_option::LoadOption, signature_list::SignatureLists,
        text, variable::VariableData,
    },
};

fuzz_target!(|data: &[u8]| {
    let mut contents = vec![data];
    if let Ok(variable) = VariableData::read(data) {
        assert_eq!(
            32 + variable.name.len() + variable.data.len() + variable.trailing.len(),
            data.len()
        );
        contents.push(variable.data);
    }
    for content in contents {
        let mut bytes = 0;
        for list in SignatureLists::new(content).flatten() {
            bytes += list.entries().map(|entry| 16 + entry.data.len()).sum::<usize>();
        }
        assert!(bytes <= content.len());
        if let Ok(option) = LoadOption::read(content) {
            let _ = device_path::show(option.path);
        }
        let nodes = device_path::Nodes::new(content).count();
        assert!(nodes <= device_path::MAX_NODES);
        let _ = Gpt::read(content);
        let _ = text::any_printable(content);
    }
    for kind in EventType::NAMED {
        for pcr in [8, 9, 11, 12, 14] {
            let words = describe(PcrIndex::new(pcr), *kind, data);
            assert!(words.len() < 8 * 1024);
        }
    }
});
