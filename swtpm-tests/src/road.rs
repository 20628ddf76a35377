//! The way from a worker to its verifier, which a test can close for a while, and cut.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
};

use crate::cluster::AnyError;

/// A relay of TCP connections, which looks into none.
#[derive(Debug)]
pub struct Road {
    address: SocketAddr,
    toll: Arc<Toll>,
    relay: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Toll {
    /// Connections until the one that waits, which is one of them; 0 if none shall.
    until: AtomicUsize,
    came: Notify,
    may_go: Notify,
    cut: Notify,
    /// Connections so far, and those that are open.
    all: AtomicUsize,
    open: AtomicUsize,
}

impl Drop for Road {
    fn drop(&mut self) {
        self.relay.abort();
    }
}

impl Road {
    /// A road to this address.
    ///
    /// # Errors
    /// No port is free.
    pub async fn to(verifier: SocketAddr) -> Result<Self, AnyError> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, toll) = (listener.local_addr()?, Arc::<Toll>::default());
        let of_the_relay = Arc::clone(&toll);
        let relay = tokio::spawn(async move {
            while let Ok((worker, _)) = listener.accept().await {
                let toll = Arc::clone(&of_the_relay);
                tokio::spawn(async move {
                    let pass = |left: usize| left.checked_sub(1);
                    let left = toll.until.fetch_update(Ordering::SeqCst, Ordering::SeqCst, pass);
                    if left == Ok(1) {
                        toll.came.notify_one();
                        toll.may_go.notified().await;
                    }
                    toll.all.fetch_add(1, Ordering::SeqCst);
                    toll.open.fetch_add(1, Ordering::SeqCst);
                    tokio::select! {
                        () = relay_one(worker, verifier) => {}
                        () = toll.cut.notified() => {}
                    }
                    toll.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Ok(Self { address, toll, relay })
    }

    /// Where it begins.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections that came along it so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.toll.all.load(Ordering::SeqCst)
    }

    /// Resolves when no connection is open.
    pub async fn is_empty(&self) {
        while self.toll.open.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Cuts every connection that is open.
    pub fn cut(&self) {
        self.toll.cut.notify_waiters();
    }

    /// Waits for the `count`th connection from now on, and lets it go on when `meanwhile` is over: that has to be soon, for the
    /// worker gives a connection up after seconds. It is held from this call on, whenever that is waited for.
    pub fn hold(&self, count: usize, meanwhile: impl AsyncFnOnce()) -> impl Future<Output = ()> {
        self.toll.until.store(count, Ordering::SeqCst);
        async move {
            self.toll.came.notified().await;
            meanwhile().await;
            self.toll.may_go.notify_one();
        }
    }
}

/// Until both ends hung up; a verifier that is gone hangs up at once.
async fn relay_one(mut worker: TcpStream, verifier: SocketAddr) {
    if let Ok(mut verifier) = TcpStream::connect(verifier).await {
        // A road that gathers small pieces takes longer than what goes along it.
        let _ = (worker.set_nodelay(true), verifier.set_nodelay(true));
        let _ = tokio::io::copy_bidirectional(&mut worker, &mut verifier).await;
    }
}
