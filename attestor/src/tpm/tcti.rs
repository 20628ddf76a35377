//! Where the TPM is: TCTI strings, parsed by us and refused where anything in them would be ignored.
//!
//! The form is that of the TSS (`device:/dev/tpmrm0`, `swtpm:host=127.0.0.1,port=2321`), so that one
//! string serves tpm2-tools and us. The TSS bindings drop what they do not know (`swtpm:path=/run/x`
//! would silently talk to port 2321 of this machine): here an unknown key is an error.

use std::{
    fmt, fs, io,
    net::{TcpStream, ToSocketAddrs},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The kernel's resource-managed device; used where nothing else is configured.
pub const DEFAULT_DEVICE: &str = "/dev/tpmrm0";
/// Port of a TPM simulator where none is given, as in the TSS.
const DEFAULT_PORT: u16 = 2321;
/// Host of a TPM simulator where none is given.
const DEFAULT_HOST: &str = "localhost";
/// D-Bus name of tpm2-abrmd.
const DEFAULT_BUS_NAME: &str = "com.intel.tss2.Tabrmd";
/// Time a diagnosis waits for a simulator's port.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// A way to a TPM.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tcti {
    /// A character device of the kernel.
    Device(PathBuf),
    /// swtpm on a TCP port (its control channel on the next one).
    Swtpm(Endpoint),
    /// The Microsoft or IBM simulator on a TCP port (platform commands on the next one).
    Mssim(Endpoint),
    /// The access broker tpm2-abrmd on D-Bus.
    Tabrmd {
        /// D-Bus name.
        bus_name: String,
        /// The session bus instead of the system bus.
        session_bus: bool,
    },
}

/// Host and port of a TPM simulator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Name or address.
    pub host: String,
    /// Port for TPM commands; the control or platform channel is the next one.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host={},port={}", self.host, self.port)
    }
}

impl Default for Tcti {
    fn default() -> Self {
        Self::Device(PathBuf::from(DEFAULT_DEVICE))
    }
}

impl fmt::Display for Tcti {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(path) => write!(f, "device:{}", path.display()),
            Self::Swtpm(endpoint) => write!(f, "swtpm:{endpoint}"),
            Self::Mssim(endpoint) => write!(f, "mssim:{endpoint}"),
            Self::Tabrmd { bus_name, session_bus } => {
                let bus_type = if *session_bus { "session" } else { "system" };
                write!(f, "tabrmd:bus_name={bus_name},bus_type={bus_type}")
            }
        }
    }
}

/// Why a TCTI string was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TctiError {
    /// Nothing before the colon that we know.
    #[error(
        "TCTI {0:?} is not one of device:PATH, swtpm:host=HOST,port=PORT, mssim:host=HOST,port=PORT, \
         tabrmd:bus_name=NAME,bus_type=system|session"
    )]
    UnknownKind(String),
    /// A key that this kind does not have.
    #[error("TCTI {kind}: key {key:?} is not known, it takes {known}")]
    UnknownKey {
        /// `swtpm`, `mssim` or `tabrmd`.
        kind: &'static str,
        /// The key.
        key: String,
        /// What there is.
        known: &'static str,
    },
    /// swtpm on a Unix socket.
    #[error(
        "TCTI {kind}: path= is not supported, libtss2 would ignore it and talk to port 2321; \
         start swtpm with --server type=tcp,port=N --ctrl type=tcp,port=N+1 and give host= and port="
    )]
    UnixSocket {
        /// `swtpm` or `mssim`.
        kind: &'static str,
    },
    /// `key` without `=value`, or with an empty value.
    #[error("TCTI {kind}: {key} has no value")]
    NoValue {
        /// The kind.
        kind: &'static str,
        /// The key, or the whole part where there is no `=`.
        key: String,
    },
    /// One key twice.
    #[error("TCTI {kind}: {key} is given twice")]
    Repeated {
        /// The kind.
        kind: &'static str,
        /// The key.
        key: String,
    },
    /// A value that cannot be.
    #[error("TCTI {kind}: {key}={value} is not {expected}")]
    BadValue {
        /// The kind.
        kind: &'static str,
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
}

