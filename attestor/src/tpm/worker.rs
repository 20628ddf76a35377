//! One thread owns the TPM; async code sends it work.

use std::thread::{self, JoinHandle};

use proto::digest::{Digest, PcrIndex, PcrSelection};
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use super::{
    EndorsementSurvey, Identity, NodeKey, PcrValue, SignedAttest, Tpm, TpmConfig, TpmError,
    TpmFacts, esapi::EsapiTpm,
};

/// Calls that may wait for the TPM before callers wait to hand in theirs.
const QUEUE_LENGTH: usize = 32;

/// One call: runs with the TPM or with the error of opening it, and says whether the connection is
/// still good.
type Job = Box<dyn FnOnce(Result<&mut Box<dyn Tpm>, TpmError>) -> Connection + Send>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Connection {
    Good,
    Lost,
}

/// The async side. Cheap to clone; when all clones are gone the thread ends.
#[derive(Clone, Debug)]
pub struct TpmHandle {
    jobs: mpsc::Sender<Job>,
}

/// The thread's end, for a clean shutdown.
#[derive(Debug)]
pub struct TpmThread {
    thread: JoinHandle<()>,
}

impl TpmThread {
    /// Waits until everything is flushed and the connection is closed. All [`TpmHandle`]s must be
    /// gone, or this waits for them.
    pub async fn ended(self) {
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the TPM thread ended by a panic");
        }
    }
}

impl TpmHandle {
    /// Starts the thread and opens the TPM.
    ///
    /// # Errors
    /// [`TpmError::Absent`] and the other errors of opening; the thread has then ended.
    pub async fn start(config: TpmConfig) -> Result<(Self, TpmThread), TpmError> {
        Self::start_with(move || {
            EsapiTpm::open(config.clone()).map(|tpm| Box::new(tpm) as Box<dyn Tpm>)
        })
        .await
    }

    /// Starts the thread over any [`Tpm`]; `open` is called again after a lost connection.
    ///
    /// # Errors
    /// Those of the first `open`.
    pub async fn start_with(
        open: impl FnMut() -> Result<Box<dyn Tpm>, TpmError> + Send + 'static,
    ) -> Result<(Self, TpmThread), TpmError> {
        let (jobs, queue) = mpsc::channel(QUEUE_LENGTH);
        let thread = thread::Builder::new()
            .name("tpm".to_owned())
            .spawn(move || serve(open, queue))
            .map_err(|error| TpmError::Input {
                what: "the TPM thread",
                detail: error.to_string(),
            })?;
        let handle = Self { jobs };
        handle.call(|_| Ok(())).await?;
        Ok((handle, TpmThread { thread }))
    }

    /// Runs `f` on the TPM thread.
    async fn call<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut dyn Tpm) -> Result<T, TpmError> + Send + 'static,
    ) -> Result<T, TpmError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |tpm| {
            let outcome = tpm.and_then(|tpm| f(tpm.as_mut()));
            let lost = matches!(&outcome, Err(error) if error.is_connection_lost());
            // Nobody waits any more: the work is done all the same.
            let _ = reply.send(outcome);
            if lost { Connection::Lost } else { Connection::Good }
        });
        self.jobs.send(job).await.map_err(|_| TpmError::Stopped)?;
        answer.await.map_err(|_| TpmError::Stopped)?
    }

    /// See [`Tpm::facts`].
    ///
    /// # Errors
    /// As there.
    pub async fn facts(&self) -> Result<TpmFacts, TpmError> {
        self.call(|tpm| tpm.facts()).await
    }

    /// See [`Tpm::survey_endorsement`].
    ///
    /// # Errors
    /// As there.
    pub async fn survey_endorsement(&self) -> Result<EndorsementSurvey, TpmError> {
        self.call(|tpm| tpm.survey_endorsement()).await
    }

    /// See [`Tpm::enroll`].
    ///
    /// # Errors
    /// As there.
    pub async fn enroll(&self) -> Result<Identity, TpmError> {
        self.call(|tpm| tpm.enroll()).await
    }

    /// See [`Tpm::activate_credential`].
    ///
    /// # Errors
    /// As there.
    pub async fn activate_credential(
        &self,
        id_object: Vec<u8>,
        encrypted_secret: Vec<u8>,
    ) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        self.call(move |tpm| tpm.activate_credential(&id_object, &encrypted_secret)).await
    }

    /// See [`Tpm::create_node_key`].
    ///
    /// # Errors
    /// As there.
    pub async fn create_node_key(&self) -> Result<NodeKey, TpmError> {
        self.call(|tpm| tpm.create_node_key()).await
    }

    /// See [`Tpm::certify_node_key`].
    ///
    /// # Errors
    /// As there.
    pub async fn certify_node_key(
        &self,
        node_key: NodeKey,
        qualifying_data: [u8; 32],
    ) -> Result<SignedAttest, TpmError> {
        self.call(move |tpm| tpm.certify_node_key(&node_key, &qualifying_data)).await
    }

    /// See [`Tpm::quote`].
    ///
    /// # Errors
    /// As there.
    pub async fn quote(
        &self,
        qualifying_data: [u8; 32],
        selection: PcrSelection,
    ) -> Result<SignedAttest, TpmError> {
        self.call(move |tpm| tpm.quote(&qualifying_data, &selection)).await
    }

    /// See [`Tpm::read_pcrs`].
    ///
    /// # Errors
    /// As there.
    pub async fn read_pcrs(&self, selection: PcrSelection) -> Result<Vec<PcrValue>, TpmError> {
        self.call(move |tpm| tpm.read_pcrs(&selection)).await
    }

    /// See [`Tpm::extend`].
    ///
    /// # Errors
    /// As there.
    pub async fn extend(&self, index: PcrIndex, digests: Vec<Digest>) -> Result<(), TpmError> {
        self.call(move |tpm| tpm.extend(index, &digests)).await
    }
}

