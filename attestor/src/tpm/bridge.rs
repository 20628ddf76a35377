//! A TCTI on standard input and output that knows what a NULL-hierarchy parent is.
//!
//! A node key's file names `TPM_RH_NULL` as its parent, as the key file specification has it: load
//! the key under the primary that the NULL hierarchy makes. OpenSSL's tpm2 provider (1.1.1, in Debian
//! 12) makes a primary only for the owner hierarchy and takes any other parent for the handle of an
//! object, which the NULL hierarchy is not. libtss2 can run a program as its way to the TPM:
//!
//! ```text
//! TPM2OPENSSL_TCTI="cmd:attestor tcti device:/dev/tpmrm0" openssl … -provider tpm2 …
//! ```
//!
//! This program passes every command on unchanged, except that in `TPM2_ReadPublic` and `TPM2_Load`
//! the handle `TPM_RH_NULL` is replaced by that of a primary which it makes for the purpose. It holds
//! no secret and gives no right: whoever runs it must be able to open the TPM.
//!
//! # Sources
//! TPM 2.0 Library Part 1, "Command/Response Structure"; Part 3, "TPM2_CreatePrimary",
//! "TPM2_ReadPublic", "TPM2_Load", "TPM2_FlushContext".

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    net::TcpStream,
};

use proto::tpm::{constants::RH_NULL, credential::sized};

use super::{Tcti, TpmError, template};

/// Header of a command and of a response: tag, size, code.
const HEADER_BYTES: usize = 10;
/// Largest command or response; the kernel's buffer has 4096.
const MAX_FRAME_BYTES: usize = 4096;
const ST_NO_SESSIONS: u16 = 0x8001;
const ST_SESSIONS: u16 = 0x8002;
const CC_CREATE_PRIMARY: u32 = 0x131;
const CC_LOAD: u32 = 0x157;
const CC_FLUSH_CONTEXT: u32 = 0x165;
const CC_READ_PUBLIC: u32 = 0x173;
/// `TPM_RS_PW`.
const RS_PASSWORD: u32 = 0x4000_0009;

/// Why the bridge ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BridgeError {
    /// The TPM cannot be opened.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// Only the kernel's device and swtpm carry bare TPM commands.
    #[error("{0} cannot be bridged: give device:PATH or swtpm:host=HOST,port=PORT")]
    Unsupported(String),
    /// A frame that is not a TPM command or response.
    #[error("a TPM {what} declares {size} bytes, allowed are {HEADER_BYTES} to {MAX_FRAME_BYTES}")]
    FrameSize {
        /// `command` or `response`.
        what: &'static str,
        /// The declared size.
        size: usize,
    },
    /// Reading or writing failed.
    #[error("the connection to the TPM or to the caller broke")]
    Io(#[from] io::Error),
}

/// Passes commands from `input` to the TPM and answers to `output` until `input` ends.
///
/// # Errors
/// [`BridgeError`]; the end of `input` between two commands is the regular end.
pub fn run(tcti: &Tcti, input: impl Read, output: impl Write) -> Result<(), BridgeError> {
    let absent = |_| {
        let diagnosis = tcti.diagnose();
        TpmError::Absent { tcti: tcti.to_string(), what: diagnosis.what, remedy: diagnosis.remedy }
    };
    match tcti {
        Tcti::Device(path) => {
            let file = OpenOptions::new().read(true).write(true).open(path).map_err(absent)?;
            Bridge { tpm: Device(file), primary: None }.serve(input, output)
        }
        Tcti::Swtpm(endpoint) => {
            let stream =
                TcpStream::connect((endpoint.host.as_str(), endpoint.port)).map_err(absent)?;
            stream.set_nodelay(true)?;
            Bridge { tpm: Stream(stream), primary: None }.serve(input, output)
        }
        other => Err(BridgeError::Unsupported(other.to_string())),
    }
}

/// A way to send one command and get its response.
trait Transport {
    fn transact(&mut self, command: &[u8]) -> Result<Vec<u8>, BridgeError>;
}

/// The kernel's device: one write is one command, one read is its whole response.
struct Device(File);

impl Transport for Device {
    fn transact(&mut self, command: &[u8]) -> Result<Vec<u8>, BridgeError> {
        self.0.write_all(command)?;
        let mut response = vec![0; MAX_FRAME_BYTES];
        let len = self.0.read(&mut response)?;
        response.truncate(len);
        Ok(response)
    }
}

/// swtpm's command channel: bare frames one after the other.
struct Stream<S>(S);

