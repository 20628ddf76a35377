//! Verbs of a row's `mutate` list, and what they do to messages.

use std::cell::Cell;

use proto::pb;

use crate::cluster::AnyError;

/// A row's verbs: `verb`, `verb:argument`, `verb:argument:argument`.
#[derive(Debug)]
pub struct Mutations {
    items: Vec<(String, Vec<String>, Cell<bool>)>,
}

impl Mutations {
    /// Parses verbs.
    #[must_use]
    pub fn of(verbs: &[String]) -> Self {
        let items = verbs.iter().map(|text| {
            let mut words = text.split(':').map(str::to_owned);
            let verb = words.next().unwrap_or_default();
            (verb, words.collect(), Cell::new(false))
        });
        Self { items: items.collect() }
    }

    /// None at all: an honest worker.
    #[must_use]
    pub const fn none() -> Self {
        Self { items: Vec::new() }
    }

    /// Whether this verb with exactly these arguments is there.
    pub fn has(&self, text: &str) -> bool {
        let mut words = text.split(':');
        let verb = words.next().unwrap_or_default();
        let arguments: Vec<&str> = words.collect();
        self.all(verb).any(|found| found.iter().map(String::as_str).eq(arguments.iter().copied()))
    }

    /// The arguments of every occurrence of a verb. Only what is looked at in full counts as used.
    pub fn all<'a>(&'a self, verb: &'a str) -> impl Iterator<Item = &'a [String]> {
        self.items.iter().filter(move |(name, _, _)| name == verb).map(|(_, arguments, used)| {
            used.set(true);
            arguments.as_slice()
        })
    }

    /// The first argument of a verb.
    pub fn arg<'a>(&'a self, verb: &'a str) -> Option<&'a str> {
        self.all(verb).next().and_then(|arguments| arguments.first()).map(String::as_str)
    }

    /// The first argument of a verb, a number.
    ///
    /// # Errors
    /// It is not one.
    pub fn number(&self, verb: &str) -> Result<Option<u32>, AnyError> {
        Ok(self.arg(verb).map(str::parse).transpose()?)
    }

    /// Every verb must have been looked at: a misspelt one attacks nothing.
    ///
    /// # Errors
    /// Names those that were not.
    pub fn all_used(&self) -> Result<(), AnyError> {
        let unused: Vec<&str> = self
            .items
            .iter()
            .filter(|(_, _, used)| !used.get())
            .map(|(verb, _, _)| verb.as_str())
            .collect();
        if unused.is_empty() {
            Ok(())
        } else {
            Err(format!("verbs without effect: {unused:?}").into())
        }
    }

    /// `cut`, `append`, `grow`, `clear`, `flip` on one byte field by its name.
    ///
    /// # Errors
    /// A bad argument.
    pub fn bytes(&self, name: &str, bytes: &mut Vec<u8>) -> Result<(), AnyError> {
        for (verb, arguments, used) in &self.items {
            if arguments.first().map(String::as_str) != Some(name) {
                continue;
            }
            let number = arguments.get(1).map(|text| text.parse::<usize>()).transpose()?;
            match verb.as_str() {
                "cut" => bytes.truncate(bytes.len().saturating_sub(number.unwrap_or(1))),
                "append" => bytes.extend(vec![0x5a; number.unwrap_or(1)]),
                "grow" => bytes.resize(number.unwrap_or(0), 0x5a),
                "clear" => bytes.clear(),
                "flip" => {
                    let from_end = number.unwrap_or(1);
                    let at = bytes.len().checked_sub(from_end).ok_or("flip beyond the start")?;
                    *bytes.get_mut(at).ok_or("flip beyond the end")? ^= 1;
                }
                _ => continue,
            }
            used.set(true);
        }
        Ok(())
    }

