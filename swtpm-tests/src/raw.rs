//! A tiny TPM client for the harness: raw command frames over swtpm's data port.
//!
//! It exists so that tests can act on a TPM from outside (extend a PCR, reset, clear, lock out)
//! without the code under test, and without libtss2. One connection for each command: swtpm serves
//! one client at a time, and so does its TCTI, which is why both interleave freely.
//!
//! # Source
//! TPM 2.0 Library, Part 3: Commands (frames and codes); Part 2: Structures.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use aws_lc_rs::digest;

/// A PCR bank that a software TPM can allocate; SHA-1 included, because real firmware extends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bank {
    /// `TPM_ALG_SHA1`.
    Sha1,
    /// `TPM_ALG_SHA256`.
    Sha256,
    /// `TPM_ALG_SHA384`.
    Sha384,
    /// `TPM_ALG_SHA512`.
    Sha512,
}

impl Bank {
    /// All banks, ascending by `TPM_ALG_ID`.
    pub const ALL: [Self; 4] = [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512];

    /// `TPM_ALG_ID`.
    #[must_use]
    pub const fn tpm_id(self) -> u16 {
        match self {
            Self::Sha1 => 0x0004,
            Self::Sha256 => 0x000B,
            Self::Sha384 => 0x000C,
            Self::Sha512 => 0x000D,
        }
    }

    /// Name as swtpm_setup and the golden sets write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// Size of a digest, bytes.
    #[must_use]
    pub fn len_bytes(self) -> usize {
        self.algorithm().output_len()
    }

    /// Hash of `data`.
    #[must_use]
    pub fn hash(self, data: &[u8]) -> Vec<u8> {
        digest::digest(self.algorithm(), data).as_ref().to_vec()
    }

    fn algorithm(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        }
    }
}

/// `TPM_RH_OWNER`.
pub const RH_OWNER: u32 = 0x4000_0001;
/// `TPM_RH_NULL`.
pub const RH_NULL: u32 = 0x4000_0007;
/// `TPM_RH_LOCKOUT`.
pub const RH_LOCKOUT: u32 = 0x4000_000A;
/// `TPM_RH_ENDORSEMENT`.
pub const RH_ENDORSEMENT: u32 = 0x4000_000B;
/// `TPM_RH_PLATFORM`.
pub const RH_PLATFORM: u32 = 0x4000_000C;
/// `TPM_RS_PW`: the password session.
const RS_PW: u32 = 0x4000_0009;

/// `TPM_SU_CLEAR`.
pub const SU_CLEAR: u16 = 0x0000;
/// `TPM_SU_STATE`.
pub const SU_STATE: u16 = 0x0001;

/// `TPM_RC_INITIALIZE`: the TPM needs `TPM2_Startup`, or has had one already.
pub const RC_INITIALIZE: u32 = 0x100;
/// `TPM_RC_LOCKOUT`: dictionary-attack lockout.
pub const RC_LOCKOUT: u32 = 0x921;
/// `TPM_RC_RETRY`: send it again; so answers the first use of a protected object after a reset.
const RC_RETRY: u32 = 0x922;
/// How often a command is sent again.
const MAX_RETRIES: u32 = 8;

/// First transient handle.
pub const TRANSIENT_FIRST: u32 = 0x8000_0000;
/// First handle of a loaded session (HMAC or policy).
pub const LOADED_SESSION_FIRST: u32 = 0x0200_0000;
/// First persistent handle.
pub const PERSISTENT_FIRST: u32 = 0x8100_0000;
/// First NV index.
pub const NV_INDEX_FIRST: u32 = 0x0100_0000;

/// Frame header: tag, size, code.
const HEADER_BYTES: usize = 10;
/// Largest frame; swtpm's own buffer has 4096 bytes.
pub const MAX_FRAME_BYTES: usize = 4096;
/// Largest `TPM2_NV_Write` and `TPM2_NV_Read` piece (`TPM_PT_NV_BUFFER_MAX` of libtpms is 1024).
const NV_CHUNK_BYTES: usize = 1024;
/// RSA-3072 key generation takes up to some seconds on a slow machine.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// Code of a TPM command.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandCode(pub u32);

