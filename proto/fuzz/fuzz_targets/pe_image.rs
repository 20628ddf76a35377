//! PE images: what is no image is refused with a place, and a unified kernel image gives digests or says why not.
#![no_main]

use appraisal::{
    policy::document::{AcceptedValue, BootRules, PcrRule, RecordedEvent},
    predict::{BaseRules, Update, What, pe::Image, predict},
};
use libfuzzer_sys::fuzz_target;
use proto::digest::HashAlg;

fuzz_target!(|data: &[u8]| {
    if let Ok(image) = Image::parse(data) {
        let digest = image.authenticode(HashAlg::Sha256);
        // Bytes behind the end are part of the image, unless a certificate table says where it ends.
        let mut longer = data.to_vec();
        longer.push(0);
        if let Ok(longer) = Image::parse(&longer) {
            assert_ne!(longer.authenticode(HashAlg::Sha256), digest);
        }
        for section in image.sections() {
            let _ = section.loaded().map(|content| content.to_vec());
        }
    }
    let bank = HashAlg::Sha256;
    let recorded = |bytes: &[u8]| RecordedEvent {
        digest: bank.hash(&[bytes]).to_string().replace("sha256:", ""),
        what: "kernel image section .linux".into(),
    };
    let events = vec![recorded(b".linux\0"), recorded(b"a kernel")];
    let accept = vec![AcceptedValue { value: String::new(), from: None, by: None, at: None, events }];
    let pcr = [4, 9, 11].map(|index| PcrRule { bank, index, accept: accept.clone() });
    let base = BaseRules { pcr: &pcr, events: &[], boot: &BootRules::default() };
    let what = What::Uki { old: None, new: data };
    let _ = predict(base, &Update { what, label: String::new() });
});