    /// Verbs on Hello.
    ///
    /// # Errors
    /// A bad argument.
    pub fn hello(&self, hello: &mut pb::Hello) -> Result<(), AnyError> {
        self.bytes("ek_public", &mut hello.ek_public)?;
        self.bytes("ek_certificate", &mut hello.ek_certificate)?;
        self.bytes("ak_public", &mut hello.ak_public)?;
        let mut text = hello.attestor_version.clone().into_bytes();
        self.bytes("attestor_version", &mut text)?;
        hello.attestor_version = String::from_utf8(text)?;
        if let Some(version) = self.number("version")? {
            hello.protocol_version = version;
        }
        if let Some(count) = self.number("chain")? {
            let one = hello.ek_chain.first().cloned().unwrap_or_else(|| vec![0x30, 0]);
            hello.ek_chain = vec![one; usize::try_from(count)?];
        }
        if let Some(bytes) = self.number("chain-certificate-bytes")? {
            hello.ek_chain = vec![vec![0x30; usize::try_from(bytes)?]];
        }
        for arguments in self.all("announce") {
            let [kind, size_bytes] = arguments else { return Err("announce:kind:bytes".into()) };
            hello.logs.push(pb::LogState { kind: kind.parse()?, size_bytes: size_bytes.parse()? });
        }
        Ok(())
    }

    /// Verbs on Evidence.
    ///
    /// # Errors
    /// A bad argument.
    pub fn evidence(&self, evidence: &mut pb::Evidence) -> Result<(), AnyError> {
        self.bytes("secret", &mut evidence.activation_secret)?;
        if let Some(quote) = &mut evidence.quote {
            self.bytes("quote.attest", &mut quote.attest)?;
            self.bytes("quote.signature", &mut quote.signature)?;
            if self.has("quote-hash:sha384") {
                // TPMT_SIGNATURE: algorithm, then hash.
                quote.signature.splice(2..4, [0x00, 0x0c]);
            }
        }
        if let Some(key) = &mut evidence.node_key {
            self.bytes("node_key.public", &mut key.public)?;
            self.bytes("node_key.parent_public", &mut key.parent_public)?;
            if let Some(certify) = &mut key.certify {
                self.bytes("certify.attest", &mut certify.attest)?;
                self.bytes("certify.signature", &mut certify.signature)?;
            }
            if self.has("drop:certify") {
                key.certify = None;
            }
        }
        if self.has("drop:quote") {
            evidence.quote = None;
        }
        if self.has("drop:node_key") {
            evidence.node_key = None;
        }
        self.values(&mut evidence.pcr_values)
    }

    /// `values:…`: the PCR values beside the quote.
    fn values(&self, values: &mut Vec<pb::PcrValue>) -> Result<(), AnyError> {
        let Some(verb) = self.arg("values") else { return Ok(()) };
        let last = values.last().cloned().ok_or("no PCR values to mutate")?;
        let at = |pcr: u32, values: &[pb::PcrValue]| {
            values.iter().position(|value| value.index == pcr).ok_or("PCR is not in the quote")
        };
        match verb {
            "swap" => {
                // The digests of PCR 4 and 7 change places; the labels stay.
                let (four, seven) = (at(4, values)?, at(7, values)?);
                let digest = values[four].digest.clone();
                values[four].digest = std::mem::replace(&mut values[seven].digest, digest);
            }
            "drop" => drop(values.pop()),
            "drop-all" => values.clear(),
            "extra" => values.push(pb::PcrValue { index: 23, ..last }),
            "relabel" => {
                let seven = at(7, values)?;
                values.remove(seven);
                values.push(pb::PcrValue { index: 22, ..last });
            }
            "edit" => {
                let seven = at(7, values)?;
                values[seven].digest = vec![0x11; 32];
            }
            "twice" => values.push(last),
            "reverse" => values.reverse(),
            "many" => values.resize(97, last),
            "index-24" => values.push(pb::PcrValue { index: 24, ..last }),
            "sha1" => values.push(pb::PcrValue { hash_alg: 4, digest: vec![0; 20], ..last }),
            "short" => values.iter_mut().for_each(|value| value.digest.truncate(31)),
            other => return Err(format!("values:{other}").into()),
        }
        Ok(())
    }
}