macro_rules! command_codes {
    ($($konst:ident $code:literal $name:literal;)*) => {
        impl CommandCode {
            $(#[doc = $name] pub const $konst: Self = Self($code);)*

            /// The command's name in the specification, if it is one that is known here.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 { $($code => Some($name),)* _ => None }
            }
        }
    };
}

command_codes! {
    EVICT_CONTROL 0x120 "TPM2_EvictControl";
    NV_UNDEFINE_SPACE 0x122 "TPM2_NV_UndefineSpace";
    CLEAR 0x126 "TPM2_Clear";
    HIERARCHY_CHANGE_AUTH 0x129 "TPM2_HierarchyChangeAuth";
    NV_DEFINE_SPACE 0x12A "TPM2_NV_DefineSpace";
    CREATE_PRIMARY 0x131 "TPM2_CreatePrimary";
    NV_WRITE 0x137 "TPM2_NV_Write";
    DICTIONARY_ATTACK_LOCK_RESET 0x139 "TPM2_DictionaryAttackLockReset";
    NV_CHANGE_AUTH 0x13B "TPM2_NV_ChangeAuth";
    PCR_RESET 0x13D "TPM2_PCR_Reset";
    INCREMENTAL_SELF_TEST 0x142 "TPM2_IncrementalSelfTest";
    SELF_TEST 0x143 "TPM2_SelfTest";
    STARTUP 0x144 "TPM2_Startup";
    SHUTDOWN 0x145 "TPM2_Shutdown";
    STIR_RANDOM 0x146 "TPM2_StirRandom";
    ACTIVATE_CREDENTIAL 0x147 "TPM2_ActivateCredential";
    CERTIFY 0x148 "TPM2_Certify";
    CERTIFY_CREATION 0x14A "TPM2_CertifyCreation";
    NV_READ 0x14E "TPM2_NV_Read";
    POLICY_SECRET 0x151 "TPM2_PolicySecret";
    CREATE 0x153 "TPM2_Create";
    LOAD 0x157 "TPM2_Load";
    QUOTE 0x158 "TPM2_Quote";
    SIGN 0x15D "TPM2_Sign";
    UNSEAL 0x15E "TPM2_Unseal";
    CONTEXT_LOAD 0x161 "TPM2_ContextLoad";
    CONTEXT_SAVE 0x162 "TPM2_ContextSave";
    FLUSH_CONTEXT 0x165 "TPM2_FlushContext";
    LOAD_EXTERNAL 0x167 "TPM2_LoadExternal";
    MAKE_CREDENTIAL 0x168 "TPM2_MakeCredential";
    NV_READ_PUBLIC 0x169 "TPM2_NV_ReadPublic";
    POLICY_AUTH_VALUE 0x16B "TPM2_PolicyAuthValue";
    POLICY_COMMAND_CODE 0x16C "TPM2_PolicyCommandCode";
    POLICY_OR 0x171 "TPM2_PolicyOR";
    READ_PUBLIC 0x173 "TPM2_ReadPublic";
    START_AUTH_SESSION 0x176 "TPM2_StartAuthSession";
    VERIFY_SIGNATURE 0x177 "TPM2_VerifySignature";
    GET_CAPABILITY 0x17A "TPM2_GetCapability";
    GET_RANDOM 0x17B "TPM2_GetRandom";
    GET_TEST_RESULT 0x17C "TPM2_GetTestResult";
    HASH 0x17D "TPM2_Hash";
    PCR_READ 0x17E "TPM2_PCR_Read";
    POLICY_PCR 0x17F "TPM2_PolicyPCR";
    POLICY_RESTART 0x180 "TPM2_PolicyRestart";
    READ_CLOCK 0x181 "TPM2_ReadClock";
    PCR_EXTEND 0x182 "TPM2_PCR_Extend";
    TEST_PARMS 0x18A "TPM2_TestParms";
    CREATE_LOADED 0x191 "TPM2_CreateLoaded";
}