impl<S: Read + Write> Transport for Stream<S> {
    fn transact(&mut self, command: &[u8]) -> Result<Vec<u8>, BridgeError> {
        self.0.write_all(command)?;
        self.0.flush()?;
        match frame(&mut self.0, "response")? {
            Some(response) => Ok(response),
            None => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }
}

struct Bridge<T> {
    tpm: T,
    /// The NULL primary, while a caller is between reading and using it.
    primary: Option<u32>,
}

impl<T: Transport> Bridge<T> {
    fn serve(mut self, mut input: impl Read, mut output: impl Write) -> Result<(), BridgeError> {
        let served = self.serve_commands(&mut input, &mut output);
        let released = self.release();
        served.and(released)
    }

    fn serve_commands(
        &mut self,
        input: &mut impl Read,
        output: &mut impl Write,
    ) -> Result<(), BridgeError> {
        while let Some(mut command) = frame(input, "command")? {
            let code = word(&command, 6);
            let names_null = matches!(code, Some(CC_READ_PUBLIC | CC_LOAD))
                && word(&command, HEADER_BYTES) == Some(RH_NULL);
            if names_null && let Some(primary) = self.primary()? {
                replace_word(&mut command, HEADER_BYTES, primary);
            }
            let response = self.tpm.transact(&command)?;
            output.write_all(&response)?;
            output.flush()?;
            if names_null && code == Some(CC_LOAD) {
                // Slots are few: the loaded key does without its parent.
                self.release()?;
            }
        }
        Ok(())
    }

    /// The NULL primary's handle, made where there is none; `None` where the TPM refuses (then the
    /// caller's command goes on as it is and gets the TPM's own error).
    fn primary(&mut self) -> Result<Option<u32>, BridgeError> {
        if self.primary.is_none() {
            let response = self.tpm.transact(&create_primary())?;
            let success = word(&response, 6) == Some(0);
            self.primary = success.then(|| word(&response, HEADER_BYTES)).flatten();
        }
        Ok(self.primary)
    }

    fn release(&mut self) -> Result<(), BridgeError> {
        if let Some(handle) = self.primary.take() {
            let mut body = CC_FLUSH_CONTEXT.to_be_bytes().to_vec();
            body.extend(handle.to_be_bytes());
            self.tpm.transact(&command(ST_NO_SESSIONS, &body))?;
        }
        Ok(())
    }
}

/// Reads one frame; `None` at the end of the stream.
fn frame(from: &mut impl Read, what: &'static str) -> Result<Option<Vec<u8>>, BridgeError> {
    let mut out = vec![0; HEADER_BYTES];
    let mut have = 0;
    while have < HEADER_BYTES {
        let rest = out.get_mut(have..).unwrap_or_default();
        match from.read(rest) {
            Ok(0) if have == 0 => return Ok(None),
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(read) => have += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    let size = word(&out, 2).and_then(|size| usize::try_from(size).ok()).unwrap_or(usize::MAX);
    if !(HEADER_BYTES..=MAX_FRAME_BYTES).contains(&size) {
        return Err(BridgeError::FrameSize { what, size });
    }
    out.resize(size, 0);
    from.read_exact(out.get_mut(HEADER_BYTES..).unwrap_or_default())?;
    Ok(Some(out))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*four))
}

fn replace_word(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(four) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<4>) {
        *four = value.to_be_bytes();
    }
}

/// A command from its tag and what follows the size (code and the rest), far below 4 KiB.
fn command(tag: u16, body: &[u8]) -> Vec<u8> {
    let mut out = tag.to_be_bytes().to_vec();
    let size = u32::try_from(body.len() + 6).unwrap_or(u32::MAX);
    out.extend(size.to_be_bytes());
    out.extend_from_slice(body);
    out
}

