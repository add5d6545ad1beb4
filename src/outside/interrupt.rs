//! A wish to stop, made by a signal and honoured at the next safe point.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use futures::future::select_all;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use tokio::sync::watch;

/// Shared by everything that can stop. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Interrupt {
    /// This one's own, then those of the wider work that it is a part of.
    senders: Vec<Arc<watch::Sender<bool>>>,
    /// Whether somebody asked twice. One for all parts.
    forced: Arc<watch::Sender<bool>>,
    /// Set by the handler itself, before anything that comes after the signal is looked at. One for all parts.
    signalled: Arc<AtomicBool>,
}

impl Default for Interrupt {
    fn default() -> Self {
        let new = || Arc::new(watch::Sender::new(false));
        Self { senders: vec![new()], forced: new(), signalled: Arc::default() }
    }
}

/// Somebody asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[error("interrupted by a signal")]
#[diagnostic(code("interrupted"))]
pub struct Interrupted;

impl Interrupt {
    /// One for a part of the work: it stops with the whole, and can be stopped alone.
    #[must_use]
    pub fn part(&self) -> Self {
        let mut part = Self::default();
        part.senders.extend(self.senders.iter().cloned());
        (part.forced, part.signalled) = (Arc::clone(&self.forced), Arc::clone(&self.signalled));
        part
    }

    /// Asks everything to stop at its next safe point.
    pub fn request(&self) {
        self.senders[0].send_replace(true);
    }

    /// Whether somebody asked.
    #[must_use]
    pub fn requested(&self) -> bool {
        self.signalled.load(Ordering::SeqCst) || self.senders.iter().any(|sender| *sender.borrow())
    }

    /// Waits until somebody asks.
    pub async fn wait(&self) {
        select_all(self.senders.iter().map(|sender| {
            let mut receiver = sender.subscribe();
            // The senders live as long as `self`, so that waiting cannot fail.
            Box::pin(async move { receiver.wait_for(|requested| *requested).await.map(|_| ()).ok() })
        }))
        .await;
    }

    /// Does `work`, unless somebody asks to stop before it is done; `work` is then dropped where it stands.
    ///
    /// # Errors
    /// [`Interrupted`], if it was dropped.
    pub async fn or<T>(&self, work: impl Future<Output = T>) -> Result<T, Interrupted> {
        tokio::select! {
            biased;
            () = self.wait() => Err(Interrupted),
            done = work => Ok(done),
        }
    }

    /// Waits until somebody asks for the second time: everything is then to end where it stands.
    pub async fn forced(&self) {
        let mut receiver = self.forced.subscribe();
        // The sender lives as long as `self`, so that waiting cannot fail.
        let _ = receiver.wait_for(|forced| *forced).await;
    }

    /// Requests a stop at the first SIGINT or SIGTERM, after calling `heard`, and an end at once at the second, after `again`. A
    /// thread of its own listens, whatever the others are busy with.
    ///
    /// # Errors
    /// The thread cannot be started, and a signal still does what it did; or the handlers cannot be set.
    pub fn on_signals(
        &self,
        heard: impl FnOnce() + Send + 'static,
        again: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let interrupt = self.clone();
        let (hand_over, handed) = mpsc::channel::<Signals>();
        let listen = move || {
            let Ok(mut signals) = handed.recv() else { return };
            let mut signals = signals.forever();
            signals.next();
            heard();
            interrupt.request();
            signals.next();
            again();
            interrupt.forced.send_replace(true);
        };
        // Before the handlers: without somebody who listens, a signal would be swallowed.
        thread::Builder::new().name("signals".into()).spawn(listen)?;
        let signals = Signals::new([SIGINT, SIGTERM])?;
        for signal in [SIGINT, SIGTERM] {
            flag::register(signal, Arc::clone(&self.signalled))?;
        }
        // The thread waits for it.
        let _ = hand_over.send(signals);
        Ok(())
    }
}