impl FromStr for Tcti {
    type Err = TctiError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        match kind {
            "device" if rest.is_empty() => Ok(Self::default()),
            "device" if rest.starts_with('/') => Ok(Self::Device(PathBuf::from(rest))),
            "device" => Err(TctiError::BadValue {
                kind: "device",
                key: "path",
                value: rest.to_owned(),
                expected: "an absolute path",
            }),
            "swtpm" => Ok(Self::Swtpm(endpoint("swtpm", rest)?)),
            "mssim" => Ok(Self::Mssim(endpoint("mssim", rest)?)),
            "tabrmd" => tabrmd(rest),
            _ => Err(TctiError::UnknownKind(text.to_owned())),
        }
    }
}

impl Serialize for Tcti {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Tcti {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// `key=value` parts of a TCTI string; every key once, every value non-empty.
fn pairs<'a>(kind: &'static str, text: &'a str) -> Result<Vec<(&'a str, &'a str)>, TctiError> {
    let mut out: Vec<(&str, &str)> = Vec::new();
    if text.is_empty() {
        return Ok(out);
    }
    for part in text.split(',') {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        if key == "path" && kind != "tabrmd" {
            return Err(TctiError::UnixSocket { kind });
        }
        if value.is_empty() {
            return Err(TctiError::NoValue { kind, key: key.to_owned() });
        }
        if out.iter().any(|(known, _)| *known == key) {
            return Err(TctiError::Repeated { kind, key: key.to_owned() });
        }
        out.push((key, value));
    }
    Ok(out)
}

fn endpoint(kind: &'static str, text: &str) -> Result<Endpoint, TctiError> {
    let mut out = Endpoint { host: DEFAULT_HOST.to_owned(), port: DEFAULT_PORT };
    for (key, value) in pairs(kind, text)? {
        match key {
            "host" if is_host(value) => value.clone_into(&mut out.host),
            "host" => {
                return Err(TctiError::BadValue {
                    kind,
                    key: "host",
                    value: value.to_owned(),
                    expected: "a host name or an IP address",
                });
            }
            // The control channel is port + 1, so the last port cannot be used.
            "port" => match value.parse::<u16>() {
                Ok(port) if (1..u16::MAX).contains(&port) => out.port = port,
                _ => {
                    return Err(TctiError::BadValue {
                        kind,
                        key: "port",
                        value: value.to_owned(),
                        expected: "a port between 1 and 65534",
                    });
                }
            },
            _ => {
                return Err(TctiError::UnknownKey {
                    kind,
                    key: key.to_owned(),
                    known: "host and port",
                });
            }
        }
    }
    Ok(out)
}

/// An IP address, or a host name as RFC 1123 has it.
fn is_host(text: &str) -> bool {
    if text.parse::<std::net::IpAddr>().is_ok() {
        return true;
    }
    text.len() <= 253
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        })
}

fn tabrmd(text: &str) -> Result<Tcti, TctiError> {
    let mut name = DEFAULT_BUS_NAME.to_owned();
    let mut session_bus = false;
    for (key, value) in pairs("tabrmd", text)? {
        match key {
            "bus_name" if is_bus_name(value) => value.clone_into(&mut name),
            "bus_name" => {
                return Err(TctiError::BadValue {
                    kind: "tabrmd",
                    key: "bus_name",
                    value: value.to_owned(),
                    expected: "a D-Bus name with at least one dot",
                });
            }
            "bus_type" => {
                session_bus = match value {
                    "session" => true,
                    "system" => false,
                    _ => {
                        return Err(TctiError::BadValue {
                            kind: "tabrmd",
                            key: "bus_type",
                            value: value.to_owned(),
                            expected: "system or session",
                        });
                    }
                }
            }
            _ => {
                return Err(TctiError::UnknownKey {
                    kind: "tabrmd",
                    key: key.to_owned(),
                    known: "bus_name and bus_type",
                });
            }
        }
    }
    Ok(Tcti::Tabrmd { bus_name: name, session_bus })
}

fn is_bus_name(text: &str) -> bool {
    text.contains('.')
        && text.split('.').all(|part| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        })
}

/// Why there is no TPM at the end of a [`Tcti`], and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// What was found.
    pub what: String,
    /// What the operator can do, one sentence.
    pub remedy: String,
}

