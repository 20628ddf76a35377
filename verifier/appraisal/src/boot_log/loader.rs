//! What boot loaders and stubs measure: PCR 8, 9, 11, 12, 14.

use proto::eventlog::{
    EventType,
    tagged::{LINUX_INITRD, LINUX_LOAD_OPTIONS, TaggedEvent},
    text,
};

use super::{
    constants::Constant,
    facts::{CommandLine, Section, Source, Untold},
    hints::{CommandLineHint, FileHint, TextHint},
    reader::{Collector, Seen},
    vouch::{Vouch, split_label},
};

impl Collector {
    /// PCR 8, 9, 12, 14: what boot loaders and stubs measure.
    pub(super) fn loader(&mut self, seen: &[Seen<'_, '_>]) {
        for event in seen.iter().filter(|event| event.constant.is_none()) {
            let index = event.event.index;
            let (pcr, digest) = (event.pcr, event.digest);
            let (data, kind) = (event.event.untrusted_data, event.event.untrusted_type);
            if pcr == 12
                && let Some(text) = text::printable_utf16(event.vouched.bytes)
            {
                // The options handed to the kernel: nothing else in PCR 12 is UCS-2 that is measured as logged.
                let source = event.source();
                let line = CommandLine { source, digest, text: Some(text) };
                self.reading.facts.command_lines.push(line);
                continue;
            }
            if pcr == 12 {
                let untold = Untold { source: event.digest_source(), digest };
                self.reading.facts.untold.push(untold);
                continue;
            }
            let hints = &mut self.reading.facts.hints;
            let name = text::any_printable(data);
            match (pcr, kind) {
                (8, EventType::IPL) => {
                    let text = text::any_printable(event.vouched.bytes);
                    let label = split_label(data).map(|(label, _)| label);
                    let is_command = label == Some(b"grub_cmd".as_slice());
                    match (is_command, text) {
                        (true, Some(text)) => {
                            hints.loader_commands.push(TextHint { event: index, pcr, text });
                        }
                        (true, None) => {}
                        (false, text) => {
                            let hint = CommandLineHint { event: index, pcr, digest, text };
                            hints.command_lines.push(hint);
                        }
                    }
                }
                (9, EventType::EVENT_TAG) => match TaggedEvent::read(data) {
                    Ok(tagged) if tagged.tag == LINUX_LOAD_OPTIONS => {
                        let hint = CommandLineHint { event: index, pcr, digest, text: None };
                        hints.command_lines.push(hint);
                    }
                    Ok(tagged) if tagged.tag == LINUX_INITRD => {
                        let name = text::any_printable(tagged.data).unwrap_or_default();
                        hints.initrds.push(FileHint { event: index, pcr, digest, name });
                    }
                    _ => {}
                },
                (9, EventType::IPL) => {
                    let name = name.unwrap_or_default();
                    hints.loader_files.push(FileHint { event: index, pcr, digest, name });
                }
                (14, EventType::IPL) => {
                    let name = name.unwrap_or_default();
                    hints.shim_variables.push(FileHint { event: index, pcr, digest, name });
                }
                _ => {}
            }
        }
    }

    /// PCR 11: pairs of a section's name and its content, from the first event on. What a content hashes to is the
    /// image's business, also where it is the hash of a name: that is why pairs are counted off strictly.
    pub(super) fn kernel_image(&mut self, seen: &[Seen<'_, '_>]) {
        let mut events = seen.iter().filter(|event| event.pcr == 11).peekable();
        while let Some(name) = events.peek() {
            let Some(Constant::Section(section)) = name.constant else { break };
            let _ = events.next();
            let Some(content) = events.next() else { return };
            let source =
                Source { event: content.event.index, pcr: content.pcr, vouch: Vouch::Structure };
            let digest = content.digest;
            if section == ".cmdline" {
                let line = CommandLine { source, digest, text: None };
                self.reading.facts.command_lines.push(line);
            }
            let name = section.to_owned();
            self.reading.facts.uki_sections.push(Section { source, name, digest });
        }
        // From the first name on that is not known nothing says what is a name and what a content.
        for event in events {
            let untold = Untold { source: event.digest_source(), digest: event.digest };
            self.reading.facts.untold.push(untold);
        }
    }
}
