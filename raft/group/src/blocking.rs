//! Where calls run that wait for a disk for long.

/// How to run a call that blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocking {
    /// On tokio's pool of blocking threads, so that heartbeats go on meanwhile.
    Pool,
    /// On the calling task: for simulations, whose disk is memory and whose schedule must not
    /// depend on threads.
    Inline,
}

impl Blocking {
    /// Runs `call` and gives its result.
    ///
    /// # Panics
    /// When `call` does.
    pub async fn run<T: Send + 'static>(self, call: impl FnOnce() -> T + Send + 'static) -> T {
        match self {
            Blocking::Inline => call(),
            Blocking::Pool => match tokio::task::spawn_blocking(call).await {
                Ok(result) => result,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                // The runtime is shutting down; nothing here may go on as if the call had been made.
                Err(_) => std::future::pending().await,
            },
        }
    }
}