impl Tcti {
    /// Whether no resource manager stands between us and the TPM: then what is loaded is ours, or
    /// was left behind by a process that was killed.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        match self {
            Self::Swtpm(_) | Self::Mssim(_) => true,
            Self::Device(path) => {
                path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with("tpmrm"))
            }
            Self::Tabrmd { .. } => false,
        }
    }

    /// Looks why opening this TCTI failed; called only after it did.
    #[must_use]
    pub fn diagnose(&self) -> Diagnosis {
        match self {
            Self::Device(path) => match fs::OpenOptions::new().read(true).write(true).open(path) {
                Err(error) => device_error(path, &error),
                Ok(_) => Diagnosis {
                    what: format!("{} opens, but does not answer as a TPM 2.0", path.display()),
                    remedy:
                        "check that it is a TPM 2.0 (cat /sys/class/tpm/tpm0/tpm_version_major \
                             must say 2) and read the kernel log (dmesg | grep -i tpm)"
                            .to_owned(),
                },
            },
            Self::Swtpm(endpoint) => endpoint_error("swtpm", endpoint),
            Self::Mssim(endpoint) => endpoint_error("the TPM simulator", endpoint),
            Self::Tabrmd { bus_name, .. } => Diagnosis {
                what: format!(
                    "{bus_name} does not answer on D-Bus, or libtss2-tcti-tabrmd is missing"
                ),
                remedy: format!(
                    "start tpm2-abrmd, or use the kernel's resource manager: device:{DEFAULT_DEVICE}"
                ),
            },
        }
    }
}

fn device_error(path: &std::path::Path, error: &io::Error) -> Diagnosis {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => Diagnosis {
            what: format!("{shown} does not exist"),
            remedy: "enable the TPM (fTPM, PTT or security device) in the firmware setup, load its \
                     driver (modprobe tpm_crb or tpm_tis), or on a virtual machine add a vTPM device"
                .to_owned(),
        },
        io::ErrorKind::PermissionDenied => Diagnosis {
            what: format!("{shown} may not be opened by this user"),
            remedy: "run as root or as a member of the group that owns the device (usermod -aG tss \
                     USER on Debian and Ubuntu), or set Group=tss in the systemd unit"
                .to_owned(),
        },
        io::ErrorKind::ResourceBusy => Diagnosis {
            what: format!("{shown} is held open by another process"),
            remedy: format!(
                "use the resource-managed device instead: device:{DEFAULT_DEVICE}, or stop the other \
                 process (fuser -v {shown})"
            ),
        },
        _ => Diagnosis {
            what: format!("{shown} cannot be opened: {error}"),
            remedy: "read the kernel log (dmesg | grep -i tpm)".to_owned(),
        },
    }
}

