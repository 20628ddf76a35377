//! Reading many files at once, with a few threads and small buffers.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use super::{
    Progress,
    file::{Facts, FileError, Hashed, hash_file},
};

/// Fits into a core's second-level cache, so that the hash reads what the copy just left there.
const BUFFER_BYTES: usize = 256 * 1024;

/// A file to be read.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) path: Vec<u8>,
    pub(crate) facts: Facts,
}

/// Reads all jobs, biggest first so that no thread is left alone with a big file at the end.
pub(crate) fn hash_all(
    mut jobs: Vec<Job>,
    threads: usize,
    progress: &(dyn Fn(Progress) + Sync),
) -> Vec<(Job, Result<Hashed, FileError>)> {
    jobs.sort_by(|a, b| {
        b.facts.size_bytes.cmp(&a.facts.size_bytes).then_with(|| a.path.cmp(&b.path))
    });
    let total = Progress {
        files: 0,
        files_total: jobs.len(),
        bytes: 0,
        bytes_total: jobs.iter().map(|job| job.facts.size_bytes).fold(0, u64::saturating_add),
    };
    let (files, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
    let report = || {
        progress(Progress {
            files: files.load(Ordering::Relaxed),
            bytes: bytes.load(Ordering::Relaxed),
            ..total
        });
    };
    let work = |next: &mut dyn FnMut() -> Option<Job>,
                done: &mut dyn FnMut((Job, Result<Hashed, FileError>))| {
        let mut buffer = vec![0; BUFFER_BYTES];
        while let Some(job) = next() {
            let result = hash_file(&job.path, &job.facts, &mut buffer, &|count| {
                let before = bytes.fetch_add(count, Ordering::Relaxed);
                // Every 16 MiB is often enough for an eye.
                if before >> 24 != before.saturating_add(count) >> 24 {
                    report();
                }
            });
            files.fetch_add(1, Ordering::Relaxed);
            done((job, result));
        }
        report();
    };

    let threads = threads.clamp(1, jobs.len().max(1));
    let mut results = Vec::with_capacity(jobs.len());
    if threads == 1 || total.bytes_total < BUFFER_BYTES as u64 {
        let mut jobs = jobs.into_iter();
        work(&mut || jobs.next(), &mut |result| results.push(result));
        return results;
    }
    let queue = Mutex::new(jobs.into_iter());
    std::thread::scope(|scope| {
        let mut running = Vec::with_capacity(threads);
        for _ in 0..threads {
            running.push(scope.spawn(|| {
                let mut next = || match queue.lock() {
                    Ok(mut queue) => queue.next(),
                    // Another thread died with the lock; joining it passes its panic on.
                    Err(_) => None,
                };
                // Kept until the end: sending each wakes a thread that has nothing else to do.
                let mut mine = Vec::new();
                work(&mut next, &mut |result| mine.push(result));
                mine
            }));
        }
        for thread in running {
            match thread.join() {
                Ok(mine) => results.extend(mine),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    results
}