/// `TPM2_CreatePrimary(TPM_RH_NULL)` with [`template::null_primary`] and empty passwords.
fn create_primary() -> Vec<u8> {
    let mut body = CC_CREATE_PRIMARY.to_be_bytes().to_vec();
    body.extend(RH_NULL.to_be_bytes());
    // One authorization: password session, empty nonce, no attributes, empty password.
    let mut auth = RS_PASSWORD.to_be_bytes().to_vec();
    auth.extend([0, 0, 0, 0, 0]);
    body.extend(9_u32.to_be_bytes());
    body.extend(auth);
    // inSensitive: empty userAuth, empty data.
    body.extend(sized(&[0, 0, 0, 0]));
    body.extend(sized(&template::null_primary()));
    // outsideInfo, then no creation PCR.
    body.extend([0, 0]);
    body.extend(0_u32.to_be_bytes());
    command(ST_SESSIONS, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIMARY: u32 = 0x8000_0002;

    /// Notes commands; answers success, with a handle to `TPM2_CreatePrimary`.
    #[derive(Default)]
    struct Recorder {
        seen: Vec<Vec<u8>>,
        refuse: bool,
    }

    impl Transport for &mut Recorder {
        fn transact(&mut self, sent: &[u8]) -> Result<Vec<u8>, BridgeError> {
            self.seen.push(sent.to_vec());
            let creates = word(sent, 6) == Some(CC_CREATE_PRIMARY);
            let mut body = if creates && self.refuse { vec![0, 0, 9, 2] } else { vec![0; 4] };
            if creates {
                body.extend(PRIMARY.to_be_bytes());
            }
            Ok(command(ST_NO_SESSIONS, &body))
        }
    }

    fn with_handle(code: u32, handle: u32) -> Vec<u8> {
        let mut body = code.to_be_bytes().to_vec();
        body.extend(handle.to_be_bytes());
        body.extend([1, 2, 3]);
        command(ST_SESSIONS, &body)
    }

    fn bridged(recorder: &mut Recorder, commands: &[Vec<u8>]) -> Result<Vec<u8>, BridgeError> {
        let mut out = Vec::new();
        Bridge { tpm: recorder, primary: None }.serve(commands.concat().as_slice(), &mut out)?;
        Ok(out)
    }

    fn codes(recorder: &Recorder) -> Vec<(u32, Option<u32>)> {
        let code = |sent: &Vec<u8>| (word(sent, 6).unwrap_or(0), word(sent, HEADER_BYTES));
        recorder.seen.iter().map(code).collect()
    }

    #[test]
    fn the_null_hierarchy_becomes_its_primary_and_is_flushed_after_load() {
        let mut recorder = Recorder::default();
        let commands = [with_handle(CC_READ_PUBLIC, RH_NULL), with_handle(CC_LOAD, RH_NULL)];
        let answers = bridged(&mut recorder, &commands).expect("serves");
        assert_eq!(answers.len(), 2 * HEADER_BYTES, "the caller sees two answers only");
        assert_eq!(
            codes(&recorder),
            [
                (CC_CREATE_PRIMARY, Some(RH_NULL)),
                (CC_READ_PUBLIC, Some(PRIMARY)),
                (CC_LOAD, Some(PRIMARY)),
                (CC_FLUSH_CONTEXT, Some(PRIMARY)),
            ]
        );
    }

    #[test]
    fn a_caller_that_only_looks_leaves_nothing_behind() {
        let mut recorder = Recorder::default();
        bridged(&mut recorder, &[with_handle(CC_READ_PUBLIC, RH_NULL)]).expect("serves");
        assert_eq!(codes(&recorder).last(), Some(&(CC_FLUSH_CONTEXT, Some(PRIMARY))));
    }

    #[test]
    fn everything_else_passes_unchanged() {
        let mut recorder = Recorder::default();
        let commands = [
            with_handle(CC_LOAD, 0x8100_0001),
            with_handle(CC_CREATE_PRIMARY, RH_NULL),
            command(ST_NO_SESSIONS, &0x144_u32.to_be_bytes()),
        ];
        bridged(&mut recorder, &commands).expect("serves");
        assert_eq!(recorder.seen, commands);
    }

    #[test]
    fn a_refused_primary_leaves_the_command_to_the_tpm() {
        let mut recorder = Recorder { refuse: true, ..Recorder::default() };
        bridged(&mut recorder, &[with_handle(CC_LOAD, RH_NULL)]).expect("serves");
        assert_eq!(
            codes(&recorder),
            [(CC_CREATE_PRIMARY, Some(RH_NULL)), (CC_LOAD, Some(RH_NULL))]
        );
    }

    #[test]
    fn frames_are_bounded() {
        for size in [0_u32, 9, 4097, u32::MAX] {
            let mut bytes = vec![0x80, 0x01];
            bytes.extend(size.to_be_bytes());
            bytes.extend([0; 4]);
            let error = bridged(&mut Recorder::default(), &[bytes]).expect_err("refused");
            assert!(
                matches!(error, BridgeError::FrameSize { what: "command", size: found } if found == size as usize),
                "{error}"
            );
        }
        let error = bridged(&mut Recorder::default(), &[vec![0x80, 0x01, 0]]).expect_err("cut");
        assert!(matches!(error, BridgeError::Io(_)), "{error}");
    }
}