/// Knocks at the control port: a connection to the command port would end a swtpm that was started
/// with `--terminate`.
fn endpoint_error(what: &str, endpoint: &Endpoint) -> Diagnosis {
    let Endpoint { host, port } = endpoint;
    let control = port.saturating_add(1);
    let addresses = match (host.as_str(), control).to_socket_addrs() {
        Ok(addresses) => addresses,
        Err(error) => {
            return Diagnosis {
                what: format!("host {host:?} has no address: {error}"),
                remedy: "correct host= in the TCTI".to_owned(),
            };
        }
    };
    let mut last = None;
    for address in addresses {
        match TcpStream::connect_timeout(&address, PROBE_TIMEOUT) {
            Ok(_) => {
                return Diagnosis {
                    what: format!(
                        "{what} listens on {host} port {control} (control), but takes no commands on \
                         port {port}"
                    ),
                    remedy:
                        "another process may hold its one command connection: end that one, or \
                             restart it with --server and --ctrl on neighbouring ports"
                            .to_owned(),
                };
            }
            Err(error) => last = Some(error),
        }
    }
    let reason = last.map_or_else(|| "no address".to_owned(), |error| error.to_string());
    Diagnosis {
        what: format!("nothing listens on {host} port {port} and {control} ({reason})"),
        remedy: format!(
            "start {what} with its command channel on port {port} and its control channel on port \
             {control}, or correct the TCTI"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Tcti, TctiError> {
        text.parse()
    }

    #[test]
    fn every_kind_parses_and_prints_the_same() {
        for text in [
            "device:/dev/tpmrm0",
            "device:/dev/tpm0",
            "swtpm:host=127.0.0.1,port=23456",
            "swtpm:host=::1,port=1",
            "mssim:host=tpm.example.org,port=2321",
            "tabrmd:bus_name=com.intel.tss2.Tabrmd,bus_type=system",
            "tabrmd:bus_name=org.example.x,bus_type=session",
        ] {
            assert_eq!(parse(text).expect(text).to_string(), text);
        }
    }

    #[test]
    fn defaults_are_those_of_the_tss() {
        assert_eq!(parse("device").expect("default"), Tcti::Device("/dev/tpmrm0".into()));
        assert_eq!(parse("swtpm").expect("default").to_string(), "swtpm:host=localhost,port=2321");
        assert_eq!(
            parse("mssim:port=9").expect("default host").to_string(),
            "mssim:host=localhost,port=9"
        );
        assert_eq!(
            parse("tabrmd").expect("default").to_string(),
            "tabrmd:bus_name=com.intel.tss2.Tabrmd,bus_type=system"
        );
    }

    #[test]
    fn what_libtss2_would_ignore_is_refused() {
        assert_eq!(parse("swtpm:path=/run/x"), Err(TctiError::UnixSocket { kind: "swtpm" }));
        assert_eq!(parse("swtpm:host=a,path=/run/x"), Err(TctiError::UnixSocket { kind: "swtpm" }));
        assert_eq!(
            parse("swtpm:hots=a"),
            Err(TctiError::UnknownKey {
                kind: "swtpm",
                key: "hots".to_owned(),
                known: "host and port",
            })
        );
        assert_eq!(
            parse("tabrmd:path=/x"),
            Err(TctiError::UnknownKey {
                kind: "tabrmd",
                key: "path".to_owned(),
                known: "bus_name and bus_type",
            })
        );
        for text in ["", "tpm", "/dev/tpmrm0", "libtss2-tcti-device.so:/dev/tpm0"] {
            assert_eq!(parse(text), Err(TctiError::UnknownKind(text.to_owned())));
        }
    }

    #[test]
    fn missing_repeated_and_wrong_values_are_refused() {
        for text in ["swtpm:host=,port=1", "swtpm:host"] {
            let expected = TctiError::NoValue { kind: "swtpm", key: "host".to_owned() };
            assert_eq!(parse(text), Err(expected));
        }
        assert_eq!(
            parse("mssim:port=1,port=2"),
            Err(TctiError::Repeated { kind: "mssim", key: "port".to_owned() })
        );
        for port in ["0", "65535", "65536", "-1", "x"] {
            let Err(TctiError::BadValue { key, value, .. }) = parse(&format!("swtpm:port={port}"))
            else {
                panic!("port {port} was taken");
            };
            assert_eq!((key, value.as_str()), ("port", port));
        }
        for host in ["a_b", "-a", "a..b", "a b", "$(id)"] {
            let Err(TctiError::BadValue { key: "host", .. }) = parse(&format!("swtpm:host={host}"))
            else {
                panic!("host {host} was taken");
            };
        }
        assert!(matches!(parse("device:tpm0"), Err(TctiError::BadValue { kind: "device", .. })));
        assert!(matches!(
            parse("tabrmd:bus_type=user"),
            Err(TctiError::BadValue { key: "bus_type", .. })
        ));
        assert!(matches!(
            parse("tabrmd:bus_name=x"),
            Err(TctiError::BadValue { key: "bus_name", .. })
        ));
    }

    #[test]
    fn only_resource_managers_are_indirect() {
        let direct = |text: &str| parse(text).expect(text).is_direct();
        assert!(direct("device:/dev/tpm0"));
        assert!(direct("swtpm"));
        assert!(!direct("device:/dev/tpmrm0"));
        assert!(!direct("tabrmd"));
    }

    #[test]
    fn diagnoses_say_what_and_what_to_do() {
        let absent = Tcti::Device("/dev/does-not-exist".into()).diagnose();
        assert_eq!(absent.what, "/dev/does-not-exist does not exist");
        assert!(absent.remedy.contains("firmware setup"));
        // A port that was free a moment ago; nothing listens on it or the next one.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port().min(65_534);
        drop(listener);
        let refused = parse(&format!("swtpm:host=127.0.0.1,port={port}")).expect("TCTI").diagnose();
        assert!(refused.what.starts_with(&format!("nothing listens on 127.0.0.1 port {port}")));
    }
}
