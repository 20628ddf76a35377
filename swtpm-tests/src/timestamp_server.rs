//! RFC 3161 authorities on the loopback: a server for any, and OpenSSL's, which shares no code with this project.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Mutex,
};

use crate::cluster::AnyError;

/// How an answer begins, but for its length.
pub const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/timestamp-reply\r\n";

/// Answers each request over HTTP with what `answer` gives: a head without its length, and a body; or not at all. One that
/// waits for its answer keeps no other waiting.
///
/// # Errors
/// No port is free.
pub async fn serve<A>(
    answer: impl Fn(Vec<u8>) -> A + Send + Sync + 'static,
) -> Result<SocketAddr, AnyError>
where
    A: Future<Output = Option<(String, Vec<u8>)>> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (address, answer) = (listener.local_addr()?, Arc::new(answer));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let Some(request) = read(&mut stream).await else { return };
                let Some((head, body)) = answer(request).await else { return };
                let head = format!("{head}content-length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(&[head.into_bytes(), body].concat()).await;
            });
        }
    });
    Ok(address)
}

/// The body of a request for a time stamp: `None` for what is none.
async fn read(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer).await.ok()? {
            0 => return None,
            read => request.extend_from_slice(buffer.get(..read)?),
        }
        let text = String::from_utf8_lossy(&request).to_lowercase();
        let Some((head, _)) = text.split_once("\r\n\r\n") else { continue };
        if !head.contains("content-type: application/timestamp-query") {
            return None;
        }
        let length = head.split("content-length: ").nth(1)?.split("\r\n").next()?;
        let body = request.get(head.len() + 4..)?;
        if body.len() >= length.parse().ok()? {
            return Some(body.to_vec());
        }
    }
}

/// OpenSSL's authority with RSA keys and a certificate between, as authorities for everybody have them.
#[derive(Debug)]
pub struct OpensslAuthority {
    address: SocketAddr,
    folder: tempfile::TempDir,
    answers: Arc<AtomicBool>,
}

const SETUP: &str = "
ca='-addext basicConstraints=critical,CA:true -addext keyUsage=critical,keyCertSign,cRLSign'
req='openssl req -newkey rsa:2048 -nodes -days 3650'
$req -x509 -subj /CN=root -keyout root.key -out root.pem $ca
$req -subj /CN=between -keyout between.key -CA root.pem -CAkey root.key -out between.pem $ca
$req -subj /CN=tsa -keyout tsa.key -CA between.pem -CAkey between.key -out tsa.pem \\
  -addext basicConstraints=CA:false -addext keyUsage=critical,digitalSignature \\
  -addext extendedKeyUsage=critical,timeStamping
cat between.pem root.pem > chain.pem
echo 1000 > serial
cat > tsa.cnf <<END
[tsa]
serial = ./serial
crypto_device = builtin
signer_cert = ./tsa.pem
signer_key = ./tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
ess_cert_id_alg = sha256
END
";
const REPLY: &str =
    "openssl ts -reply -config tsa.cnf -section tsa -queryfile request.tsq -out answer.tsr";

impl OpensslAuthority {
    /// Makes keys and certificates, and answers.
    ///
    /// # Errors
    /// OpenSSL is not there, or no port is free.
    pub async fn start() -> Result<Self, AnyError> {
        let folder = tempfile::tempdir()?;
        run(folder.path(), SETUP)?;
        let answers = Arc::new(AtomicBool::new(true));
        // It has one file of serial numbers: one at a time.
        let (turn, is_there) = (Arc::<Mutex<()>>::default(), Arc::clone(&answers));
        let at = folder.path().to_owned();
        let address = serve(move |request| {
            let (at, turn) = (at.clone(), Arc::clone(&turn));
            let is_there = is_there.load(Ordering::Relaxed);
            async move {
                if !is_there {
                    return None;
                }
                let _turn = turn.lock().await;
                tokio::task::spawn_blocking(move || reply(&at, &request)).await.ok()?
            }
        });
        Ok(Self { address: address.await?, folder, answers })
    }

    /// Where it answers.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/tsa", self.address)
    }

    /// PEM of the certificates above its own, the root last.
    #[must_use]
    pub fn chain(&self) -> PathBuf {
        self.folder.path().join("chain.pem")
    }

    /// Whether it answers from now on, or closes connections without a word.
    pub fn answers(&self, yes: bool) {
        self.answers.store(yes, Ordering::Relaxed);
    }
}

fn reply(at: &Path, request: &[u8]) -> Option<(String, Vec<u8>)> {
    std::fs::write(at.join("request.tsq"), request).ok()?;
    run(at, REPLY).ok()?;
    Some((HEAD.to_owned(), std::fs::read(at.join("answer.tsr")).ok()?))
}

fn run(folder: &Path, script: &str) -> Result<(), AnyError> {
    let output = Command::new("sh").args(["-euc", script]).current_dir(folder).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned().into())
}