/// The thread: opens the TPM when the first call comes, and again after the connection broke.
fn serve(mut open: impl FnMut() -> Result<Box<dyn Tpm>, TpmError>, mut queue: mpsc::Receiver<Job>) {
    let mut tpm: Option<Box<dyn Tpm>> = None;
    while let Some(job) = queue.blocking_recv() {
        let opened = match &mut tpm {
            Some(open) => Ok(open),
            slot => open().map(|opened| slot.insert(opened)),
        };
        if job(opened) == Connection::Lost {
            // Closing flushes what can still be flushed.
            tpm = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    /// Breaks at its first quote, answers nothing else.
    struct Breaking(Arc<AtomicUsize>);

    impl Drop for Breaking {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Tpm for Breaking {
        fn facts(&mut self) -> Result<TpmFacts, TpmError> {
            Err(TpmError::Lockout { command: "TPM2_GetCapability" })
        }
        fn survey_endorsement(&mut self) -> Result<EndorsementSurvey, TpmError> {
            Ok(EndorsementSurvey::default())
        }
        fn enroll(&mut self) -> Result<Identity, TpmError> {
            Err(TpmError::NotEnrolled)
        }
        fn activate_credential(
            &mut self,
            _: &[u8],
            _: &[u8],
        ) -> Result<Zeroizing<Vec<u8>>, TpmError> {
            Ok(Zeroizing::new(vec![1]))
        }
        fn create_node_key(&mut self) -> Result<NodeKey, TpmError> {
            Err(TpmError::NodeKeyLost)
        }
        fn certify_node_key(&mut self, _: &NodeKey, _: &[u8]) -> Result<SignedAttest, TpmError> {
            Err(TpmError::NotEnrolled)
        }
        fn quote(&mut self, _: &[u8], _: &PcrSelection) -> Result<SignedAttest, TpmError> {
            Err(TpmError::ConnectionLost { command: "TPM2_Quote", code: 0x000a_000a })
        }
        fn read_pcrs(&mut self, _: &PcrSelection) -> Result<Vec<PcrValue>, TpmError> {
            Ok(Vec::new())
        }
        fn extend(&mut self, _: PcrIndex, _: &[Digest]) -> Result<(), TpmError> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_lost_connection_is_opened_again_and_other_errors_keep_it() {
        let (opened, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let count = (Arc::clone(&opened), Arc::clone(&closed));
        let (tpm, thread) = TpmHandle::start_with(move || {
            count.0.fetch_add(1, Ordering::SeqCst);
            Ok(Box::new(Breaking(Arc::clone(&count.1))) as Box<dyn Tpm>)
        })
        .await
        .expect("opens");
        assert_eq!(tpm.facts().await, Err(TpmError::Lockout { command: "TPM2_GetCapability" }));
        assert_eq!((opened.load(Ordering::SeqCst), closed.load(Ordering::SeqCst)), (1, 0));
        let lost = tpm.quote([0; 32], PcrSelection::default()).await.expect_err("breaks");
        assert!(lost.is_connection_lost() && lost.needs_enrollment());
        assert_eq!(tpm.read_pcrs(PcrSelection::default()).await, Ok(Vec::new()));
        assert_eq!((opened.load(Ordering::SeqCst), closed.load(Ordering::SeqCst)), (2, 1));
        drop(tpm);
        thread.ended().await;
        assert_eq!(closed.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_tpm_that_does_not_open_is_an_error_of_start() {
        let error =
            TpmHandle::start_with(|| Err(TpmError::NotEnrolled)).await.expect_err("refused");
        assert_eq!(error, TpmError::NotEnrolled);
    }
}
