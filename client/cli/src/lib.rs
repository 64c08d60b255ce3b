//! The command-line tool: one file per noun.
//!
//! Everything here is a client of a running cluster. Standard output is for results, standard error for
//! progress and hints. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the outcome is unknown.
//!
//! Not here: `serve` and `demo`, which run a node (`broker/server`).

/// Prints a line of a result. Whoever read standard output may have gone (`… | head`): that is no failure.
macro_rules! say {
    ($($text:tt)*) => {
        drop(std::io::Write::write_all(&mut std::io::stdout(), format!("{}\n", format_args!($($text)*)).as_bytes()))
    };
}

mod cluster;
mod context;
mod error;
mod groups;
mod stream;
mod time;

pub use cluster::ClusterCommand;
pub use context::ContextArgs;
pub use error::CliError;
pub use stream::StreamCommand;

/// Runs a `cluster` command.
///
/// # Errors
/// What failed, and what to do next.
pub async fn cluster(context: &ContextArgs, command: ClusterCommand) -> Result<(), CliError> {
    cluster::run(context, command).await
}

/// Runs a `stream` command.
///
/// # Errors
/// What failed, and what to do next.
pub async fn stream(context: &ContextArgs, command: StreamCommand) -> Result<(), CliError> {
    stream::run(context, command).await
}