impl fmt::Display for CommandCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "TPM command {:#x}", self.0),
        }
    }
}

impl fmt::Debug for CommandCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a raw command did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum RawError {
    /// The connection to the TPM failed.
    #[error("{command}: no answer from the TPM")]
    Io {
        /// What was sent.
        command: CommandCode,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The TPM answered with an error.
    #[error("{command}: the TPM answered {code:#x}")]
    Response {
        /// What was sent.
        command: CommandCode,
        /// `TPM_RC`.
        code: u32,
    },
    /// The answer is not what the command's answer looks like.
    #[error("{command}: the TPM's answer is malformed")]
    Malformed {
        /// What was sent.
        command: CommandCode,
    },
}

impl RawError {
    /// The `TPM_RC`, where the TPM answered one.
    #[must_use]
    pub const fn response_code(&self) -> Option<u32> {
        match self {
            Self::Response { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// Counters of `TPM2_ReadClock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Milliseconds since the clock was set.
    pub clock_ms: u64,
    /// TPM resets.
    pub reset_count: u32,
    /// Resumes and restarts since the last reset.
    pub restart_count: u32,
    /// The clock was not set back by a power cut.
    pub safe: bool,
}

/// A primary key made for the harness.
#[derive(Clone, Debug)]
pub struct Primary {
    /// Transient handle; flush it.
    pub handle: u32,
    /// `TPMT_PUBLIC`, without its size.
    pub public: Vec<u8>,
}

/// A TPM behind a TCP port that takes raw frames.
#[derive(Clone, Copy, Debug)]
pub struct RawTpm {
    address: SocketAddr,
}

impl RawTpm {
    /// The TPM whose data port is `port` on 127.0.0.1. Does not connect yet.
    #[must_use]
    pub fn at(port: u16) -> Self {
        Self { address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)) }
    }

    /// Sends one frame and returns the answer's frame, both as they are.
    ///
    /// # Errors
    /// The connection failed, or the answer's declared size is out of bounds.
    pub fn transmit(&self, frame: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(COMMAND_TIMEOUT))?;
        stream.set_write_timeout(Some(COMMAND_TIMEOUT))?;
        stream.write_all(frame)?;
        read_frame(&mut stream)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Sends a command without session and returns the parameters of its answer.
    ///
    /// # Errors
    /// [`RawError`].
    pub fn plain(&self, command: CommandCode, body: &[u8]) -> Result<Vec<u8>, RawError> {
        self.exchange(0x8001, command, body)
    }

    /// Sends a command whose first handle is authorised with a password, and returns its handle area
    /// and parameters (the response's size field and sessions removed).
    ///
    /// # Errors
    /// [`RawError`].
    pub fn with_password(
        &self,
        command: CommandCode,
        handles: &[u32],
        password: &[u8],
        parameters: &[u8],
        response_handles: usize,
    ) -> Result<(Vec<u8>, Vec<u8>), RawError> {
        self.with_passwords(command, handles, &[password], parameters, response_handles)
    }

    /// [`Self::with_password`] for commands that want several handles authorised, in order.
    ///
    /// # Errors
    /// [`RawError`].
    pub fn with_passwords(
        &self,
        command: CommandCode,
        handles: &[u32],
        passwords: &[&[u8]],
        parameters: &[u8],
        response_handles: usize,
    ) -> Result<(Vec<u8>, Vec<u8>), RawError> {
        let mut body = Vec::new();
        for handle in handles {
            body.extend_from_slice(&handle.to_be_bytes());
        }
        let mut authorization = Vec::new();
        for password in passwords {
            authorization.extend_from_slice(&RS_PW.to_be_bytes());
            authorization.extend_from_slice(&[0, 0, 0]);
            authorization.extend_from_slice(&sized(password));
        }
        body.extend_from_slice(&len_u32(authorization.len()).to_be_bytes());
        body.extend_from_slice(&authorization);
        body.extend_from_slice(parameters);
        let answer = self.exchange(0x8002, command, &body)?;
        let malformed = || RawError::Malformed { command };
        let (handle_area, rest) =
            answer.split_at_checked(response_handles * 4).ok_or_else(malformed)?;
        let (size, rest) = rest.split_first_chunk::<4>().ok_or_else(malformed)?;
        let size = usize::try_from(u32::from_be_bytes(*size)).unwrap_or(usize::MAX);
        let parameters = rest.get(..size).ok_or_else(malformed)?;
        Ok((handle_area.to_vec(), parameters.to_vec()))
    }

    fn exchange(&self, tag: u16, command: CommandCode, body: &[u8]) -> Result<Vec<u8>, RawError> {
        let mut frame = Vec::with_capacity(HEADER_BYTES + body.len());
        frame.extend_from_slice(&tag.to_be_bytes());
        frame.extend_from_slice(&len_u32(HEADER_BYTES + body.len()).to_be_bytes());
        frame.extend_from_slice(&command.0.to_be_bytes());
        frame.extend_from_slice(body);
        let mut retries = 0;
        loop {
            let answer =
                self.transmit(&frame).map_err(|source| RawError::Io { command, source })?;
            match frame_code(&answer) {
                Some(0) => return Ok(answer.get(HEADER_BYTES..).unwrap_or_default().to_vec()),
                Some(RC_RETRY) if retries < MAX_RETRIES => retries += 1,
                Some(code) => return Err(RawError::Response { command, code }),
                None => return Err(RawError::Malformed { command }),
            }
        }
    }

    /// `TPM2_Startup`.
    ///
    /// # Errors
    /// [`RawError`].
    pub fn startup(&self, kind: u16) -> Result<(), RawError> {
        self.plain(CommandCode::STARTUP, &kind.to_be_bytes()).map(drop)
    }

    /// `TPM2_Shutdown`.
    ///
    /// # Errors
    /// [`RawError`].
    pub fn shutdown(&self, kind: u16) -> Result<(), RawError> {
        self.plain(CommandCode::SHUTDOWN, &kind.to_be_bytes()).map(drop)
    }

    /// `TPM2_ReadClock`.
    ///
    /// # Errors
    /// [`RawError`].
    pub fn clock(&self) -> Result<Clock, RawError> {
        let command = CommandCode::READ_CLOCK;
        let answer = self.plain(command, &[])?;
        // TPMS_TIME_INFO: time, then TPMS_CLOCK_INFO.
        let mut cursor = Cursor::new(&answer, command);
        cursor.take::<8>()?;
        Ok(Clock {
            clock_ms: u64::from_be_bytes(cursor.take()?),
            reset_count: u32::from_be_bytes(cursor.take()?),
            restart_count: u32::from_be_bytes(cursor.take()?),
            safe: cursor.take::<1>()? != [0],
        })
    }

    /// `TPM2_PCR_Extend` with one digest for each bank given.
    ///
    /// # Errors
    /// [`RawError`].
    pub fn pcr_extend(&self, pcr: u8, digests: &[(Bank, Vec<u8>)]) -> Result<(), RawError> {
        let mut parameters = Vec::from(len_u32(digests.len()).to_be_bytes());
        for (bank, digest) in digests {
            parameters.extend_from_slice(&bank.tpm_id().to_be_bytes());
            parameters.extend_from_slice(digest);
        }
        self.with_password(CommandCode::PCR_EXTEND, &[pcr.into()], &[], &parameters, 0)?;
        Ok(())
    }

    /// Extends `pcr` in every bank of `banks` with the bank's hash of `data`.
    ///
    /// # Errors
    /// [`RawError`].
    pub fn pcr_extend_data(&self, pcr: u8, banks: &[Bank], data: &[u8]) -> Result<(), RawError> {
        let digests: Vec<_> = banks.iter().map(|bank| (*bank, bank.hash(data))).collect();
        self.pcr_extend(pcr, &digests)
    }

    /// `TPM2_PCR_Read` of one PCR of one bank; `None` where the bank is not allocated.
    ///
    /// # Errors
    /// [`RawError`].
    pub fn pcr_read(&self, bank: Bank, pcr: u8) -> Result<Option<Vec<u8>>, RawError> {
        let command = CommandCode::PCR_READ;
        let mut body = Vec::from(1u32.to_be_bytes());
        body.extend_from_slice(&bank.tpm_id().to_be_bytes());
        body.push(3);
        body.extend_from_slice(&(1u32 << pcr).to_le_bytes()[..3]);
        let answer = self.plain(command, &body)?;
        let mut cursor = Cursor::new(&answer, command);
        cursor.take::<4>()?;
        let selections = u32::from_be_bytes(cursor.take()?);
        for _ in 0..selections {
            cursor.take::<2>()?;
            let [size] = cursor.take()?;
            cursor.skip(size.into())?;
        }
        if u32::from_be_bytes(cursor.take()?) == 0 {
            return Ok(None);
        }
        Ok(Some(cursor.sized()?.to_vec()))
    }

    /// Handles of one range that exist (`TPM_CAP_HANDLES`), at most 64.
    ///
    /// # Errors
    /// [`RawError`].
    pub fn handles(&self, first: u32) -> Result<Vec<u32>, RawError> {
        let command = CommandCode::GET_CAPABILITY;
        let mut body = Vec::from(1u32.to_be_bytes());
        body.extend_from_slice(&first.to_be_bytes());
        body.extend_from_slice(&64u32.to_be_bytes());
        let answer = self.plain(command, &body)?;
        let mut cursor = Cursor::new(&answer, command);
        cursor.take::<5>()?;
        let count = u32::from_be_bytes(cursor.take()?);
        let range = first >> 24;
        let mut out = Vec::new();
        for _ in 0..count {
            let handle = u32::from_be_bytes(cursor.take()?);
            if handle >> 24 == range {
                out.push(handle);
            }
        }
        Ok(out)
    }

    /// `TPM2_CreatePrimary` of `template` (`TPMT_PUBLIC`) with an optional key password.
    ///
    /// # Errors
    /// [`RawError`].
    pub fn create_primary(
        &self,
        hierarchy: u32,
        hierarchy_password: &[u8],
        key_password: &[u8],
        template: &[u8],
    ) -> Result<Primary, RawError> {
        let command = CommandCode::CREATE_PRIMARY;
        let mut sensitive = sized(key_password);
        sensitive.extend_from_slice(&[0, 0]);
        let mut parameters = sized(&sensitive);
        parameters.extend_from_slice(&sized(template));
        // No outsideInfo, no creationPCR.
        parameters.extend_from_slice(&[0, 0, 0, 0, 0, 0]);
        let (handle, answer) =
            self.with_password(command, &[hierarchy], hierarchy_password, &parameters, 1)?;
        let handle = Cursor::new(&handle, command).take()?;
        let public = Cursor::new(&answer, command).sized()?.to_vec();
        Ok(Primary { handle: u32::from_be_bytes(handle), public })
    }

    /// `TPM2_FlushContext`.
    ///
    /// # Errors
    /// [`RawError`].
    pub fn flush(&self, handle: u32) -> Result<(), RawError> {
        self.plain(CommandCode::FLUSH_CONTEXT, &handle.to_be_bytes()).map(drop)
    }

    /// `TPM2_Sign` of a SHA-256 digest with the key's own scheme.
    ///
    /// # Errors
    /// [`RawError`].
    pub fn sign(&self, key: u32, password: &[u8], digest: &[u8; 32]) -> Result<Vec<u8>, RawError> {
        let mut parameters = sized(digest);
        // Scheme TPM_ALG_NULL; an empty hash-check ticket of the NULL hierarchy.
        parameters.extend_from_slice(&[0x00, 0x10, 0x80, 0x24]);
        parameters.extend_from_slice(&RH_NULL.to_be_bytes());
        parameters.extend_from_slice(&[0, 0]);
        let (_, signature) =
            self.with_password(CommandCode::SIGN, &[key], password, &parameters, 0)?;
        Ok(signature)
    }

    /// `TPM2_Quote` by a key without password and with a scheme of its own: `TPMS_ATTEST` and
    /// `TPMT_SIGNATURE`. `selection`: banks with their PCRs, bit i for PCR i.
    ///
    /// # Errors
    /// [`RawError`].
    pub fn quote(
        &self,
        key: u32,
        qualifying_data: &[u8],
        selection: &[(Bank, u32)],
    ) -> Result<(Vec<u8>, Vec<u8>), RawError> {
        let mut parameters = sized(qualifying_data);
        // The key's own scheme.
        parameters.extend_from_slice(&[0x00, 0x10]);
        parameters.extend_from_slice(&len_u32(selection.len()).to_be_bytes());
        for (bank, bits) in selection {
            parameters.extend_from_slice(&bank.tpm_id().to_be_bytes());
            parameters.push(3);
            parameters.extend_from_slice(&bits.to_le_bytes()[..3]);
        }
        let command = CommandCode::QUOTE;
        let (_, answer) = self.with_password(command, &[key], &[], &parameters, 0)?;
        attest_and_signature(&answer, command)
    }

    /// `TPM2_Certify` of `object` by `key`, both without password.
    ///
    /// # Errors
    /// [`RawError`].
    pub fn certify(
        &self,
        object: u32,
        key: u32,
        qualifying_data: &[u8],
    ) -> Result<(Vec<u8>, Vec<u8>), RawError> {
        let mut parameters = sized(qualifying_data);
        parameters.extend_from_slice(&[0x00, 0x10]);
        let command = CommandCode::CERTIFY;
        let (_, answer) =
            self.with_passwords(command, &[object, key], &[&[], &[]], &parameters, 0)?;
        attest_and_signature(&answer, command)
    }

    /// `TPM2_HierarchyChangeAuth`.
    ///
    /// # Errors
    /// [`RawError`].
    pub fn change_hierarchy_auth(
        &self,
        hierarchy: u32,
        old: &[u8],
        new: &[u8],
    ) -> Result<(), RawError> {
        let command = CommandCode::HIERARCHY_CHANGE_AUTH;
        self.with_password(command, &[hierarchy], old, &sized(new), 0).map(drop)
    }

    /// `TPM2_NV_DefineSpace` by the platform and `TPM2_NV_Write`, replacing what is there.
    ///
    /// Attributes are those of an EK certificate by a manufacturer: the platform writes and deletes,
    /// everybody reads without password, no dictionary-attack protection.
    ///
    /// # Errors
    /// [`RawError`].
    pub fn nv_store(&self, index: u32, data: &[u8]) -> Result<(), RawError> {
        if self.handles(NV_INDEX_FIRST)?.contains(&index) {
            self.nv_remove(index)?;
        }
        // PPWRITE, WRITEDEFINE, PPREAD, OWNERREAD, AUTHREAD, NO_DA, PLATFORMCREATE.
        const ATTRIBUTES: u32 = 0x4207_2001;
        let size = u16::try_from(data.len()).unwrap_or(u16::MAX);
        let mut public = Vec::from(index.to_be_bytes());
        public.extend_from_slice(&Bank::Sha256.tpm_id().to_be_bytes());
        public.extend_from_slice(&ATTRIBUTES.to_be_bytes());
        public.extend_from_slice(&[0, 0]);
        public.extend_from_slice(&size.to_be_bytes());
        let mut parameters = vec![0, 0];
        parameters.extend_from_slice(&sized(&public));
        let define = CommandCode::NV_DEFINE_SPACE;
        self.with_password(define, &[RH_PLATFORM], &[], &parameters, 0)?;
        for (piece, chunk) in data.chunks(NV_CHUNK_BYTES).enumerate() {
            let offset = u16::try_from(piece * NV_CHUNK_BYTES).unwrap_or(u16::MAX);
            let mut parameters = sized(chunk);
            parameters.extend_from_slice(&offset.to_be_bytes());
            let write = CommandCode::NV_WRITE;
            self.with_password(write, &[RH_PLATFORM, index], &[], &parameters, 0)?;
        }
        Ok(())
    }

    /// `TPM2_NV_UndefineSpace` by the platform.
    ///
    /// # Errors
    /// [`RawError`].
    pub fn nv_remove(&self, index: u32) -> Result<(), RawError> {
        let command = CommandCode::NV_UNDEFINE_SPACE;
        self.with_password(command, &[RH_PLATFORM, index], &[], &[], 0).map(drop)
    }

    /// All bytes of an NV index, read with its own empty password.
    ///
    /// # Errors
    /// [`RawError`].
    pub fn nv_read(&self, index: u32) -> Result<Vec<u8>, RawError> {
        let command = CommandCode::NV_READ_PUBLIC;
        let answer = self.plain(command, &index.to_be_bytes())?;
        let public = Cursor::new(&answer, command).sized()?;
        let size = public
            .split_last_chunk::<2>()
            .map(|(_, size)| usize::from(u16::from_be_bytes(*size)))
            .ok_or(RawError::Malformed { command })?;
        let command = CommandCode::NV_READ;
        let mut out = Vec::with_capacity(size);
        while out.len() < size {
            let piece = (size - out.len()).min(NV_CHUNK_BYTES);
            let mut parameters = Vec::from(u16::try_from(piece).unwrap_or(0).to_be_bytes());
            parameters.extend_from_slice(&u16::try_from(out.len()).unwrap_or(0).to_be_bytes());
            let (_, answer) = self.with_password(command, &[index, index], &[], &parameters, 0)?;
            let bytes = Cursor::new(&answer, command).sized()?;
            if bytes.is_empty() {
                return Err(RawError::Malformed { command });
            }
            out.extend_from_slice(bytes);
        }
        Ok(out)
    }
}

/// Reads one frame by its own size field; `None` where the peer closed before the first byte.
///
/// # Errors
/// The connection failed, or the size is out of bounds.
pub fn read_frame(stream: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut frame = vec![0; HEADER_BYTES];
    let mut filled = 0;
    while filled < HEADER_BYTES {
        let read = stream.read(frame.get_mut(filled..).unwrap_or_default())?;
        if read == 0 {
            return if filled == 0 { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        filled += read;
    }
    let size = frame.get(2..6).and_then(|b| <[u8; 4]>::try_from(b).ok()).map(u32::from_be_bytes);
    let size = size.and_then(|size| usize::try_from(size).ok()).unwrap_or(0);
    if !(HEADER_BYTES..=MAX_FRAME_BYTES).contains(&size) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "TPM frame size out of bounds"));
    }
    frame.resize(size, 0);
    stream.read_exact(frame.get_mut(HEADER_BYTES..).unwrap_or_default())?;
    Ok(Some(frame))
}

/// The command code of a command frame, or the response code of a response frame.
#[must_use]
pub fn frame_code(frame: &[u8]) -> Option<u32> {
    frame.get(6..HEADER_BYTES)?.try_into().ok().map(u32::from_be_bytes)
}

fn attest_and_signature(
    answer: &[u8],
    command: CommandCode,
) -> Result<(Vec<u8>, Vec<u8>), RawError> {
    let mut cursor = Cursor::new(answer, command);
    let attest = cursor.sized()?.to_vec();
    Ok((attest, cursor.rest.to_vec()))
}

/// A `TPM2B`.
pub(crate) fn sized(bytes: &[u8]) -> Vec<u8> {
    proto::tpm::credential::sized(bytes)
}

fn len_u32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// Reads an answer's parameters in order.
struct Cursor<'a> {
    rest: &'a [u8],
    command: CommandCode,
}

impl<'a> Cursor<'a> {
    const fn new(rest: &'a [u8], command: CommandCode) -> Self {
        Self { rest, command }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], RawError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(self.malformed())?;
        self.rest = rest;
        Ok(*head)
    }

    fn skip(&mut self, len: usize) -> Result<&'a [u8], RawError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(self.malformed())?;
        self.rest = rest;
        Ok(head)
    }

    fn sized(&mut self) -> Result<&'a [u8], RawError> {
        let len = u16::from_be_bytes(self.take()?);
        self.skip(len.into())
    }

    const fn malformed(&self) -> RawError {
        RawError::Malformed { command: self.command }
    }
}
