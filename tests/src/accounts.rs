//! Clients in the background, each of which keeps an account of what it meets.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Result;
use tokio::time::interval;

use crate::netns::Namespace;

/// How often it is looked whether all is over.
const LOOK: Duration = Duration::from_millis(20);

/// The accounts, and whether all is over.
#[derive(Debug)]
pub(crate) struct Accounts<A> {
    accounts: Mutex<Vec<A>>,
    is_over: AtomicBool,
}

impl<A> Accounts<A> {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Vec<A>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Waits until it is. What has stalled by then is not waited for.
    pub(crate) async fn over(&self) {
        let mut ticks = interval(LOOK);
        while !self.is_over() {
            ticks.tick().await;
        }
    }
}

/// The clients of one host, on a thread of their own. They end when this is dropped.
#[derive(Debug)]
pub(crate) struct Clients<A> {
    accounts: Arc<Accounts<A>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl<A: Send + 'static> Clients<A> {
    /// Starts them, with these accounts to begin with.
    ///
    /// # Errors
    /// If no thread can be had.
    pub(crate) fn start<F: Future<Output = Result<()>>>(
        namespace: &Namespace,
        accounts: Vec<A>,
        run: impl FnOnce(Arc<Accounts<A>>) -> F + Send + 'static,
    ) -> Result<Self> {
        let accounts = Arc::new(Accounts { accounts: Mutex::new(accounts), is_over: AtomicBool::new(false) });
        let thread = namespace.thread({
            let accounts = Arc::clone(&accounts);
            move || tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(accounts))
        })?;
        Ok(Self { accounts, thread: Some(thread) })
    }

    /// Whether they have ended by themselves.
    pub(crate) fn have_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends them, and returns the accounts.
    ///
    /// # Errors
    /// What they failed of.
    pub(crate) fn stop(mut self) -> Result<Vec<A>> {
        self.end()?;
        Ok(std::mem::take(&mut *self.lock()))
    }
}

impl<A> Clients<A> {
    /// The accounts as they are.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Vec<A>> {
        self.accounts.lock()
    }

    fn end(&mut self) -> Result<()> {
        self.accounts.is_over.store(true, Ordering::Relaxed);
        match self.thread.take() {
            Some(thread) => thread.join().expect("clients do not panic"),
            None => Ok(()),
        }
    }
}

impl<A> Drop for Clients<A> {
    fn drop(&mut self) {
        // Whoever drops them has an error of his own to tell.
        let _ = self.end();
    }
}
